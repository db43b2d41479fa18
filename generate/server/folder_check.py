"""The data set folders against the ledger: the folder wins. Who says an index is done is looked up; blocks of 1,000 are compared in the
background, before the ledger grants from them after a start and before it says that all is done; whole ones get their COMPLETE mark.

    000012/COMPLETE     {"indices": 1000, "images": 9990, "short": 3, …}: read instead of the folder to rebuild a lost ledger, only then
"""

import json
import logging
import os
import sys
import threading
import time

from generate.dataset import definition as definitions
from generate.dataset.captions import images_wanted, read_captions
from generate.dataset.layout import FOLDER, folder_name, path_of
from generate.dataset.scan import scan_folder
from generate.server import identity as server_files

log = logging.getLogger("image_server")
SAY_EVERY_S = 10


class Folders:
    """The data set folders of one output root, as the calls need them."""

    def __init__(self, server):
        self.server, self.look = server, server.look
        self.settling, self.settled = threading.Lock(), {}

    def path(self, name):
        return self.server.output_root / "generated_images" / name

    def settle(self, name, asked):
        """Make the definition stand, in the folder and then in the ledger. definitions.Differs if it cannot."""
        if self.settled.get(name) == asked:
            return
        with self.settling:
            definition, changed = definitions.settle(self.path(name), asked)
            known = self.look(
                lambda ledger, now: ledger.definition(name) if name in ledger.names() else None
            )
            if known and (known["total"], known["images_per_prompt"]) != (
                definition["total"],
                definition["images_per_prompt"],
            ):
                for mark in self.path(name).glob("*/COMPLETE"):
                    mark.unlink()
            self.look(lambda ledger, now: ledger.define(now, definition))
            self.settled[name] = dict(asked)
            if changed:
                log.info(
                    "data set %s: %s prompts, %s images each",
                    name,
                    f"{definition['total']:,}",
                    definition["images_per_prompt"],
                )

    def adopt(self):
        """Every data set folder that lies here, into the ledger: after a start with a new ledger, or an extension cut short."""
        base = self.server.output_root / "generated_images"
        for folder in sorted(
            path for path in base.iterdir() if path.is_dir() and not path.is_symlink()
        ):
            try:
                stored = definitions.stored_definition(folder)
                if stored:
                    self.look(lambda ledger, now: ledger.define(now, stored))
            except (ValueError, OSError) as error:
                log.error("data set %s is left out: %s", folder.name, error)

    def done(self, name, indices):
        """{index: whether all its files are there}. Looked at once more where not: a network file system may be a moment behind."""
        images = self.look(lambda ledger, now: ledger.definition(name))["images_per_prompt"]
        there = {index: index_done(self.path(name), index, images) for index in indices}
        if not all(there.values()):
            time.sleep(0.3)
            there |= {
                index: index_done(self.path(name), index, images)
                for index in indices
                if not there[index]
            }
        return there

    def count(self, name, index):
        """{"images", "short"} of an index that is done."""
        files = scan_folder(self.path(name), index // FOLDER, {index})[index]
        images, short = counted(
            files, self.look(lambda ledger, now: ledger.definition(name))["images_per_prompt"]
        )
        return {"images": images, "short": short}

    def unmark(self, name, blocks):
        """COMPLETE goes before anything in the folder changes."""
        for block in blocks:
            (self.path(name) / f"{block:06d}" / "COMPLETE").unlink(missing_ok=True)

    def retry_failed(self, name):
        """Number of prompts that were set aside and now wait again; their .failed marks go first."""
        count = 0
        for dataset in [name] if name else self.look(lambda ledger, now: ledger.names()):
            while rows := self.look(lambda ledger, now: ledger.set_aside(dataset, 0, 500)[1]):
                indices = [row["index"] for row in rows]
                self.unmark(dataset, {index // FOLDER for index in indices})
                for index in indices:
                    for mark in (self.path(dataset) / folder_name(index)).glob(f"{index}_*.failed"):
                        mark.unlink(missing_ok=True)
                count += self.look(lambda ledger, now: ledger.retry_failed(now, dataset, indices))
                self.unmark(
                    dataset, {index // FOLDER for index in indices}
                )  # a check that ended meanwhile
        return count


def index_done(folder, index, images_per_prompt):
    """Whether every text of an index is an image with its JSON or .failed, by looking up each name: 20, not a listing of 400,000."""
    record = read_captions(folder, index)
    if not record or not record.get("texts") or images_wanted(record) < images_per_prompt:
        return False

    def there(aug, suffix):
        return path_of(folder, index, aug, suffix).exists()

    return all(
        (there(aug, ".jpg") and there(aug, ".json")) or there(aug, ".failed")
        for aug in range(len(record["texts"]))
    )


class FolderCheck:
    """The background comparison. step() looks at the next block that the ledger wants compared, or does nothing."""

    def __init__(self, server):
        self.server, self.folders = server, Folders(server)
        self.began, self.compared, self.told, self.bar = None, 0, 0.0, None

    def all_done(self):
        """Whether there is a data set, and no index of any waits or is leased."""
        counts = self.server.look(
            lambda ledger, now: [ledger.counts(name) for name in ledger.names()]
        )
        return bool(counts) and not any(count["waiting"] + count["leased"] for count in counts)

    def step(self):
        while work := self.server.look(lambda ledger, now: ledger.next_check()):
            self.began = self.began or time.monotonic()
            self.compare(*work)
            self.compared += 1
            if sys.stdout.isatty():
                self.draw_bar()
            elif time.monotonic() - self.told > SAY_EVERY_S and (say := self.progress()):
                self.told = time.monotonic()
                log.info(say)
        self.began, self.compared = None, 0
        if self.bar:
            self.bar.close()
            self.bar = None

    def draw_bar(self):
        """On a terminal: tqdm. A log gets a line every ten seconds."""
        import tqdm

        left = self.server.look(lambda ledger, now: ledger.checks_left())
        self.bar = self.bar or tqdm.tqdm(
            desc="comparing the data set folders", unit=" folders", delay=1, leave=False
        )
        self.bar.total = self.compared + left
        self.bar.update(1)

    def compare(self, name, block):
        """One block: what is done by the folder's names, to the ledger; a whole one gets its mark."""
        definition = self.server.look(lambda ledger, now: ledger.definition(name))
        folder, images = self.folders.path(name), definition["images_per_prompt"]
        indices = range(block * FOLDER, min((block + 1) * FOLDER, definition["total"]))
        mark = folder / f"{block:06d}" / "COMPLETE"
        whole = self.trusted(mark, indices, images) if self.server.ledger.rebuilt else None
        if whole:
            self.server.look(lambda ledger, now: ledger.folder_checked(now, name, block, whole))
            return
        found = scan_folder(folder, block)
        done = {
            index: counted(files, images)
            for index, files in found.items()
            if index in indices and files.done(images)
        }
        # Reported as done while the names were being listed: those are looked up one by one.
        missing = self.server.look(lambda ledger, now: ledger.done_in(name, block)) - done.keys()
        for index in missing:
            if index_done(folder, index, images):
                done[index] = counted(scan_folder(folder, block, {index})[index], images)
        lost = sorted(missing - done.keys())
        if lost:
            mark.unlink(missing_ok=True)
            log.warning(
                "%s: files of %d prompts that were done are missing (%s…): they are drawn again",
                name,
                len(lost),
                lost[0],
            )
        outdated = (
            self.server.look(lambda ledger, now: ledger.folder_checked(now, name, block, done))
            is None
        )
        if len(done) == len(indices) and not outdated and not mark.exists():
            write_mark(mark, done, images)
            if len(self.server.look(lambda ledger, now: ledger.done_in(name, block))) < len(
                indices
            ):
                mark.unlink(missing_ok=True)  # a repair or a retry came between

    def trusted(self, mark, indices, images):
        """{index: (images, short)} of a folder marked COMPLETE for this definition, without looking at its names; None if it is not."""
        try:
            record = json.loads(mark.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(record, dict) or (
            record.get("indices"),
            record.get("images_per_prompt"),
        ) != (len(indices), images):
            return None
        less = {int(index): tuple(counts) for index, counts in record["less"].items()}
        return {index: less.get(index, (images, 0)) for index in indices}

    def progress(self):
        """A sentence while a comparison goes on for long, or None."""
        left = self.server.look(lambda ledger, now: ledger.checks_left())
        if not left or self.began is None or time.monotonic() - self.began < 2:
            return None
        all_of = left + self.compared
        return f"comparing the ledger with the data set folders: {self.compared:,} of {all_of:,} folders of 1,000 prompts"


def counted(files, images):
    """(images that lie there, images that the LLMs' texts were short of)."""
    return len(files.images & files.jsons), max(0, images - (files.captions or 0))


def write_mark(mark, done, images):
    """COMPLETE: totals for people, and for the rebuild the indices that have fewer images than asked for."""
    less = {index: counts for index, counts in sorted(done.items()) if counts != (images, 0)}
    record = {
        "indices": len(done),
        "images_per_prompt": images,
        "images": sum(n for n, _ in done.values()),
        "short": sum(1 for _, n in done.values() if n),
        "less": less,
    }
    draft = mark.with_name(
        ".COMPLETE.tmp"
    )  # always this name: what a killed server leaves is overwritten by the next one's
    with open(draft, "w") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, mark)
    server_files.sync_folder(mark.parent)
