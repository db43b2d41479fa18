"""Compare a data set with the job server's ledger, which is read and not changed.

ledger = Ledger.of("/shared/outputs/generate_images")      # None: there is none
ledger.given_up("HPDv2"), ledger.compare("HPDv2", done, found)
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from common.json_text import parse_json
from postprocess_dataset.dataset_folder import BLOCK
from postprocess_dataset.manifest.kinds import Findings

LLM_SUMS = ("prompt_tokens", "completion_tokens", "usd")


class InUse(Exception):
    """A job server runs and holds the ledger."""


class Ledger:
    """A copy in memory of an output root's ledger, so that a server can start meanwhile."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(":memory:")
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as stored:
            stored.backup(self.database, progress=_not_waiting)

    @classmethod
    def of(cls, output_root: Path) -> "Self | None":
        """None: this root has no ledger. InUse: its server runs. ValueError: it is damaged."""
        path = output_root / ".server" / "ledger.sqlite"
        if not path.is_file():
            return None
        try:
            ledger = cls(path)
            ledger._all("SELECT count(*) FROM datasets")
        except sqlite3.OperationalError as error:
            raise InUse(f"{path}: {error}") from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path}: {error}") from None
        return ledger

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self.database.execute(query, values).fetchall()

    def knows(self, dataset: str) -> bool:
        """Whether it has a data set of this name."""
        return bool(self._all("SELECT 1 FROM datasets WHERE name = ?", dataset))

    def datasets(self) -> list[str]:
        """The names of all that it knows."""
        return [name for (name,) in self._all("SELECT name FROM datasets")]

    def llm_use(self) -> dict[str, float]:
        """Tokens and USD of all LLM calls of the output root, as its accounts sum them up."""
        past = self._all("SELECT value FROM llm_facts WHERE name = 'past'")
        uses = [parse_json(text) for (text,) in [*past, *self._all("SELECT use FROM llm_clients")]]
        backends = [use for each in uses for use in (each.get("backends") or {}).values()]
        return {key: sum(use.get(key) or 0 for use in backends) for key in LLM_SUMS}

    def given_up(self, dataset: str) -> list[int]:
        """Prompts that failed permanently."""
        query = "SELECT idx FROM trouble WHERE dataset = ? AND state = 'set_aside' ORDER BY idx"
        return [index for (index,) in self._all(query, dataset)]

    def compare(self, dataset: str, done: Mapping[int, int], found: Findings) -> None:
        """Report counts that do not add up, and prompts complete in the folder but open here.

        done: {block: bits of the prompts that are complete in the folder}. Prompts that are done
        here and not complete in the folder are reported there, as missing.
        """
        where = f"ledger: {dataset}"
        ((total, *parts),) = self._all(
            "SELECT total, waiting, leased, done, set_aside FROM datasets WHERE name = ?", dataset
        )
        if sum(parts) != total:
            shown = " + ".join(map(str, parts))
            found.add("ledger_differs", where, f"waiting, leased, done, failed: {shown} ≠ {total}")
        stored = dict(self._all("SELECT block, done FROM blocks WHERE dataset = ?", dataset))
        failed: dict[int, int] = {}  # all of such a prompt may be .failed: nothing of it is missing
        for index in self.given_up(dataset):
            failed[index // BLOCK] = failed.get(index // BLOCK, 0) | 1 << index % BLOCK
        for block, bits in sorted(done.items()):
            known = int.from_bytes(stored.get(block, b""), "little") | failed.get(block, 0)
            for place in places(bits & ~known):
                why = "whole in the folder, not done in the ledger"
                found.add("ledger_differs", f"{where} {block * BLOCK + place}", why)


def _not_waiting(status: int, remaining: int, total: int) -> None:
    """Stop sqlite's backup if a server holds the file; else it would wait for the server's end."""
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise sqlite3.OperationalError("database is locked")


def places(bits: int) -> Iterator[int]:
    """Places of the one bits, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
