"""Packed sub-folders of a data set: the files lie in tars, and the mark PACKED says where.

    000012/PACKED             JSON: the tars with their hashes; for each prompt where its files lie,
                              and which images count
    000012/part-00000.tar     12345.prompts, 12345_0.jpg, 12345_0.json, … byte for byte

    read_file("HPDv2/000012/12345_3.jpg", IMAGE_BYTES)     # packed or not
    exists("HPDv2/000012/12345_3.jpg")
    folder = packed("HPDv2/000012")                        # PackedFolder, or None

The mark decides. A loose file of a name that it lists does not count: a killed packer, or a client
that was paused for a day, has left it. A loose file that it does not list counts as usual. A tar
that no mark names does not count. A tar that is missing or has another size is ignored.
"""

import errno
import functools
import logging
import os
import re
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from common.json_text import parse_json
from common.number_ranges import MOST_AUGMENTATIONS, numbers
from common.packed_tar import HEADER, MOST_TAR, Member, members
from common.untrusted import Refused, read_untrusted

MARK = "PACKED"
MARK_BYTES = 64 << 20  # a mark takes 100 to 300 bytes a prompt, and a folder has 1,000
TAR = re.compile(r"part-[0-9]{5}\.tar")
INDEX = re.compile(r"0|[1-9][0-9]{0,11}")  # a prompt's number, as all names have it
FILE = re.compile(r"(0|[1-9][0-9]{0,11})(?:_(0|[1-9][0-9]{0,5}))?\.([0-9A-Za-z.]{1,40})")
COLLECTED = ".samples"  # of a prompt: its JSONs, one a line
LEAST_FILE = HEADER  # bytes that a file takes in a tar: an empty one is its header
MOST_FILES = 1_000_000  # images of a mark's 1,000 prompts: some 100 MB of memory
FOLDERS_KEPT = 64  # marks in memory: some 0.5 MB each
LOOK_EVERY_S = 1.0  # at the tars of a folder: a folder may have 200 of them
# Loose files of finished prompts after which a folder that is still open is packed as well: a
# folder of 1,000 prompts of 200 images becomes 200 tars.
EARLY_FILES = 2_000
PROMPTS_KEPT = 64  # and of so many prompts the places of their files

DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError)

log = logging.getLogger(__name__)


class DamagedMark(OSError):
    """Of a folder whose mark cannot be used: no file in it can be said to be there, or broken."""

    def __init__(self, reason: str, mark: str | os.PathLike[str]) -> None:
        super().__init__(errno.EBADMSG, reason, os.fspath(mark))

    def __str__(self) -> str:
        """Without "[Errno 74]", as the system has not said so."""
        return f"{self.filename}: {self.strerror}"


class Span(NamedTuple):
    """Bytes of a tar that hold files of one prompt, from a header to the end of the last file."""

    tar: int
    offset: int
    size: int


@dataclass(frozen=True)
class PackedPrompt:
    """What the mark says of a prompt. images, failed: augmentations that count."""

    spans: tuple[Span, ...]  # a later one was packed later; its files go before earlier ones
    images: frozenset[int]
    failed: frozenset[int]
    captions: int | None  # texts of its newest .prompts; None: it has none
    generation: int  # of that .prompts; 0: there is none
    short: dict[str, Any] | None  # of that .prompts


@dataclass(eq=False)
class PackedFolder:
    """The mark of one sub-folder. tars: their paths in the mark's order, None if missing or cut."""

    path: Path
    record: dict[str, Any]
    tars: list[Path | None]
    prompts: dict[int, PackedPrompt] = field(default_factory=dict)
    lost: dict[int, PackedPrompt] = field(default_factory=dict)  # in a tar that is missing or cut
    looked_at: float = 0.0  # time.monotonic() of the last look at the tars

    def __post_init__(self) -> None:
        sizes = [entry["bytes"] for entry in self.record["tars"]]
        if any(type(size) is not int or not 0 <= size <= MOST_TAR for size in sizes):
            raise ValueError("the size of a tar is no number of bytes")
        room = list(sizes)
        files = 0
        for index, entry in self.record["prompts"].items():
            if not INDEX.fullmatch(index):
                raise ValueError(f"{index!r:.80} is no prompt's number")
            prompt = prompt_of(entry, sizes, room)
            whole = all(self.tars[span.tar] for span in prompt.spans)
            (self.prompts if whole else self.lost)[int(index)] = prompt
            files += len(prompt.images) + len(prompt.failed)
            if files > MOST_FILES:
                raise ValueError(f"it states more than {MOST_FILES:,} images")

    def files_of(self, index: int) -> dict[str, Member]:
        """{name: where it lies} of all files of a prompt, listed as counting or not."""
        return _files_of(self, index)

    def collected(self, index: int) -> Member | None:
        """The newest packed .samples of a prompt; only the headers before it are read.

        Refused: the tar is damaged.
        """
        prompt = self.prompts.get(index)
        for span in reversed(prompt.spans if prompt else ()):
            tar = self.tars[span.tar]
            assert tar is not None, "prompts of missing tars are left out"
            for name, member in members(tar, span.offset, span.offset + span.size):
                if name == f"{index}{COLLECTED}":
                    return member
                if "_" in name:
                    break  # a sample: they come last
        return None

    def counts(self, name: str) -> bool:
        """Whether the mark lists a file of this name; then the packed one counts."""
        match = FILE.fullmatch(name)
        prompt = self.prompts.get(int(match[1])) if match else None
        if match is None or prompt is None:
            return False
        if match[2] is None:
            return name in self.files_of(int(match[1]))
        if match[3] == "failed":
            return int(match[2]) in prompt.failed
        if match[3] in ("jpg", "json"):
            return int(match[2]) in prompt.images
        return name in self.files_of(int(match[1]))

    def find(self, name: str) -> Member | None:
        """Where a file lies that the mark lists; None if it does not."""
        if not self.counts(name):
            return None
        return self.files_of(int(name.replace("_", ".").split(".")[0])).get(name)


@functools.lru_cache(maxsize=PROMPTS_KEPT)
def _files_of(folder: PackedFolder, index: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    prompt = folder.prompts.get(index)
    for span in prompt.spans if prompt else ():
        tar = folder.tars[span.tar]
        assert tar is not None, "prompts of missing tars are left out"
        found.update(members(tar, span.offset, span.offset + span.size))
    return found


def prompt_of(entry: dict[str, Any], sizes: list[int], room: list[int]) -> PackedPrompt:
    """One prompt's entry in a mark. KeyError, TypeError, ValueError: it is damaged.

    sizes: bytes of each tar. room: bytes of each tar that no earlier prompt takes up; those of this
    one are subtracted. So a small mark cannot state more files than its tars can hold.
    """
    spans = tuple(Span(*map(int, span)) for span in entry["at"])
    for span in spans:
        end = span.offset + span.size
        if min(span) < 0 or end > sizes[span.tar] or span.size > room[span.tar]:
            raise ValueError(f"{span} does not lie within its tar")
        room[span.tar] -= span.size
    most = sum(span.size for span in spans) // LEAST_FILE
    return PackedPrompt(
        spans,
        frozenset(numbers(entry["images"], most)),
        frozenset(numbers(entry["failed"], most)),
        None if entry["captions"] is None else text_count(entry["captions"]),
        text_count(entry["generation"]),
        shortfall(entry["short"]),
    )


def text_count(value: object) -> int:
    """The value. ValueError if it is not a whole number in the bounds of a prompt."""
    if type(value) is not int or not 0 <= value <= MOST_AUGMENTATIONS:
        raise ValueError(f"{value!r:.80} is no number of texts")
    return value


def shortfall(value: object) -> dict[str, Any] | None:
    """ValueError: not what a .prompts says of captions that the LLMs did not give."""
    if not isinstance(value, dict | None):
        raise ValueError(f"{value!r:.80} does not say how many texts are missing")
    if value is not None:
        text_count(value.get("missing"))
    return value


def packed(folder: str | os.PathLike[str]) -> PackedFolder | None:
    """The mark of a sub-folder, or None. DamagedMark: it cannot be used, and tars lie beside it.

    Without a tar nothing has been packed: what is called so is a file or folder of others.
    One look at the disk when nothing has changed; once a second one at each tar.
    """
    path = os.path.join(folder, MARK)
    try:
        there = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:  # a NUL in a path of a foreign table
        raise Refused(str(error), path) from None
    found = _load(os.fspath(folder), there)
    if found is None:
        return None
    now = time.monotonic()
    if now - found.looked_at < LOOK_EVERY_S:
        return found
    found.looked_at = now
    if any(
        (tar is not None) != _is_whole(found.path / entry["name"], entry)
        for tar, entry in zip(found.tars, found.record["tars"], strict=True)
    ):
        _loaded.cache_clear()  # a tar has gone, or is back
        return _load(os.fspath(folder), there)
    return found


def _load(folder: str, mark: os.stat_result) -> PackedFolder | None:
    if stat.S_ISREG(mark.st_mode):
        try:
            # by the time of its last change of any kind: it may have become readable
            found = _loaded(folder, mark.st_ino, mark.st_ctime_ns, mark.st_size)
        except PermissionError as error:
            found = f"cannot be read: {error.strerror}"
        if isinstance(found, PackedFolder):
            return found
    else:
        found = "is no regular file"
    if not _has_tars(folder, int(time.monotonic() // LOOK_EVERY_S)):
        return None
    raise DamagedMark(f"its mark {MARK} {found}", os.path.join(folder, MARK))


@functools.lru_cache(maxsize=FOLDERS_KEPT)
def _has_tars(folder: str, look: int) -> bool:
    """look: another one lists the names, perhaps 400,000, again."""
    return any(map(TAR.fullmatch, os.listdir(folder)))


@functools.lru_cache(maxsize=FOLDERS_KEPT)
def _loaded(folder: str, inode: int, changed: int, size: int) -> PackedFolder | str:
    """What the mark says, or what is wrong with it."""
    try:
        return _parsed(Path(folder))
    except Refused as error:
        return f"cannot be read: {error.strerror}"
    except KeyError as error:
        return f"is damaged: it has no {error}"
    except ValueError as error:
        return f"is damaged: {error}"
    except DAMAGE:
        return "is damaged: a value has another type"


def _parsed(path: Path) -> PackedFolder:
    record = parse_json(read_untrusted(path / MARK, MARK_BYTES))
    tars = []
    if len({entry["name"] for entry in record["tars"]}) < len(record["tars"]):
        raise ValueError("it names a tar twice")
    for entry in record["tars"]:
        if not TAR.fullmatch(entry["name"]):
            raise ValueError(f"{entry['name']!r:.80} is no name of a tar")
        tar = path / entry["name"]
        tars.append(tar if _is_whole(tar, entry) else None)
        if tars[-1] is None:
            log.error("%s is missing or cut: what was packed in it does not count", tar)
    return PackedFolder(path, record, tars)


def _is_whole(tar: Path, entry: dict[str, Any]) -> bool:
    try:
        there = os.stat(tar, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(there.st_mode) and there.st_size == entry["bytes"]


def read_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a file of a data set, packed or loose, at most `limit` of them.

    FileNotFoundError: it is neither. OSError as of read_untrusted and packed().
    """
    member = member_of(path)
    try:
        return member.read(limit) if member else read_untrusted(path, limit)
    except FileNotFoundError:
        member = member_of(path)  # packed since
        if member is None:
            raise
        return member.read(limit)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether a file of a data set is there, packed or loose; a link or a folder is none."""
    folder, name = os.path.split(os.fspath(path))
    found = packed(folder)
    in_tar = found is not None and found.counts(name)
    return in_tar or is_plain(path) or member_of(path) is not None  # packed since


def is_plain(path: str | os.PathLike[str]) -> bool:
    """Whether a file itself lies there: no link, folder or pipe."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):  # a NUL in the name
        return False


def changed_ns(path: str | os.PathLike[str]) -> int:
    """When a file of a data set was changed, in ns; packed: when it was packed.

    FileNotFoundError: it is neither; a link or a folder is no such file.
    """
    folder, name = os.path.split(os.fspath(path))
    found = packed(folder)
    in_tar = found is not None and found.counts(name)
    there = os.stat(os.path.join(folder, MARK) if in_tar else path, follow_symlinks=False)
    if not stat.S_ISREG(there.st_mode):
        raise FileNotFoundError(errno.ENOENT, "no regular file", os.fspath(path))
    return there.st_mtime_ns


def member_of(path: str | os.PathLike[str]) -> Member | None:
    """Where a file of a data set lies in a tar; None: it is not packed."""
    folder, name = os.path.split(os.fspath(path))
    found = packed(folder)
    return found.find(name) if found else None
