"""List a sub-folder of a data set once: what lies there for each prompt.

scan_folder("outputs/generate_images/generated_images/HPDv2", 12)[12345].done(images_per_prompt=10)
"""

import errno
import functools
import os
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from common.given_up import read_given_up
from common.packed_folder import packed
from generate.dataset.accept_rule import Rule
from generate.dataset.captions import Missing, read_generation
from generate.dataset.layout import FOLDER, NAME, TEMPORARY, folder_name, path_of


@dataclass
class IndexFiles:
    """What lies in the folder for one prompt; images, jsons, failed, …: augmentations.

    opened: they have a .failed that the present rule would not give; damaged: none that counts.
    strays: names of an image or JSON under which a link, a folder or a pipe lies.
    """

    captions: int | None = None  # how many its newest whole .prompts holds; None: there is none
    short: Missing | None = None  # of that .prompts
    generation: int = 0  # of the newest .prompts by name, broken or not; 0: there is none
    images: set[int] = field(default_factory=set)
    jsons: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    opened: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    strays: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)  # names of temporary files
    collected: bool = False  # whether a loose .samples lies there

    def done(self, images_per_prompt: int = 1) -> bool:
        """Whether each caption is an image with JSON, or given up.

        The captions must have been asked for with at least so many images in mind.
        """
        if self.captions is None:  # 0: the prompt was refused, and nothing is left to do
            return False
        wanted = self.captions + (self.short["missing"] if self.short else 0)
        through = (self.images & self.jsons) | self.failed
        return wanted >= images_per_prompt and set(range(self.captions)) <= through


def scan_folder(
    dataset_dir: str | os.PathLike[str],
    folder: int,
    only: Container[int] | None = None,
    rule: Rule | None = None,
) -> dict[int, IndexFiles]:
    """{index: IndexFiles} of one sub-folder; only: the indices asked for, default all of them.

    rule: as of rule_of(), by which a .failed may count no more.

    Reads the newest loose .prompts of each prompt, and where it is broken the one before it. Each
    .failed without an image is read, too. A missing folder is empty.
    What is packed is taken from the folder's mark, without a look at its tars' contents.
    OSError: it cannot be read, or is a link, through which no step after this one would look.
    """
    path = Path(dataset_dir) / folder_name(folder * FOLDER)
    if os.path.islink(path):
        why = "it is a link, which no table follows; put the folder itself in its place"
        raise NotADirectoryError(errno.ENOTDIR, why, os.fspath(path))
    try:
        listed, others = _list(path)
    except FileNotFoundError:
        return {}
    in_tars = _packed(path, only)
    found: dict[int, IndexFiles] = {}
    for name in others:
        match = NAME.fullmatch(name)
        if match is None or match[3] not in ("jpg", "json"):
            listed.append(name)  # its reader sees what it is
        elif only is None or int(match[1]) in only:
            found.setdefault(int(match[1]), IndexFiles()).strays.append(name)
    names = set(listed)
    for name in [name for name in listed if ".prompts" in name]:
        match = NAME.fullmatch(name)
        if match and (only is None or int(match[1]) in only):
            files = found.setdefault(int(match[1]), IndexFiles())
            files.generation = max(files.generation, int(match[3][7:] or 1))
            names.discard(name)
    for index, files in found.items():
        if files.generation >= _generation(in_tars.get(index)):
            _count_captions(dataset_dir, index, files)
        # 0.2 us a name; one by one, as below, each takes 2 us
        files.images = _take(names, index, files.captions or 0, ".jpg")
        files.jsons = _take(names, index, files.captions or 0, ".json")
    for name in names:
        match = NAME.fullmatch(name) or TEMPORARY.fullmatch(name)
        if match is None or (only is not None and int(match[1]) not in only):
            continue
        files = found.setdefault(int(match[1]), IndexFiles())
        if name.startswith("."):
            files.temporary.append(name)
        elif match[3] == "samples":
            files.collected = True
        elif match[2] is not None:
            kinds = {"jpg": files.images, "json": files.jsons, "failed": files.failed}
            kinds[match[3]].add(int(match[2]))
    for index, files in in_tars.items():
        loose = found.setdefault(index, IndexFiles())
        loose.images |= files.images
        loose.jsons |= files.jsons
        if files.generation >= loose.generation:
            loose.captions, loose.short = files.captions, files.short
            loose.generation = files.generation
    for index, files in found.items():
        for aug in files.failed - (files.images & files.jsons):
            _look_into_mark(dataset_dir, index, aug, files)
        if rule:
            given_up = files.failed - files.images
            files.opened = {aug for aug in given_up if not rule.gave_up(dataset_dir, index, aug)}
            files.failed -= files.opened
    return found


def _list(path: Path) -> tuple[list[str], list[str]]:
    """(names of files, names of all else); a third more than a list of names takes."""
    names: list[str] = []
    others: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            (names if entry.is_file(follow_symlinks=False) else others).append(entry.name)
    return names, others


def _look_into_mark(
    dataset_dir: str | os.PathLike[str], index: int, aug: int, files: IndexFiles
) -> None:
    """Leave a .failed out of files.failed if it is damaged, or has just been removed."""
    try:
        read_given_up(path_of(dataset_dir, index, aug, ".failed"))
    except FileNotFoundError:
        files.failed.discard(aug)
    except ValueError:
        files.failed.discard(aug)
        files.damaged.add(aug)


def _take(names: set[str], index: int, count: int, suffix: str) -> set[int]:
    """The augmentations below `count` whose files are in `names`; removes those names."""
    if not count:
        return set()
    files = _pattern(count, suffix).replace("*", str(index)).split("/")
    if names.issuperset(files):
        there = set(range(count))
    else:
        there = {aug for aug, name in enumerate(files) if name in names}
    names.difference_update(files)
    return there


@functools.lru_cache(maxsize=8)
def _pattern(count: int, suffix: str) -> str:
    """All names with * for the index: of it they are made in a quarter of the time."""
    return "/".join(f"*_{aug}{suffix}" for aug in range(count))


def _generation(files: IndexFiles | None) -> int:
    return files.generation + 1 if files else 0


def _packed(path: Path, only: Container[int] | None) -> dict[int, IndexFiles]:
    """{index: what its mark says}; of a folder that is not packed {}."""
    mark = packed(path)
    return {
        index: IndexFiles(
            prompt.captions,
            cast(Missing | None, prompt.short),
            prompt.generation,
            set(prompt.images),
            set(prompt.images),
        )
        for index, prompt in (mark.prompts.items() if mark else ())
        if only is None or index in only
    }


def _count_captions(dataset_dir: str | os.PathLike[str], index: int, files: IndexFiles) -> None:
    """Those of the newest .prompts that is a record, as read_captions() takes it."""
    for generation in range(files.generation, 0, -1):
        try:
            record = read_generation(dataset_dir, index, generation)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ESTALE):
                raise
            continue
        if record:
            files.captions = len(record["texts"])
            files.short = record["short"]
            return
