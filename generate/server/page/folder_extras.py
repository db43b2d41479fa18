"""Beside the samples of a data set: its packed sub-folders and its report, for the page.

    extras = FolderExtras(output_root)
    extras.look([("HPDv2", 107_000)])     # in a thread of its own: a file system may hang
    extras.of("HPDv2")                    # {"packed": {"folders", "of", "images"}, "report": {…}}

Nothing is listed: a look asks for so many marks by their names, in turn, and for two names of a
report:

    generated_images/HPDv2/report.html      or      generated_images/HPDv2.report.html
"""

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common.json_text import parse_json
from common.number_ranges import parts
from common.packed_folder import DAMAGE, MARK, MARK_BYTES
from common.untrusted import read_untrusted
from generate.dataset.layout import FOLDER, folder_name
from generate.protocol.output_root import dataset_folder

MARKS_A_LOOK = 500  # one question to the disk each; a look comes every six seconds
READ_A_LOOK = 50  # of them that are new or have changed: some 5 ms each
MOST_SETS = 100  # data sets that are looked at
REPORT_BYTES = 64 << 20  # make_report.py writes some 1 MB
Json = dict[str, Any]


@dataclass
class Marks:
    """The packed sub-folders of one data set, as far as they were looked at."""

    known: dict[int, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    next: int = 0  # block to look at
    rounds: int = 0  # times that all were looked at


class FolderExtras:
    """What was found at the last look; any thread may read it."""

    def __init__(self, output_root: Path) -> None:
        self.output_root = output_root
        self.marks: dict[tuple[str, int], Marks] = {}  # by data set and its sub-folders
        self.facts: dict[str, Json] = {}

    def look(self, datasets: Iterable[tuple[str, int]]) -> None:
        """datasets: (name, prompts)."""
        sizes = [(name, -(-total // FOLDER)) for name, total in islice(datasets, MOST_SETS)]
        self.marks = {size: self.marks.get(size, Marks()) for size in sizes}
        self.facts = {
            name: {
                "packed": self._packed(name, blocks),
                "report": report_of(self.output_root, name),
            }
            for name, blocks in sizes
        }

    def of(self, name: str) -> Json:
        """As of the last look, by any thread.

        packed: None until each sub-folder was looked at once; report: None where there is none.
        """
        return self.facts.get(name, {"packed": None, "report": None})

    def _packed(self, name: str, blocks: int) -> Json | None:
        """How many sub-folders of how many are packed, and how many images lie in them."""
        marks = self.marks[name, blocks]
        self._look_at_marks(name, marks, blocks)
        if not marks.rounds:
            return None
        images = sum(count for _, count in marks.known.values())
        return {"folders": len(marks.known), "of": blocks, "images": images}

    def _look_at_marks(self, name: str, marks: Marks, blocks: int) -> None:
        folder = dataset_folder(self.output_root, name)
        left = READ_A_LOOK
        for _ in range(min(MARKS_A_LOOK, blocks)):
            block = marks.next if marks.next < blocks else 0
            path = folder / folder_name(block * FOLDER) / MARK
            identity = _identity(path)
            if identity is None:
                marks.known.pop(block, None)
            elif marks.known.get(block, (None, 0))[0] != identity:
                if not left:
                    return  # the next look goes on here
                left -= 1
                marks.known[block] = identity, _images_of(path)
            marks.next = (block + 1) % blocks
            marks.rounds += marks.next == 0


def _identity(path: Path) -> tuple[int, ...] | None:
    """Of a regular file that is there: another one where it was written anew."""
    with contextlib.suppress(OSError):
        there = os.stat(path, follow_symlinks=False)
        if stat.S_ISREG(there.st_mode):
            return there.st_ino, there.st_mtime_ns, there.st_size
    return None


def _images_of(mark: Path) -> int:
    """How many images a mark lists; 0: it is damaged, which the folder check says."""
    try:
        prompts = parse_json(read_untrusted(mark, MARK_BYTES))["prompts"]
        return sum(len(found) for entry in prompts.values() for found in parts(entry["images"]))
    except (OSError, *DAMAGE):
        return 0


def report_of(output_root: Path, name: str) -> Json | None:
    """{"file": its path in the output root, "address": on the page, "time"} of a report."""
    path = report_path(output_root, name)
    if path is None:
        return None
    with contextlib.suppress(OSError, ValueError):  # it has gone just now
        changed_ns = path.stat().st_mtime_ns
        then = datetime.fromtimestamp(changed_ns // 10**9, UTC).isoformat()
        return {
            "file": str(path.relative_to(output_root)),
            "address": f"/report/{quote(name, safe='')}?v={changed_ns}",
            "time": then.replace("+00:00", "Z"),
        }
    return None


def report_path(output_root: Path, name: str) -> Path | None:
    """The report of a data set, in its folder or beside it; no link, and not too large."""
    folder = dataset_folder(output_root, name)
    if os.path.islink(folder):
        return None
    for path in (folder / "report.html", folder.with_name(f"{name}.report.html")):
        identity = _identity(path)
        if identity and identity[-1] <= REPORT_BYTES:
            return path
    return None
