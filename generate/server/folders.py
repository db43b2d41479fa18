"""The data set folders of one output root, as the calls need them: is an index done by its files?

folders = Folders(output_root, ledger)         # ledger: SharedLedger
folders.settle("HPDv2", definition)            # definition.Differs if it cannot stand
folders.done("HPDv2", [3, 4])                  # {3: True, 4: False}
"""

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from generate.dataset.captions import images_wanted, read_captions
from generate.dataset.definition import settle, stored_definition
from generate.dataset.layout import FOLDER, folder_name, path_of
from generate.dataset.scan import IndexFiles, scan_folder
from generate.protocol.output_root import GENERATED_IMAGES, dataset_folder
from generate.server.ledger import Ledger
from generate.server.shared_ledger import SharedLedger

log = logging.getLogger("image_server")
SECOND_LOOK_S = 0.3  # a network file system may be a moment behind
RETRIES_AT_ONCE = 500  # failed prompts that --retry_failed takes under one lock


class Folders:
    def __init__(self, output_root: Path, ledger: SharedLedger) -> None:
        self.output_root = output_root
        self.ledger = ledger
        self._settling = threading.Lock()
        self._settled: dict[str, dict[str, Any]] = {}  # data set -> the definition last asked for

    def path(self, name: str) -> Path:
        return dataset_folder(self.output_root, name)

    def settle(self, name: str, asked: dict[str, Any]) -> None:
        """Make the definition stand, in the folder and then in the ledger; Differs if it cannot."""
        if self._settled.get(name) == asked:
            return
        with self._settling:
            definition, changed = settle(self.path(name), asked)
            size = definition["total"], definition["images_per_prompt"]
            if self._known_size(name) not in (None, size):
                for mark in self.path(name).glob("*/COMPLETE"):
                    mark.unlink()
            self.ledger.run(Ledger.define, definition)
            self._settled[name] = dict(asked)
            if changed:
                log.info("data set %s: %s prompts, %d images each", name, f"{size[0]:,}", size[1])

    def _known_size(self, name: str) -> tuple[int, int] | None:
        """(prompts, images per prompt) by the ledger; None = it does not know the data set."""
        if not self.ledger.read(lambda ledger: ledger.store.has(name)):
            return None
        known = self.ledger.read(lambda ledger: ledger.store.definition(name))
        return known["total"], known["images_per_prompt"]

    def adopt(self) -> None:
        """Every data set folder that lies here, into the ledger.

        After a start with a new ledger, or an extension that was cut short.
        """
        base = self.output_root / GENERATED_IMAGES
        for folder in sorted(base.iterdir()):
            if not folder.is_dir() or folder.is_symlink():
                continue
            try:
                stored = stored_definition(folder)
                if stored:
                    self.ledger.run(Ledger.define, stored)
            except (ValueError, OSError) as error:
                log.error("data set %s is left out: %s", folder.name, error)

    def done(self, name: str, indices: Iterable[int]) -> dict[int, bool]:
        """{index: whether all its files are there}; looked at a second time where not."""
        images = self.images_per_prompt(name)
        there = {index: index_done(self.path(name), index, images) for index in indices}
        missing = [index for index, found in there.items() if not found]
        if missing:
            time.sleep(SECOND_LOOK_S)
            there |= {index: index_done(self.path(name), index, images) for index in missing}
        return there

    def images_per_prompt(self, name: str) -> int:
        definition = self.ledger.read(lambda ledger: ledger.store.definition(name))
        return int(definition["images_per_prompt"])

    def count(self, name: str, index: int) -> dict[str, int]:
        """{"images", "short"} of an index that is done."""
        files = scan_folder(self.path(name), index // FOLDER, {index})[index]
        images, short = counted(files, self.images_per_prompt(name))
        return {"images": images, "short": short}

    def unmark(self, name: str, indices: Iterable[int]) -> None:
        """COMPLETE goes before anything of these indices changes."""
        for block in {index // FOLDER for index in indices}:
            (self.path(name) / f"{block:06d}" / "COMPLETE").unlink(missing_ok=True)

    def _failed(self, name: str) -> list[dict[str, Any]]:
        return self.ledger.read(lambda ledger: ledger.queries.failed(name, 0, RETRIES_AT_ONCE))

    def retry_failed(self, name: str) -> int:
        """Number of failed prompts that now wait again ("": of all data sets).

        Their .failed marks go first.
        """
        names = [name] if name else self.ledger.read(lambda ledger: ledger.store.names())
        count = 0
        for dataset in names:
            while rows := self._failed(dataset):
                indices = [row["index"] for row in rows]
                self.unmark(dataset, indices)
                for index in indices:
                    folder = self.path(dataset) / folder_name(index)
                    for mark in folder.glob(f"{index}_*.failed"):
                        mark.unlink(missing_ok=True)
                count += self.ledger.read(Ledger.retry_failed, dataset, indices)
                self.unmark(dataset, indices)  # a folder check may have ended meanwhile
        return count


def index_done(folder: Path, index: int, images_per_prompt: int) -> bool:
    """Whether every text of an index is an image with its JSON, or .failed.

    Each name is looked up: 20 names, not a listing of 400,000.
    """
    record = read_captions(folder, index)
    if not record or "texts" not in record or images_wanted(record) < images_per_prompt:
        return False  # no text at all is fine: the prompt was refused

    def there(aug: int, suffix: str) -> bool:
        return path_of(folder, index, aug, suffix).exists()

    return all(
        (there(aug, ".jpg") and there(aug, ".json")) or there(aug, ".failed")
        for aug in range(len(record["texts"]))
    )


def counted(files: IndexFiles, images: int) -> tuple[int, int]:
    """(images that lie there, images that the LLMs gave no text for)."""
    return len(files.images & files.jsons), max(0, images - (files.captions or 0))
