"""Check parsed samples: rows of the good ones, a reason for each that is rejected.

checks = Checks("/data", real_folders(["/data/HPDv2"]), "sha256")
rows, rejects = check(pool, checks, Chunk("HPDv2/000012", names, has_image), pieces)
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from common.console import visible
from common.packed_folder import member_of
from common.untrusted import IMAGE_BYTES, open_jpeg, open_untrusted, read_untrusted
from postprocess_dataset import score_columns, sorted_rows, table
from postprocess_dataset.sample_json import Piece, parse

Checked = tuple[pa.Table | None, list[tuple[str, str]]]  # sorted rows, [(name, reason)]
DIFFERS = "image is not the one its JSON tells of (sha256 differs)"


@dataclass(frozen=True)
class Checks:
    """What is asked of samples below the folder `base`.

    verify: what an image must pass, "exists", "size", "sha256" or "decode"; "json" is "exists", but
    each JSON is read even if a .samples holds it. relative: image_path in the table is relative to
    `base`. inside: the folders, as of real_folders(), that images and JSONs may lie in after links
    are followed. scores: names of those that have a column.
    """

    base: str
    inside: Sequence[str]
    verify: str = "exists"
    relative: bool = False
    scores: Sequence[str] = ()


class Whole(NamedTuple):
    """All JSONs of a prompt, with the number of its rows in a chunk."""

    prompt: int
    first: int
    rows: int


@dataclass(frozen=True)
class Chunk:
    """Samples of one folder by their file names without extension.

    has_image: whether the listing had the image of each. collected: prompts with a .samples, all of
    whose JSONs are among the names.
    """

    subdirectory: str
    names: Sequence[str]
    has_image: Sequence[bool]
    collected: Sequence[Whole] = ()

    @property
    def in_few_files(self) -> bool:
        """Whether a .samples holds each of them."""
        return sum(whole.rows for whole in self.collected) == len(self.names)

    def part(self, start: int, stop: int) -> "Chunk":
        """Some of its samples, to be read from their own JSONs."""
        return Chunk(self.subdirectory, self.names[start:stop], self.has_image[start:stop])


class Disagrees(ValueError):
    """A .samples does not agree with the JSONs there, or one of its samples does not pass."""


def check(pool: Executor, checks: Checks, chunk: Chunk, pieces: Sequence[Piece]) -> Checked:
    """(sorted rows without idx or None, [(name, reason)]) of one chunk.

    Its JSONs are parsed, its images verified, the table's own columns added. Disagrees: read the
    chunk again without .samples.
    """
    found, kept, reasons = parse(pieces)
    if chunk.collected and (reasons or not agrees(chunk.names, chunk.collected, found)):
        raise Disagrees
    names = chunk.names
    folder = os.path.join(checks.base, chunk.subdirectory)
    stored = found["image_path"]
    sums = found["image_sha256"]
    moved: dict[int, str] = {}  # row: where its image is instead

    def fault_at(position: int) -> str | None:
        """The fault of one row's image, which may be where its JSON says instead of beside it."""
        row = kept[position]
        place = f"{folder}/{names[row]}.jpg"
        if (
            not chunk.has_image[row]
            and not os.path.exists(place)
            and (elsewhere := image_elsewhere(folder, stored[position].as_py()))
        ):
            place = moved[row] = elsewhere
        return image_fault(place, checks, sums[position].as_py())

    positions: Sequence[int] = range(len(kept))
    if checks.verify in ("exists", "json"):
        listed = all(chunk.has_image)
        positions = [] if listed else [p for p in positions if not chunk.has_image[kept[p]]]
    for position, fault in zip(positions, pool.map(fault_at, positions), strict=True):
        if fault:
            reasons[kept[position]] = fault
    together = "".join(names)
    if not (together.isascii() and together.isprintable()):
        faults = ((row, name_fault(name)) for row, name in enumerate(names))
        reasons |= {row: f"file {fault}" for row, fault in faults if fault}
    if chunk.collected and reasons:
        raise Disagrees
    rejects = [(names[row], reason) for row, reason in sorted(reasons.items())]
    if reasons:
        good = [position for position, row in enumerate(kept) if row not in reasons]
        found = found.take(pa.array(good, pa.int64()))
        kept = [kept[position] for position in good]
    if not kept:
        return None, rejects
    if checks.relative:
        folder = os.path.relpath(folder, checks.base)
        moved = {row: os.path.relpath(place, checks.base) for row, place in moved.items()}
    stems = pa.array([names[row] for row in kept], pa.string())
    places = pc.binary_join_element_wise(f"{folder}/", stems, ".jpg", "")
    if moved:
        beside = zip(kept, places.to_pylist(), strict=True)
        places = pa.array([moved.get(row, place) for row, place in beside], pa.string())
    own = {
        "image_path": places,
        "__key__": table.keys_of(chunk.subdirectory, stems),
        "caption": found["augmented_prompt"],
        "subdirectory": pa.repeat(chunk.subdirectory, len(kept)),
        **score_columns.values(found["extra"], checks.scores),
    }
    names_of = table.row_schema(checks.scores).names
    columns = {name: own[name] if name in own else found[name] for name in names_of}
    return sorted_rows.in_order(pa.table(columns)), rejects


def agrees(names: Sequence[str], prompts: Sequence[Whole], rows: pa.Table) -> bool:
    """Whether the rows that came from .samples are those of the samples `names`."""
    parts = [pc.cast(rows[name], pa.string()) for name in ("prompt_index", "augmentation_idx")]
    said = pc.binary_join_element_wise(*parts, "_").combine_chunks()
    same = pc.equal(said, pa.array(names, pa.string())).to_numpy(zero_copy_only=False)
    return all(same[whole.first : whole.first + whole.rows].all() for whole in prompts)


def image_elsewhere(folder: str, stored: Any) -> str | None:
    """Where a JSON's own image_path leads, or None when there is nothing.

    It is absolute, or relative to its folder or the one above.
    """
    if not isinstance(stored, str) or not stored:
        return None
    places = [stored]
    if not os.path.isabs(stored):
        places = [os.path.normpath(os.path.join(folder, up, stored)) for up in (".", "..")]
    return next((place for place in places if os.path.exists(place)), None)


def image_fault(path: str, checks: Checks, sha256: str | None = None) -> str | None:
    """Why the image at `path` does not pass, or None."""
    level = checks.verify
    try:
        member = member_of(path)
        if member and level in ("exists", "json", "size"):
            return None if member.size or level != "size" else "image is empty"
        if level in ("exists", "json", "size"):
            descriptor = open_untrusted(path, checks.inside)
            size = os.fstat(descriptor).st_size
            os.close(descriptor)
            return "image is empty" if level == "size" and not size else None
        data = (
            member.read(IMAGE_BYTES) if member else read_untrusted(path, IMAGE_BYTES, checks.inside)
        )
    except (FileNotFoundError, NotADirectoryError):
        return "image is missing"
    except OSError as error:
        return f"image cannot be read: {error.strerror}"
    if not data:
        return "image is empty"
    return bytes_fault(data, sha256) or (decode_fault(data) if level == "decode" else None)


def decode_fault(data: bytes) -> str | None:
    """Why an image does not decode, or None."""
    try:
        with open_jpeg(data) as image:
            image.load()
    except Exception as error:  # Pillow raises a dozen kinds, SyntaxError among them
        return f"image does not decode: {str(error) or type(error).__name__}"
    return None


def bytes_fault(data: bytes | memoryview, sha256: str | None) -> str | None:
    """Why an image's bytes are not those of its sample, or None.

    By its JSON's sha256, else (older data sets) by the JPEG's two ends. It is a JPEG in any case.
    """
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        return DIFFERS
    whole = sha256 is not None or bytes(data[-2:]) == b"\xff\xd9"
    if bytes(data[:2]) != b"\xff\xd8" or not whole:
        return "image is truncated or no JPEG"
    return None


def name_fault(name: str) -> str:
    """Why a file's name cannot be a key of the table; empty if it can."""
    if name.isascii() and name.isprintable():
        return ""
    if not is_utf8(name):
        return "name is not UTF-8"
    return "" if visible(name) == name else "name holds characters that nobody sees"


def is_utf8(name: str) -> bool:
    """Whether a name is UTF-8. Python shows other bytes as lone surrogates: no table takes them."""
    return name.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in name)
