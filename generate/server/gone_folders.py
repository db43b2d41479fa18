"""Notice sub-folders of 1,000 prompts that left a data set folder, or came back, between two looks.

gone = GoneFolders()
gone.look("HPDv2", folder)      # [("HPDv2", 12)]: 000012 lay there at the last look, and is away

A look costs one stat. Names are listed only where the folder's mtime has changed since: a
sub-folder came or went. One that came and went between two looks is not noticed here; like every
other it is compared before the server says that all is done.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from common.sample_reader import FOLDER_OF_PROMPTS
from generate.server.storage.comparison import Block


@dataclass(frozen=True)
class Seen:
    """What a data set folder held at a look: numbers of its sub-folders, and of those that left."""

    changed_ns: int = 0
    here: frozenset[int] = frozenset()
    away: frozenset[int] = frozenset()


class GoneFolders:
    """Of each data set what the last look has seen."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    def look(self, name: str, folder: Path) -> list[Block]:
        """The blocks of a data set whose sub-folders left, or came back. OSError."""
        before = self.seen.get(name, Seen())
        changed_ns = folder.stat().st_mtime_ns  # before the names: a later change makes it newer
        if changed_ns == before.changed_ns:
            return []
        names = filter(FOLDER_OF_PROMPTS.fullmatch, os.listdir(folder))
        here = frozenset(map(int, names))
        left = before.here - here
        self.seen[name] = Seen(changed_ns, here, (before.away | left) - here)
        return [(name, block) for block in sorted(left | before.away & here)]
