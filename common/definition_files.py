"""The definitions of a data set folder: dataset.yaml, and dataset.2.yaml, … of its extensions.

number, path = max(definition_files(Path("HPDv2")), default=(0, None))      # the newest counts
"""

import os
import re
from pathlib import Path

NAME = re.compile(r"dataset(?:\.([2-9]|[1-9][0-9]{1,8}))?\.yaml")
GAP = 10  # numbers; one of deleted files is smaller


def definition_files(folder: Path) -> list[tuple[int, Path]]:
    """(number, path) of each definition in a data set folder, the first one first.

    A gap wider than GAP ends them: what has a later number is no definition that was made here.
    """
    if not folder.is_dir():
        return []
    names = {
        int(match[1] or 1): match[0] for match in map(NAME.fullmatch, os.listdir(folder)) if match
    }
    found: list[tuple[int, Path]] = []
    newest = 0
    for number in sorted(names):
        if number > newest + GAP:
            break
        newest = number
        found.append((number, folder / names[number]))
    return found
