"""The folder check: compares data set folders with the ledger in the background.

Blocks of 1,000 prompts are compared after a start before the ledger grants from them, and before
it says that all is done. Whole ones get a mark:

000012/COMPLETE     {"indices": 1000, "images": 9990, "short": 3, …}

It is read to rebuild a lost ledger, and only then, for figures at once; the folder is listed later.
"""

import contextlib
import json
import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import tqdm

from common.files import read_json, write_whole
from common.json_form import COUNT, has_form, in_form
from generate.dataset.accept_rule import rule_of
from generate.dataset.definition import MOST
from generate.dataset.layout import FOLDER
from generate.dataset.scan import IndexFiles, scan_folder
from generate.server.data_sets import DataSets
from generate.server.folders import counted, index_done, remove_marks
from generate.server.ledger.ledger import Ledger
from generate.server.storage.comparison import Block

log = logging.getLogger("image_server")
LOG_EVERY_S = 10
MARK_BYTES = 1 << 20  # of a COMPLETE mark: 1,000 prompts
LOOK_EVERY_S = 2
TRY_AGAIN_S = 10  # a block that could not be read
QUIET_S = 2  # a shorter comparison is not logged
INDEX = re.compile("[0-9]{1,9}")  # of a prompt
IMAGES = range(MOST["images_per_prompt"] + 1)
Figures = tuple[int, int]  # images of an index, images that the LLMs gave no text for


class FolderCheck:
    """step() compares the next block that the ledger asks for, if there is one."""

    def __init__(self, data_sets: DataSets, rebuilt: bool) -> None:
        """rebuilt: the ledger is new, torn or older; its first comparison may trust the marks."""
        self.data_sets = data_sets
        self.folders = data_sets.folders
        self.ledger = data_sets.ledger
        self.rebuilt = rebuilt
        self.by_mark: set[Block] = set()  # compared by its mark alone
        self.seen: set[Block] = set()  # compared in any way since the rebuild
        self.put_off: dict[Block, str] = {}  # could not be read just now -> why
        self.logged: dict[Block, str] = {}  # what was said of those before
        self.looked_at = float("-inf")
        self.tried_at = 0.0
        self.began: float | None = None
        self.compared = 0
        self.logged_at = 0.0
        self.bar: Any = None

    def all_done(self) -> bool:
        """Whether there is a data set, and no index of any waits or is leased, all compared.

        A data set whose folder is not there does not count.
        """
        names = self.ledger.read(lambda ledger: ledger.store.names())
        here = [name for name in names if name not in self.data_sets.detached]
        counts = self.ledger.read(lambda ledger: [ledger.queries.counts(name) for name in here])
        if not names or any(count["waiting"] + count["leased"] for count in counts):
            return False
        return self.ledger.read(lambda ledger: all(map(ledger.comparison.is_complete, here)))

    def step(self) -> None:
        """One round: compare all blocks that the ledger asks for."""
        self._look_at_folders()
        while work := self.ledger.read(self._next):
            self.began = self.began or time.monotonic()
            self._compare_or_put_off(*work)
            self.compared += 1
            if sys.stdout.isatty():
                self._show_bar()
            elif time.monotonic() - self.logged_at > LOG_EVERY_S and (text := self.progress()):
                self.logged_at = time.monotonic()
                log.info(text)
            self._look_at_folders()
        if self.rebuilt:  # marks gave figures at once; now their folders are listed
            self.rebuilt = False
            self.ledger.read(lambda ledger: ledger.comparison.compare_again(self.by_mark))
            self.seen = set()
        self.began = None
        self.compared = 0
        if self.bar:
            self.bar.close()
            self.bar = None

    def _look_at_folders(self) -> None:
        now = time.monotonic()
        if now - self.looked_at > LOOK_EVERY_S:
            self.looked_at = now
            self.data_sets.look()
        if self.put_off and now - self.tried_at > TRY_AGAIN_S:
            self.tried_at = now
            self.logged = self.put_off
            self.put_off = {}

    def _next(self, ledger: Ledger) -> Block | None:
        return ledger.comparison.next_check(self.data_sets.detached, self.put_off)

    def _compare_or_put_off(self, name: str, block: int) -> None:
        """Compare a block. One that cannot be read is tried again later; the others go on."""
        try:
            self.compare(name, block)
            self.logged.pop((name, block), None)
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
            self.tried_at = time.monotonic()
            self.put_off[name, block] = why
            if self.logged.get((name, block)) != why:
                log.error(
                    "data set %s: folder %06d cannot be compared: %s; it is tried again, the "
                    "others go on",
                    name,
                    block,
                    why,
                )

    def _show_bar(self) -> None:
        """On a terminal: tqdm. A log gets a line every ten seconds."""
        left = self.ledger.read(lambda ledger: ledger.comparison.checks_left())
        self.bar = self.bar or tqdm.tqdm(
            desc="comparing the data set folders", unit=" folders", delay=1, leave=False
        )
        self.bar.total = self.compared + left
        self.bar.update(1)

    def compare(self, name: str, block: int) -> None:
        """Bring one block's done indices by its files' names to the ledger; mark a whole one."""
        if not self.ledger.read(lambda ledger: ledger.store.has(name)):
            return  # forgotten just now
        definition = self.ledger.read(lambda ledger: ledger.store.definition(name))
        images, rule = definition["images_per_prompt"], rule_of(definition)
        folder = self.folders.path(name)
        indices = range(block * FOLDER, min((block + 1) * FOLDER, definition["total"]))
        mark = folder / f"{block:06d}" / "COMPLETE"
        # A mark may be older than a change of the folder. So it replaces the listing only in a
        # block's first comparison of a rebuild, never in the one before "all done" (guarantee 12).
        whole = None
        if self.rebuilt and (name, block) not in self.seen:
            self.seen.add((name, block))
            whole = trusted(mark, indices, images)
        if whole:
            self.by_mark.add((name, block))
            self.ledger.read(lambda ledger: ledger.comparison.folder_checked(name, block, whole))
            return
        found = scan_folder(folder, block, rule=rule)
        done = {
            index: counted(files, images)
            for index, files in found.items()
            if index in indices and files.done(images)
        }
        # Reported as done while the names were being listed: those are looked up one by one.
        missing = self.ledger.read(lambda ledger: ledger.store.done_in(name, block)) - done.keys()
        for index in missing:
            if index_done(folder, index, images, rule):
                done[index] = counted(
                    scan_folder(folder, block, {index}).get(index, IndexFiles()), images
                )
        lost = sorted(missing - done.keys())
        if lost and not folder.is_dir():
            return  # it has left just now: see DataSets.look
        if lost:
            remove_marks([mark])
        grown = [
            index
            for index in lost
            if index in found and (found[index].done() or found[index].opened)
        ]
        if grown:
            log.info("%s: %d finished prompts get more images (--extend)", name, len(grown))
        if lost := sorted(set(lost) - set(grown)):
            log.warning(
                "%s: files of %d prompts that were done are missing (%s): they are generated again",
                name,
                len(lost),
                some_of(lost),
            )
        outdated = (
            self.ledger.read(lambda ledger: ledger.comparison.folder_checked(name, block, done))
            is None
        )
        if len(done) == len(indices) and not outdated and not os.path.lexists(mark):
            with contextlib.suppress(OSError):  # no room: the mark only saves time
                write_mark(mark, done, images)
            if len(self.ledger.read(lambda ledger: ledger.store.done_in(name, block))) < len(
                indices
            ):
                remove_marks([mark])  # --retry_failed came between

    def problem(self) -> str | None:
        """A sentence while a folder cannot be read, or None."""
        for (name, block), why in self.put_off.items():
            return f"Folder {name}/{block:06d} cannot be compared: {why}"
        return None

    def progress(self) -> str | None:
        """A sentence while a comparison goes on for long, or None."""
        left = self.ledger.read(lambda ledger: ledger.comparison.checks_left())
        if not left or self.began is None or time.monotonic() - self.began < QUIET_S:
            return None
        return (
            f"comparing the ledger with the data set folders: {self.compared:,} of "
            f"{left + self.compared:,} folders of 1,000 prompts"
        )


def some_of(indices: list[int]) -> str:
    """At most ten of these prompt indices, for a line of the log."""
    more = f" and {len(indices) - 10} more" if len(indices) > 10 else ""
    return "prompt index " + ", ".join(map(str, indices[:10])) + more


def trusted(mark: Path, indices: range, images: int) -> dict[int, Figures] | None:
    """{index: figures} of a folder marked COMPLETE for this definition; None if it is not.

    The names in the folder are not looked at. What cannot be read, or has another form, is no mark.
    """
    try:
        record = in_form(read_json(mark, MARK_BYTES), MARK)
    except (OSError, ValueError):
        return None
    less = {int(index): (count, short) for index, (count, short) in record["less"].items()}
    expected = (len(indices), images)
    if (record["indices"], record["images_per_prompt"]) != expected or less.keys() - set(indices):
        return None
    return {index: less.get(index, (images, 0)) for index in indices}


def _is_less(value: object) -> bool:
    """Whether it is {"12": [images, images without text]}: short figures of prompts."""
    if not isinstance(value, dict) or not has_form(value, {str: [IMAGES]}):
        return False
    return all(INDEX.fullmatch(index) and len(pair) == 2 for index, pair in value.items())


MARK = {"indices": COUNT, "images_per_prompt": COUNT, "less": _is_less}


def write_mark(mark: Path, done: dict[int, Figures], images: int) -> None:
    """COMPLETE: totals for people; for the rebuild the indices with fewer images than asked for."""
    record = {
        "indices": len(done),
        "images_per_prompt": images,
        "images": sum(count for count, _ in done.values()),
        "short": sum(1 for _, short in done.values() if short),
        "less": {index: figs for index, figs in sorted(done.items()) if figs != (images, 0)},
    }
    # always the same temporary name: what a killed server leaves is overwritten by the next one's
    write_whole(mark, json.dumps(record) + "\n", temporary=".COMPLETE.tmp")
