"""Look into the data set folders for a call: are all files of an index there?

folders = Folders(output_root, ledger)         # ledger: SharedLedger
folders.done("HPDv2", [3, 4])                  # {3: True, 4: False}
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.given_up import is_given_up
from common.packed_folder import exists
from generate.dataset.accept_rule import Rule, rule_of
from generate.dataset.captions import images_wanted, read_captions
from generate.dataset.collected import remove_collected
from generate.dataset.disk import shared_fault, spare
from generate.dataset.layout import FOLDER, NAME, folder_name, path_of
from generate.dataset.links import remove
from generate.dataset.scan import IndexFiles, scan_folder
from generate.protocol.output_root import dataset_folder
from generate.server.ledger.ledger import Ledger
from generate.server.ledger.shared_ledger import SharedLedger

log = logging.getLogger("image_server")
SECOND_LOOK_S = 0.3  # a network file system may show new names late
RETRIES_AT_ONCE = 500  # failed prompts that --retry_failed takes under one lock


class Folders:
    """The folders of all data sets of an output root."""

    def __init__(self, output_root: Path, ledger: SharedLedger) -> None:
        self.output_root = output_root
        self.ledger = ledger

    def path(self, name: str) -> Path:
        return dataset_folder(self.output_root, name)

    def done(self, name: str, indices: Iterable[int]) -> dict[int, bool]:
        """{index: whether all its files are there}; looked at a second time where not."""
        definition = self._definition(name)
        images, rule = definition["images_per_prompt"], rule_of(definition)
        there = {index: self._done(name, index, images, rule) for index in indices}
        missing = [index for index, found in there.items() if not found]
        if missing:
            time.sleep(SECOND_LOOK_S)
            there |= {index: self._done(name, index, images, rule) for index in missing}
        return there

    def _done(self, name: str, index: int, images: int, rule: Rule | None) -> bool:
        try:
            return index_done(self.path(name), index, images, rule)
        except OSError as error:
            if shared_fault(error)[0] != "folder":
                raise
            self.look_again(name, [index])
            return False

    def look_again(self, name: str, indices: Iterable[int]) -> None:
        """The sub-folders of these indices cannot be used: they are compared again.

        Until that went well nothing of them is granted; the others go on.
        """
        blocks = {(name, index // FOLDER) for index in indices}
        self.ledger.read(lambda ledger: ledger.comparison.compare_again(blocks))

    def _definition(self, name: str) -> dict[str, Any]:
        return self.ledger.read(lambda ledger: ledger.store.definition(name))

    def count(self, name: str, index: int) -> dict[str, int]:
        """{"images", "short"} of an index that is done."""
        found = scan_folder(self.path(name), index // FOLDER, {index})
        files = found.get(index, IndexFiles())  # deleted just now
        images, short = counted(files, self._definition(name)["images_per_prompt"])
        return {"images": images, "short": short}

    def unmark(self, name: str, indices: Iterable[int]) -> None:
        """Remove the COMPLETE marks of these indices' folders, before anything there changes."""
        blocks = {index // FOLDER for index in indices}
        remove_marks(self.path(name) / f"{block:06d}" / "COMPLETE" for block in blocks)

    def _failed(self, name: str, offset: int) -> list[dict[str, Any]]:
        return self.ledger.read(lambda ledger: ledger.queries.failed(name, offset, RETRIES_AT_ONCE))

    def unmark_all(self, name: str) -> None:
        remove_marks(self.path(name).glob("*/COMPLETE"))

    def retry_failed(self, name: str) -> tuple[int, int]:
        """How many failed prompts now wait again ("": of all data sets), and how many stay failed.

        Their .failed marks and .samples go first. One whose files may not be removed stays: its
        images would be given up at once.
        """
        names = [name] if name else self.ledger.read(lambda ledger: ledger.store.names())
        again = stay = 0
        for dataset in names:
            stay_here = 0
            while rows := self._failed(dataset, stay_here):
                indices = [row["index"] for row in rows]
                self.unmark(dataset, indices)
                kept = self._remove_failed(dataset, set(indices))
                stay_here += len(kept)
                free = [index for index in indices if index not in kept]
                again += self.ledger.read(Ledger.retry_failed, dataset, free)
                self.unmark(dataset, free)  # a folder check may have ended meanwhile
            stay += stay_here
        return again, stay

    def _remove_failed(self, name: str, indices: set[int]) -> set[int]:
        """The indices of which a file may not be removed, or whose sub-folder cannot be used."""
        by_folder: dict[Path, set[int]] = {}
        for index in indices:
            by_folder.setdefault(self.path(name) / folder_name(index), set()).add(index)
        kept: set[int] = set()
        for folder, those in by_folder.items():
            try:
                kept |= set(those) if os.path.islink(folder) else self._clear(name, folder, those)
            except OSError as error:
                reason, why = shared_fault(error)
                if reason != "folder":
                    raise
                log.warning("%s", why)
                kept |= those
        return kept

    def _clear(self, name: str, folder: Path, indices: set[int]) -> set[int]:
        """As above, of one sub-folder. It is listed once: it may have 400,000 names."""
        kept = set()
        for index in indices:
            kept.add(index)
            with spare():
                remove_collected(self.path(name), index)
                kept.remove(index)
        with contextlib.suppress(FileNotFoundError):  # none of it was drawn
            for file in os.listdir(folder):
                match = NAME.fullmatch(file)
                if not match or not match[2] or match[3] != "failed":
                    continue
                if int(match[1]) in indices and not _removed(folder / file):
                    kept.add(int(match[1]))
        return kept


def _removed(mark: Path) -> bool:
    """Remove a .failed. False: it may not be, and is named in the log."""
    with spare():
        # a folder of that name counts for nothing; a client renames it
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            mark.unlink()
        return True
    return False


def remove_marks(marks: Iterable[Path]) -> None:
    """Remove COMPLETE marks. One that may not be removed, another user's, is named and stays.

    It is no reason to stop: a mark is believed at a rebuild alone, and never for "all done".
    One behind a link is another data set's, and stays as well.
    """
    kept = []
    for mark in marks:
        if os.path.islink(mark.parent):
            continue
        try:
            remove(mark)
        except PermissionError:
            kept.append(mark)
        except NotADirectoryError:  # a file is in the place of the sub-folder
            continue
    if kept:
        log.warning(
            "COMPLETE marks may not be removed: %d, the first is %s; remove them as the user that "
            "they belong to. The run goes on",
            len(kept),
            kept[0],
        )


def index_done(folder: Path, index: int, images_per_prompt: int, rule: Rule | None = None) -> bool:
    """Whether every text of an index is an image with its JSON, or .failed.

    Each name is looked up: 20 names, not a listing of 400,000. rule: as of rule_of(); a .failed
    that it would not give, or that is damaged, does not count.
    """
    record = read_captions(folder, index)
    if not record or images_wanted(record) < images_per_prompt:
        return False  # no text at all is fine: the prompt was refused

    def there(aug: int, suffix: str) -> bool:
        return exists(path_of(folder, index, aug, suffix))

    def given_up(aug: int) -> bool:
        mark = path_of(folder, index, aug, ".failed")
        return is_given_up(mark) and (rule is None or rule.gave_up(folder, index, aug))

    return all(
        (there(aug, ".jpg") and there(aug, ".json")) or given_up(aug)
        for aug in range(len(record["texts"]))
    )


def counted(files: IndexFiles, images: int) -> tuple[int, int]:
    """(images that lie there, images that the LLMs gave no text for)."""
    return len(files.images & files.jsons), max(0, images - (files.captions or 0))
