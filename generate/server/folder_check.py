"""The background comparison of the data set folders with the ledger: the folder wins.

Blocks of 1,000 prompts are compared after a start before the ledger grants from them, and before
it says that all is done. Whole ones get a mark:

000012/COMPLETE     {"indices": 1000, "images": 9990, "short": 3, …}

It is read instead of the folder to rebuild a lost ledger, and only then.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import tqdm

from common.files import write_whole
from common.untrusted import Refused, read_untrusted
from generate.dataset.layout import FOLDER
from generate.dataset.scan import scan_folder
from generate.server.folders import Folders, counted, index_done
from generate.server.shared_ledger import SharedLedger

log = logging.getLogger("image_server")
LOG_EVERY_S = 10
MARK_BYTES = 1 << 20  # of a COMPLETE mark: 1,000 prompts
QUIET_S = 2  # a comparison that takes less is not worth a word
Figures = tuple[int, int]  # images of an index, images that the LLMs gave no text for


class FolderCheck:
    """step() compares what the ledger wants compared, or does nothing."""

    def __init__(self, folders: Folders, ledger: SharedLedger) -> None:
        self.folders = folders
        self.ledger = ledger
        self.began: float | None = None
        self.compared = 0
        self.logged_at = 0.0
        self.bar: Any = None

    def all_done(self) -> bool:
        """Whether there is a data set, and no index of any waits or is leased."""
        counts = self.ledger.read(
            lambda ledger: [ledger.queries.counts(name) for name in ledger.store.names()]
        )
        return bool(counts) and not any(count["waiting"] + count["leased"] for count in counts)

    def step(self) -> None:
        while work := self.ledger.read(lambda ledger: ledger.comparison.next_check()):
            self.began = self.began or time.monotonic()
            self.compare(*work)
            self.compared += 1
            if sys.stdout.isatty():
                self._show_bar()
            elif time.monotonic() - self.logged_at > LOG_EVERY_S and (text := self.progress()):
                self.logged_at = time.monotonic()
                log.info(text)
        self.began = None
        self.compared = 0
        if self.bar:
            self.bar.close()
            self.bar = None

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
        definition = self.ledger.read(lambda ledger: ledger.store.definition(name))
        images = definition["images_per_prompt"]
        folder = self.folders.path(name)
        indices = range(block * FOLDER, min((block + 1) * FOLDER, definition["total"]))
        mark = folder / f"{block:06d}" / "COMPLETE"
        whole = None
        if self.ledger.read(lambda ledger: ledger.rebuilt):
            whole = trusted(mark, indices, images)
        if whole:
            self.ledger.read(lambda ledger: ledger.comparison.folder_checked(name, block, whole))
            return
        found = scan_folder(folder, block)
        done = {
            index: counted(files, images)
            for index, files in found.items()
            if index in indices and files.done(images)
        }
        # Reported as done while the names were being listed: those are looked up one by one.
        missing = self.ledger.read(lambda ledger: ledger.store.done_in(name, block)) - done.keys()
        for index in missing:
            if index_done(folder, index, images):
                done[index] = counted(scan_folder(folder, block, {index})[index], images)
        lost = sorted(missing - done.keys())
        if lost:
            mark.unlink(missing_ok=True)
            log.warning(
                "%s: files of %d prompts that were done are missing (%s…): "
                "they are generated again",
                name,
                len(lost),
                lost[0],
            )
        outdated = (
            self.ledger.read(lambda ledger: ledger.comparison.folder_checked(name, block, done))
            is None
        )
        if len(done) == len(indices) and not outdated and not mark.exists():
            write_mark(mark, done, images)
            if len(self.ledger.read(lambda ledger: ledger.store.done_in(name, block))) < len(
                indices
            ):
                mark.unlink(missing_ok=True)  # --retry_failed came between

    def progress(self) -> str | None:
        """A sentence while a comparison goes on for long, or None."""
        left = self.ledger.read(lambda ledger: ledger.comparison.checks_left())
        if not left or self.began is None or time.monotonic() - self.began < QUIET_S:
            return None
        return (
            f"comparing the ledger with the data set folders: {self.compared:,} of "
            f"{left + self.compared:,} folders of 1,000 prompts"
        )


def trusted(mark: Path, indices: range, images: int) -> dict[int, Figures] | None:
    """{index: figures} of a folder marked COMPLETE for this definition; None if it is not.

    The names in the folder are not looked at.
    """
    try:
        record = json.loads(read_untrusted(mark, MARK_BYTES))
    except (FileNotFoundError, Refused, ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if (record.get("indices"), record.get("images_per_prompt")) != (len(indices), images):
        return None
    less = {int(index): tuple(figures) for index, figures in record["less"].items()}
    return {index: less.get(index, (images, 0)) for index in indices}


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
