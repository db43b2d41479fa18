"""List the samples of a dataset folder, folder by folder.

    for subdirectory, listing in walk(["/data/HPDv2"], "/data", earlier, print): ...

It reads this project's folders (sub-folders of 1,000 prompts), and the flat ones of the published
scripts, whose JSONs have an absolute `image_path`.
"""

import errno
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.packed_folder import COLLECTED, packed
from common.sample_reader import FOLDER_OF_PROMPTS
from postprocess_dataset.sample_checks import name_fault

BLOCK = 1000  # prompts a sub-folder
PLAN = "output_dataset_plan"  # a JSON of this name lies beside tars made here
STEM = r"(?P<prompt>0|[1-9][0-9]{0,11})_(?P<augmentation>0|[1-9][0-9]{0,5})"
COLLECTED_NAME = re.compile(rf"(0|[1-9][0-9]{{0,11}}){re.escape(COLLECTED)}")
NAME = rf"^{STEM}\.(?P<kind>jpg|json)$"
CODE = 1 << 20  # prompt_index and augmentation_idx in one integer: 8 bytes a name instead of 70
NOT_FOLLOWED = "a link to a folder is not followed; give it as a DIR of its own"
NO_FOLDER = "it is no folder, or a link to none; put its folder back, or move it away"
# A folder is skipped if its mtime is older than the last scan by this much: NFS may show an mtime
# so late.
MARGIN_NS = 60 * 10**9
Codes = Any  # a numpy array of int64


def no_codes() -> Codes:
    """An empty array of codes."""
    return np.empty(0, np.int64)


@dataclass
class Listing:
    """The names of one directory.

    Samples with standard names are sorted codes (prompt_index << 20 | augmentation_idx), others are
    stems. links: to folders. no_folders: other things that are named as a sub-folder of prompts.
    irregular: stems of images that are links, pipes, …, each to be looked at. collected: prompts
    that have a .samples. lost: samples packed in a tar that is missing or cut, and not there as
    loose files.
    """

    mtime_ns: int
    jsons: Codes = field(default_factory=no_codes)
    images: Codes = field(default_factory=no_codes)
    other_jsons: list[str] = field(default_factory=list)
    other_images: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    no_folders: list[str] = field(default_factory=list)
    irregular: set[str] = field(default_factory=set)
    collected: list[int] = field(default_factory=list)
    lost: Codes = field(default_factory=no_codes)

    def add_other(self, entry: os.DirEntry[str]) -> None:
        """A name that is not NUMBER_NUMBER.json or .jpg."""
        name = entry.name
        if name[0] == "." or name.endswith((".prompts", ".failed")):
            return
        if name.endswith(".json"):
            self.other_jsons.append(name[:-5])
        elif name.endswith(".jpg"):
            self.other_images.add(name[:-4])
        elif match := COLLECTED_NAME.fullmatch(name):
            self.collected.append(int(match[1]))
        elif entry.is_dir(follow_symlinks=False):
            self.folders.append(name)
        elif entry.is_symlink() and os.path.isdir(entry.path):  # False for a loop of links
            self.links.append(name)
        elif FOLDER_OF_PROMPTS.fullmatch(name):
            self.no_folders.append(name)


def list_folder(path: str) -> Listing:
    """One pass over a directory. OSError when it cannot be read.

    Names with a leading dot are temporary files or not ours.
    """
    # the time before the names are read: a later change makes it newer
    listing = Listing(os.stat(path).st_mtime_ns)
    jsons = [no_codes()]
    images = [no_codes()]
    with os.scandir(path) as entries:
        while block := list(itertools.islice(entries, 65536)):
            # 0.2 us a name; a loop over Python's re takes 1
            numbers = pc.extract_regex(_as_arrow([entry.name for entry in block]), NAME)
            valid = numbers.is_valid()
            codes = codes_of(numbers.filter(valid))
            kinds = numbers.field(2).filter(valid)
            is_image = pc.equal(kinds, "jpg").to_numpy(zero_copy_only=False)
            jsons.append(codes[~is_image])
            images.append(codes[is_image])
            for entry in block:  # 0.1 us a name: its directory entry tells
                if not entry.is_file(follow_symlinks=False) and entry.name.endswith(".jpg"):
                    listing.irregular.add(entry.name[:-4])
            for row in np.flatnonzero(~valid.to_numpy(zero_copy_only=False)).tolist():
                listing.add_other(block[row])
    in_tars, lost = _packed_codes(path)
    listing.collected += np.unique(in_tars // CODE).tolist()
    listing.jsons = _sorted(jsons, in_tars)
    listing.images = _sorted(images, in_tars)
    listing.lost = np.setdiff1d(lost, listing.jsons)
    listing.other_jsons.sort()
    listing.folders.sort()
    return listing


def _sorted(names: Sequence[Codes], in_tars: Codes) -> Codes:
    """Codes of loose and of packed samples; each once.

    No two names of a directory are the same: to sort them takes a quarter of numpy's union.
    """
    loose = np.sort(np.concatenate(names))
    return np.union1d(loose, in_tars) if len(in_tars) else loose


def _packed_codes(path: str) -> tuple[Codes, Codes]:
    """Codes of the samples of a packed sub-folder: those that are there, and those that are lost.

    OSError: its mark is damaged.
    """
    mark = packed(path)
    found = (mark.prompts, mark.lost) if mark else ({}, {})
    there, lost = (
        [index * CODE + aug for index, prompt in prompts.items() for aug in prompt.images]
        for prompts in found
    )
    return np.array(there, np.int64), np.array(lost, np.int64)


def _as_arrow(names: Sequence[str]) -> pa.Array:
    try:
        return pa.array(names, pa.string())
    except UnicodeEncodeError:  # a name that is not UTF-8, somewhere among them
        return pa.array([os.fsencode(name).decode(errors="replace") for name in names], pa.string())


def codes_of(numbers: pa.StructArray) -> Codes:
    """Codes of matches of STEM, all of them valid."""
    prompts, augmentations = (
        pc.cast(numbers.field(n), pa.int64()).to_numpy(zero_copy_only=False) for n in (0, 1)
    )
    return prompts * CODE + augmentations


def among(codes: Codes, others: Codes) -> Codes:
    """For each of the codes, whether it is one of the `others`, which are sorted."""
    if not len(others):
        return np.zeros(len(codes), bool)
    places = np.searchsorted(others, codes)
    return others[np.minimum(places, len(others) - 1)] == codes


def stems(codes: Codes) -> list[str]:
    """File names without extension of an array of codes."""
    numbers = (pc.cast(pa.array(part), pa.string()) for part in (codes // CODE, codes % CODE))
    names: list[str] = pc.binary_join_element_wise(*numbers, "_").to_pylist()
    return names


class Seen(Protocol):
    """What walk() needs of an earlier run: its time, the folders' mtimes, the folders in each."""

    scanned_ns: int
    mtimes: dict[str, int]
    inside: dict[str, list[str]]


def walk(
    folders: Sequence[str],
    base: str,
    earlier: Seen,
    say: Callable[[str], None],
    partition: tuple[int, int] | None = None,
) -> Iterator[tuple[str, Listing | OSError | None]]:
    """Yield (subdirectory, its Listing), folder by folder.

    None instead of the listing: unchanged since the `earlier` run. OSError: cannot be read.
    """
    waiting = [os.path.relpath(folder, base) for folder in sorted(folders, reverse=True)]
    while waiting:
        subdirectory = waiting.pop()
        name = os.path.basename(subdirectory)
        if _of_others(name, partition):
            continue
        path = os.path.join(base, subdirectory)
        inside: list[str] = []
        listing: Listing | OSError | None
        try:
            if name_fault(name):
                raise OSError(errno.EILSEQ, f"its {name_fault(name)}; rename it")
            if _unchanged(path, subdirectory, earlier):
                listing = None
                inside = earlier.inside.get(subdirectory, [])
            else:
                listing = list_folder(path)
                if _holds_tars(listing):
                    say(f"{subdirectory}: holds tars made here, no samples; skipped")
                    continue
                inside = [f"{subdirectory}/{name}" for name in listing.folders]
        except OSError as error:
            listing = error
        yield subdirectory, listing
        if isinstance(listing, Listing):
            for name, why in _left_out(listing):
                if not name.isdecimal():
                    say(f"{subdirectory}/{name}: {why.strerror}")
                elif not _of_others(name, partition):  # its samples are left out
                    yield f"{subdirectory}/{name}", why
        waiting += reversed(inside)


def _of_others(name: str, partition: tuple[int, int] | None) -> bool:
    """Whether a folder of 1,000 prompts is another partition's, whole."""
    return bool(partition and name.isdecimal() and int(name) % partition[1] != partition[0])


def _left_out(listing: Listing) -> Iterator[tuple[str, OSError]]:
    """What is, or should be, a folder, and is not gone into; and why."""
    for name in listing.links:
        yield name, OSError(errno.ELOOP, NOT_FOLLOWED)
    for name in listing.no_folders:
        yield name, OSError(errno.ENOTDIR, NO_FOLDER)


def _holds_tars(listing: Listing) -> bool:
    """Whether it is a folder of tars made here; one with samples, or folders of them, is none."""
    samples = len(listing.jsons) or len(listing.images) or len(listing.lost)
    others = listing.other_images & set(listing.other_jsons)
    folders = any(map(FOLDER_OF_PROMPTS.fullmatch, listing.folders))
    return PLAN in listing.other_jsons and not (samples or others or folders)


def _unchanged(path: str, subdirectory: str, earlier: Seen) -> bool:
    """Whether it is as it was. PermissionError: nothing of it can be read any more."""
    then = earlier.mtimes.get(subdirectory)
    if then is None or then >= earlier.scanned_ns - MARGIN_NS:
        return False
    if os.stat(path).st_mtime_ns != then:
        return False
    if not os.access(path, os.R_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return True
