"""One pass over dataset folders: rows into a table, the rest into the list of rejects.

work = Conversion(Checks("/data", inside), None, rows, rejects_file)
deleted = work.every_folder(["/data/HPDv2"], earlier)
"""

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import orjson

from common.untrusted import SAMPLE_BYTES, read_untrusted
from postprocess_dataset import table
from postprocess_dataset.dataset_folder import (
    BLOCK,
    CODE,
    Codes,
    Listing,
    among,
    stems,
    walk,
)
from postprocess_dataset.increment import Earlier, Line
from postprocess_dataset.progress import Progress
from postprocess_dataset.sample_checks import (
    Checked,
    Checks,
    Chunk,
    Whole,
    image_elsewhere,
)
from postprocess_dataset.sorted_rows import SortedRows
from postprocess_dataset.to_table.chunk_workers import CHUNK, ChunkWorkers
from postprocess_dataset.to_table.collected import cuts, whole_prompts

LOST = "was packed in a tar that is missing or cut (see the mark PACKED beside it)"
SHOWN = 5  # rejects named on the terminal; all are in the list


class Conversion:
    """`partition`: (I, N) when only every N-th folder is this one's."""

    def __init__(
        self,
        checks: Checks,
        partition: tuple[int, int] | None,
        rows: SortedRows,
        rejects: BinaryIO,
    ) -> None:
        self.checks = checks
        self.base = checks.base
        self.partition = partition
        self.rows = rows
        self.rejects = rejects
        self.workers = ChunkWorkers(checks)
        self.progress = Progress("samples")
        self.new = 0
        self.rejected = 0
        self.orphans = 0  # images without JSON
        self.skipped = 0  # folders
        self.noted = 0  # lines in the list of rejects
        self.mtimes: dict[str, int] = {}  # subdirectory: ns

    def every_folder(self, folders: Sequence[str], earlier: Earlier) -> list[Line]:
        """Add what is new in all of them; `earlier`: what the last run knew.

        Returns the lines of OUTPUT.gone.jsonl.
        """
        with self.workers:
            deleted = self._every_folder(folders, earlier)
            for chunk, found in self.workers.rest():
                self.add(chunk, found)
        return deleted

    def _every_folder(self, folders: Sequence[str], earlier: Earlier) -> list[Line]:
        deleted: list[Line] = []
        unseen = set(earlier.folders)
        for subdirectory, listing in walk(
            folders, self.base, earlier, self.progress.say, self.partition
        ):
            unseen.discard(subdirectory)
            if isinstance(listing, OSError):
                self.reject(subdirectory, f"folder cannot be read: {listing.strerror}")
                # unread is not deleted
                unseen = {name for name in unseen if not name.startswith(f"{subdirectory}/")}
                self._look_again(subdirectory)
            elif listing is None:
                self.skipped += 1
                self.mtimes[subdirectory] = earlier.mtimes[subdirectory]
                self.again(subdirectory, earlier.rejects.get(subdirectory, ()))
                deleted += earlier.deleted.get(subdirectory, ())
            else:
                missing = self.folder(subdirectory, listing, earlier.keys(subdirectory))
                deleted += [_deleted(subdirectory, stem) for stem in missing]
        for subdirectory in sorted(unseen):
            deleted += self.unseen(subdirectory, folders, earlier)
        return deleted

    def unseen(self, subdirectory: str, folders: Sequence[str], earlier: Earlier) -> list[Line]:
        """The deleted rows of a folder that an earlier run knew and this one did not find."""
        place = os.path.join(self.base, subdirectory, "")
        if any(place.startswith(os.path.join(folder, "")) for folder in folders):
            codes, others = earlier.keys(subdirectory)
            return [_deleted(subdirectory, stem) for stem in stems(codes) + sorted(others)]
        if subdirectory in earlier.mtimes:  # of a DIR that is not named this time: unchanged
            self.mtimes[subdirectory] = earlier.mtimes[subdirectory]
        for line in earlier.rejects.get(subdirectory, ()):
            self.keep(line)
        return earlier.deleted.get(subdirectory, [])

    def folder(
        self, subdirectory: str, listing: Listing, known: tuple[Codes, set[str]]
    ) -> list[str]:
        """Add what is new in a listed folder; `known`: its rows in the table.

        Returns the stems of rows whose sample was deleted.
        """
        codes, known_others = known
        jsons = listing.jsons[~among(listing.jsons, codes)]
        images = listing.images[~among(listing.images, listing.jsons)]
        others = [stem for stem in listing.other_jsons if stem not in known_others]
        other_images = sorted(listing.other_images - set(listing.other_jsons))
        if self.partition and not os.path.basename(subdirectory).isdecimal():
            # else the whole folder is ours; which partition a name belongs to never changes
            jsons, images = (self._ours(names) for names in (jsons, images))
            others, other_images = (self._our_others(names) for names in (others, other_images))
        has_image = among(jsons, listing.images)
        for start, stop in cuts(jsons, CHUNK):
            names = stems(jsons[start:stop])
            there = has_image[start:stop].tolist()
            if listing.irregular:
                there = [
                    has and name not in listing.irregular
                    for has, name in zip(there, names, strict=True)
                ]
            collected: Sequence[Whole] = ()
            if self.checks.verify != "json":
                collected = whole_prompts(jsons[start:stop], listing)
            self.submit(Chunk(subdirectory, names, there, collected))
        regular = listing.other_images - listing.irregular
        self.samples(subdirectory, others, [stem in regular for stem in others])
        for stem in stems(images) + other_images:
            self.orphan(f"{subdirectory}/{stem}.jpg")
        for stem in stems(listing.lost[~among(listing.lost, codes)]):
            self.reject(f"{subdirectory}/{stem}.json", LOST)
        self.mtimes[subdirectory] = listing.mtime_ns
        if len(listing.lost):
            self._look_again(subdirectory)
        whole = among(codes, listing.jsons) & among(codes, listing.images)
        other_whole = set(listing.other_jsons) & listing.other_images
        missing = stems(codes[~whole])
        missing += sorted(known_others - other_whole)
        return [stem for stem in missing if not self.still_there(subdirectory, stem)]

    def _look_again(self, subdirectory: str) -> None:
        """Let the next --update list this folder again in any case."""
        self.mtimes.pop(subdirectory, None)
        self.mtimes.pop(os.path.dirname(subdirectory), None)

    def _ours(self, codes: Codes) -> Codes:
        number, count = self.partition or (0, 1)
        return codes[codes // CODE // BLOCK % count == number]

    def _our_others(self, names: list[str]) -> list[str]:
        number, count = self.partition or (0, 1)
        return [name for name in names if zlib.crc32(os.fsencode(name)) % count == number]

    def samples(self, subdirectory: str, names: Sequence[str], has_image: Sequence[bool]) -> None:
        """Have the samples `names` of a folder read and checked; add those that are."""
        for n in range(0, len(names), CHUNK):
            self.submit(Chunk(subdirectory, names[n : n + CHUNK], has_image[n : n + CHUNK]))

    def submit(self, chunk: Chunk) -> None:
        """The same with one chunk."""
        self.workers.submit(chunk)
        for done, found in self.workers.done():
            self.add(done, found)

    def add(self, chunk: Chunk, found: Checked) -> None:
        """Add a chunk's rows; list its rejects."""
        rows, rejects = found
        added = 0
        if rows is not None:
            self.rows.add(rows)
            added = rows.num_rows
        self.new += added
        for stem, reason in rejects:
            self.reject(f"{chunk.subdirectory}/{stem}.json", reason)
        self.progress.add(added + len(rejects))

    def still_there(self, subdirectory: str, stem: str) -> bool:
        """Whether a sample that the listing did not show completely is there after all."""
        place = os.path.join(self.base, subdirectory, stem)
        try:
            content = read_untrusted(f"{place}.json", SAMPLE_BYTES, self.checks.inside)
            stored = orjson.loads(content).get("image_path")
        except (OSError, ValueError, AttributeError):
            return False
        folder = os.path.dirname(place)
        return os.path.exists(f"{place}.jpg") or image_elsewhere(folder, stored) is not None

    def again(self, subdirectory: str, lines: Iterable[Line]) -> None:
        """Check the rejects and orphans of the last run again, in a folder that has not changed.

        Some of them may have been repaired in place.
        """
        files = {os.path.basename(line.get("json") or line["image"]) for line in lines}
        names = sorted({os.path.splitext(file)[0] for file in files})
        place = os.path.join(self.base, subdirectory)
        whole = [name for name in names if os.path.lexists(f"{place}/{name}.json")]
        self.samples(subdirectory, whole, [False] * len(whole))
        for name in sorted(set(names) - set(whole)):
            if os.path.lexists(f"{place}/{name}.jpg"):
                self.orphan(f"{subdirectory}/{name}.jpg")

    def reject(self, name: str, reason: str) -> None:
        """List and count a sample, or a folder, that is left out."""
        self.rejected += 1
        self.note({"json": name, "reason": reason})

    def orphan(self, name: str) -> None:
        """An image whose JSON is missing on a second look, too: a run may be about to write it."""
        if not os.path.lexists(os.path.join(self.base, name)[:-4] + ".json"):
            self.orphans += 1
            self.note({"image": name, "reason": "image without JSON"})

    def note(self, line: Line) -> None:
        """List it, and show it while there are few."""
        if self.rejected + self.orphans <= SHOWN:
            self.progress.say(f"{line.get('json') or line['image']}: {line['reason']}")
        self.keep(line)

    def keep(self, line: Line) -> None:
        """List it."""
        self.noted += 1
        self.rejects.write((json.dumps(line) + "\n").encode())


def _deleted(subdirectory: str, stem: str) -> Line:
    return {"__key__": table.key_of(subdirectory, stem)}
