"""Iterate over the samples of a data set: of a folder, packed or not, or of tars.

    for sample in iterate("outputs/generate_images/generated_images/HPDv2"):
        sample.key            # "000012/12345_3"
        sample.caption        # the text that the image shows
        sample.metadata       # its JSON, docs/formats.md
        sample.jpeg()         # bytes, read when asked for
        sample.texts()        # all captions of its prompt

Read are data set folders, any folder below one, the flat folders of the published scripts, and
WebDataset tars (one, or a folder of them; not those that lie in a data set). A sample counts when
its image and its JSON are both there; each comes once. What cannot be read is left out and named.
"""

import logging
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from common.console import visible
from common.json_form import has_form, in_form
from common.json_text import parse_json
from common.packed_folder import TAR, PackedFolder, packed, read_file, shortfall
from common.packed_tar import Member
from common.untrusted import (
    IMAGE_BYTES,
    SAMPLE_BYTES,
    open_untrusted,
    read_untrusted,
    real_folders,
)

STANDARD = re.compile(r"(0|[1-9][0-9]{0,11})_(0|[1-9][0-9]{0,5})")
CAPTIONS_BYTES = 64 << 20  # of a .prompts
PROMPTS = {"texts": [{"text": str}], "original_prompt?": (None, str)}
HEADER_BYTES = 64 << 10  # of a file in a tar: extended ones have its name, of at most 4,096 bytes
FOLDER_OF_PROMPTS = re.compile(r"[0-9]{6}|[1-9][0-9]{6,}")

log = logging.getLogger(__name__)
Problem = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """One image with what is known of it.

    key: its path below the folder that was given, without suffix; in a tar its members' name.
    metadata: its JSON. `place` tells where its image lies.
    """

    key: str
    metadata: dict[str, Any]
    place: Path | Member = field(repr=False)
    text: str | None = field(default=None, repr=False)  # the .txt of a tar

    def jpeg(self) -> bytes:
        """The very bytes of the image. OSError: it cannot be read (any more)."""
        return _read(self.place, IMAGE_BYTES)

    @property
    def caption(self) -> str:
        """What the image shows; of a tar its .txt."""
        return self.text if self.text is not None else str(self.metadata["augmented_prompt"])

    @property
    def original_prompt(self) -> str | None:
        """The prompt that the caption is a variation of, or is."""
        return self.metadata.get("original_prompt")

    def texts(self) -> list[dict[str, Any]]:
        """All captions of its prompt, as in its newest .prompts; [] where there is none."""
        match = STANDARD.fullmatch(self.key.rsplit("/", 1)[-1])
        if match is None:
            return []
        folder = (self.place.path if isinstance(self.place, Member) else self.place).parent
        texts: list[dict[str, Any]] = []
        for generation in range(1, 1000):
            try:
                texts = read_captions(folder, int(match[1]), generation)["texts"]
            except (OSError, ValueError):
                return texts
        return texts


def read_captions(folder: Path, index: int, generation: int = 1) -> dict[str, Any]:
    """What a .prompts (generation 2: .prompts2, …) of a prompt in `folder` holds, packed or not.

    OSError: it cannot be read. ValueError: it is damaged, or of another prompt.
    """
    number = generation if generation > 1 else ""
    data = read_file(folder / f"{index}.prompts{number}", CAPTIONS_BYTES)
    try:
        record: dict[str, Any] = in_form(parse_json(data), PROMPTS)
        shortfall(record.get("short"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"is damaged: {type(error).__name__}: {error}") from None
    if record.get("prompt_index", index) != index:
        raise ValueError("is of another prompt")
    return record


def iterate(path: str | os.PathLike[str], problem: Problem | None = None) -> Iterator[Sample]:
    """The samples of a folder (with all below it) or a tar, in the order of their keys.

    problem: called with a sentence for each sample, folder or tar that cannot be read; default: a
    warning in the log. OSError when `path` itself is not there or cannot be read.
    """
    say = problem or log.warning
    root = Path(path)
    if root.is_dir():
        os.scandir(root).close()
        yield from _folder(root, "", say)
    else:
        os.close(open_untrusted(root))
        yield from _tar(root, say)


def _folder(path: Path, below: str, say: Problem, of_dataset: bool = False) -> Iterator[Sample]:
    """of_dataset: it lies in a data set, whose tars are made of its samples: they count once."""
    try:
        names = sorted(os.listdir(path))
        mark = packed(path)
    except OSError as error:
        say(f"{path}: cannot be read: {error.strerror}")
        return
    for name in [name for name in names if not has_form(name, str)]:
        names.remove(name)
        say(f"{path / visible(name)}: left out: its name is not UTF-8; rename it")
    of_dataset = of_dataset or any(map(FOLDER_OF_PROMPTS.fullmatch, names))
    yield from _samples(path, below, set(names), mark, say)
    for name in names:
        inside = path / name
        if name.startswith("."):
            continue
        if name.endswith(".tar"):
            if not of_dataset and not _is_part(path, name, mark):
                yield from _tar(inside, say)
        elif inside.is_dir() and not inside.is_symlink():
            yield from _folder(inside, f"{below}{name}/", say, of_dataset)
        elif FOLDER_OF_PROMPTS.fullmatch(name):
            say(f"{inside}: is no folder, or a link, which is not followed: samples are left out")


def _is_part(path: Path, name: str, mark: PackedFolder | None) -> bool:
    """Whether a tar is part of a packed sub-folder: then only its mark says what counts."""
    ours = mark is not None or FOLDER_OF_PROMPTS.fullmatch(path.name) is not None
    return ours and TAR.fullmatch(name) is not None


def _samples(
    path: Path, below: str, names: set[str], mark: PackedFolder | None, say: Problem
) -> Iterator[Sample]:
    """The samples of one folder: packed and loose ones, by prompt and augmentation."""
    stems = {name[:-4] for name in names if name.endswith(".jpg") and f"{name[:-4]}.json" in names}
    if mark:
        stems |= {
            f"{index}_{aug}" for index, prompt in mark.prompts.items() for aug in prompt.images
        }
    for stem in sorted(stems, key=_order):
        if stem.startswith("."):
            continue
        try:
            image = mark.find(f"{stem}.jpg") if mark else None
            its_json = mark.find(f"{stem}.json") if mark else None
            place = image or path / f"{stem}.jpg"
            data = _read(its_json or path / f"{stem}.json", SAMPLE_BYTES)
        except OSError as error:
            say(f"{path}/{stem}.json: cannot be read: {error.strerror}")
            continue
        metadata = _metadata(data)
        if metadata is None:
            say(f"{path}/{stem}.json: is not the JSON of a sample")
            continue
        yield Sample(f"{below}{stem}", metadata, place)


def _read(place: Path | Member, limit: int) -> bytes:
    """The bytes of a file; of a loose one that was packed since it was listed, those in its tar.

    A link to another folder is refused: it may be a colleague's, to a file that is nobody's sample.
    """
    if isinstance(place, Member):
        return place.read(limit)
    try:
        return read_untrusted(place, limit, real_folders([place.parent]))
    except FileNotFoundError:
        return read_file(place, limit)


def _order(stem: str) -> tuple[int, int, str]:
    match = STANDARD.fullmatch(stem)
    return (int(match[1]), int(match[2]), stem) if match else (1 << 62, 0, stem)


def _metadata(data: bytes) -> dict[str, Any] | None:
    try:
        record = parse_json(data)
    except ValueError:
        return None
    return record if has_form(record, {"augmented_prompt": str}) else None


class _Headers:
    """An open tar, of which tarfile reads at most HEADER_BYTES for a member: its headers.

    tarfile takes an extended header, or the map of a sparse file, whole into memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.seek = file.seek
        self.tell = file.tell
        self.left = HEADER_BYTES
        self._file = file

    def read(self, size: int) -> bytes:
        """tarfile.ReadError: it is too much, or less than nothing."""
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError(f"the headers of a file take more than {HEADER_BYTES:,} bytes")
        return self._file.read(size)


def _tar(path: Path, say: Problem) -> Iterator[Sample]:
    """The samples of a WebDataset tar; members of one sample follow each other."""
    key = ""
    found: dict[str, Member] = {}
    try:
        with os.fdopen(open_untrusted(path), "rb") as file:
            headers = _Headers(file)
            tar: Any = tarfile.TarFile(fileobj=headers)  # type: ignore[arg-type]
            for member in tar:
                headers.left = HEADER_BYTES
                tar.members = []  # or all headers stay in memory
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                stem = f"{folder}/{stem}" if folder else stem
                if not member.isreg():
                    continue
                if stem != key:
                    yield from _of_members(path, key, found, say)
                    key = stem
                    found = {}
                found[suffix] = Member(path, member.offset_data, member.size)
    except (OSError, tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        say(f"{path}: cannot be read further: {error}")
    yield from _of_members(path, key, found, say)


def _of_members(path: Path, key: str, found: dict[str, Member], say: Problem) -> Iterator[Sample]:
    if "jpg" not in found:
        return  # a .prompts, or what others keep in a tar
    if "json" not in found:
        say(f"{path}: {key}: there is no {key}.json in it")
        return
    try:
        metadata = _metadata(found["json"].read(SAMPLE_BYTES))
        text = found["txt"].read(SAMPLE_BYTES).decode("utf-8") if "txt" in found else None
    except (OSError, ValueError) as error:
        say(f"{path}: {key}: cannot be read: {error}")
        return
    if metadata is None:
        say(f"{path}: {key}.json: is not the JSON of a sample")
        return
    yield Sample(key, metadata, found["jpg"], text)
