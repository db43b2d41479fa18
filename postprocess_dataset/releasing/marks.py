"""steps.json in the work folder: which steps of a release are done, and with which inputs.

marks = Marks("release/HPDv2.work")
if not marks.is_done("verify", state):
    …
    marks.done("verify", state)          # after the step's results are on the disk
"""

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

from common.files import read_json, write_whole
from common.untrusted import read_untrusted

NAME = "steps.json"
SMALL = 1 << 20  # bytes


class Marks:
    """The done marks of one work folder. A damaged file counts as one without marks."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, NAME)

    def is_done(self, step: str, state: str) -> bool:
        """Whether a step was done when what it depends on was in this state."""
        return self._read().get(step) == state

    def done(self, step: str, state: str) -> None:
        """Note that it is."""
        write_whole(self.path, json.dumps({**self._read(), step: state}, indent=1) + "\n")

    def _read(self) -> dict[str, Any]:
        try:
            found = read_json(self.path)
        except FileNotFoundError:
            return {}
        except ValueError:  # damaged: every step is looked at again
            return {}
        return found if isinstance(found, dict) else {}


def state_of(folder: str, *words: object, without: Iterable[str] = ()) -> str:
    """A digest of all files below a folder, and of further words.

    Of a file above SMALL bytes its size and time count, of others their content: they are written
    anew by every call.
    """
    digest = hashlib.sha256(repr(words).encode())
    left_out = set(without)
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name in left_out or name.startswith("."):
                continue
            path = os.path.join(place, name)
            there = os.stat(path)
            below = os.path.relpath(path, folder)
            digest.update(f"{below}\0{there.st_size}\n".encode())
            if there.st_size > SMALL:
                digest.update(f"{there.st_mtime_ns}\n".encode())
            else:
                digest.update(read_untrusted(path, SMALL))
    return digest.hexdigest()
