"""Batch sizes that had to be halved, kept beside the ledger for later workers.

    sizes = BatchSizes(Path(".server/batch_sizes.jsonl"), key)
    sizes.smallest()        # or None
    sizes.note(4)

key: all that the memory of a batch depends on. A row counts for a week: what did not fit once,
since another process had memory of the card, does not keep every later run small.
"""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from common.files import SMALL, open_plain
from common.json_text import parse_json
from common.untrusted import read_untrusted

KEPT_S = 7 * 86400


class BatchSizes:
    """The file of sizes, for one key."""

    def __init__(self, path: Path | None, key: Sequence[object]) -> None:
        self.path = path
        self.key = [None if value is None else str(value) for value in key]

    def note(self, batch_size: int) -> None:
        """Remember a size. On a full disk the next process finds it out again."""
        if self.path is None:
            return
        row = {"key": self.key, "batch_size": batch_size, "time": int(time.time())}
        with contextlib.suppress(OSError), open(self.path, "a", opener=open_plain) as file:
            file.write(json.dumps(row) + "\n")

    def smallest(self) -> int | None:
        """The smallest size noted within a week; a torn line costs one batch that does not fit."""
        try:
            lines = read_untrusted(self.path, SMALL).splitlines() if self.path else []
        except OSError:
            return None
        sizes = []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
                row = parse_json(line)
                if row["key"] == self.key and time.time() - row["time"] < KEPT_S:
                    sizes.append(max(1, int(row["batch_size"])))
        return min(sizes, default=None)
