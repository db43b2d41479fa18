"""Folders that are one, under whatever names: through links, mounts, or a path with `..`.

lies_in("link/000012", "HPDv2")        # link -> HPDv2
refuse_twice(["HPDv2", "link"])        # UserError: its samples would count twice
"""

import contextlib
import os
import re
from collections.abc import Iterable, Sequence

from common.command_line import UserError
from postprocess_dataset.table import NotUpdatable

BLOCK = re.compile(r"/\d{6}$")  # a sub-folder of 1,000 prompts


def lies_in(path: str, folder: str) -> bool:
    """Whether `path` is the folder or lies in it. It need not exist; the folder must."""
    try:
        wanted = os.stat(folder)
    except OSError:
        return False
    place = ""
    above = os.path.realpath(path)
    while above != place:
        place, above = above, os.path.dirname(above)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(place), wanted):
                return True
    return False


def refuse_twice(folders: Sequence[str]) -> None:
    """UserError if one of the folders is another, or lies in another."""
    for first in folders:
        for second in folders:
            if first is not second and lies_in(second, first):
                raise UserError(
                    f"{second} is given twice or lies in {first}: its samples would count twice"
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
