"""Folders that are one, under whatever names: through links, mounts, or a path with `..`.

lies_in("link/000012", "HPDv2")        # link -> HPDv2
refuse_twice(["HPDv2", "link"])        # UserError: its samples would count twice
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from common.command_line import UserError
from postprocess_dataset.table import NotUpdatable

BLOCK = re.compile(r"/[0-9]{6}$")  # a sub-folder of 1,000 prompts


def lies_in(path: str, folder: str) -> bool:
    """Whether `path` is the folder or lies in it. It need not exist; the folder must."""
    wanted = _identity(folder)
    return wanted is not None and any(_identity(place) == wanted for place in _upwards(path))


def _upwards(path: str) -> Iterator[str]:
    """The path without links, then each folder that it lies in."""
    place = ""
    above = os.path.realpath(path)
    while above != place:
        place, above = above, os.path.dirname(above)
        yield place


def _identity(place: str) -> tuple[int, int] | None:
    """What tells a file from any other, under whatever name; None: it cannot be looked at."""
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def refuse_twice(folders: Sequence[str]) -> None:
    """UserError if one of the folders is another, or lies in another."""
    identity = functools.cache(_identity)  # 5,000 folders lie in the same ones
    given: dict[tuple[int, int] | None, int] = {}
    for number, folder in enumerate(folders):
        given.setdefault(identity(os.path.realpath(folder)), number)
    given.pop(None, None)
    for number, folder in enumerate(folders):
        for place in _upwards(folder):
            other = given.get(identity(place), number)
            if other != number:
                raise UserError(
                    f"{folder} is given twice or lies in {folders[other]}: "
                    "its samples would count twice"
                )


def refuse_other_names(folders: Sequence[str], base: str, known: Iterable[str]) -> None:
    """UserError if the samples of a folder are in a table already, under another name.

    known: the table's sub-folders, below `base`.
    """
    for name in sorted({BLOCK.sub("", name) for name in known}):
        before = os.path.join(base, name)
        for folder in folders:
            if not f"{before}/".startswith(f"{folder}/") and lies_in(before, folder):
                why = f"the samples of {folder} are in the table as those of {before}"
                raise NotUpdatable(why, "name it so, or --rebuild the table")
