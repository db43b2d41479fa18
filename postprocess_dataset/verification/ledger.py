"""Compare a data set with the job server's ledger, which is read and not changed.

ledger = Ledger.of("/shared/outputs/generate_images")      # None: there is none
ledger.given_up("HPDv2"), ledger.compare("HPDv2", done, found)
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from common.json_form import in_form, number
from common.json_text import parse_json
from common.sqlite_files import open_to_read, plain_tables
from postprocess_dataset.dataset_folder import BLOCK
from postprocess_dataset.manifest.kinds import Findings

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
LLM_SUMS = ("prompt_tokens", "completion_tokens", "usd")
USE = {"backends?": (None, {str: {f"{name}?": (None, number) for name in LLM_SUMS}})}
# The columns that are read, with their types.
READ = {
    "datasets": {"name": "text"}
    | dict.fromkeys(("total", "waiting", "leased", "done", "set_aside"), "integer"),
    "blocks": {"dataset": "text", "block": "integer", "done": "blob"},
    "trouble": {"dataset": "text", "idx": "integer", "state": "text"},
}


class InUse(Exception):
    """A job server runs and holds the ledger."""


class Ledger:
    """A copy in memory of an output root's ledger, so that a server can start meanwhile."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(":memory:")
        with contextlib.closing(open_to_read(path)) as stored:
            stored.backup(self.database, progress=_not_waiting)

    @classmethod
    def of(cls, output_root: Path) -> "Self | None":
        """None: this root has no ledger. InUse: its server runs. ValueError: it is damaged."""
        path = output_root / ".server" / "ledger.sqlite"
        if not path.is_file():
            return None
        try:
            ledger = cls(path)
            ledger._check()
        except (sqlite3.DatabaseError, ValueError) as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) in BUSY:
                raise InUse(f"{path}: {error}; end the job server first (sbatch or kill)") from None
            raise ValueError(f"{path} is damaged: {error}") from None
        return ledger

    def _check(self) -> None:
        """sqlite3.DatabaseError, ValueError: what is read holds other values, or is computed."""
        plain_tables(self.database)
        for table, columns in READ.items():
            fits = " AND ".join(f"typeof({name}) = '{kind}'" for name, kind in columns.items())
            if self._all(f"SELECT 1 FROM {table} WHERE NOT ({fits}) LIMIT 1"):
                raise sqlite3.DatabaseError(f"a value in its table {table} is of another type")
        self.llm_use()

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
        if "llm_facts" not in plain_tables(self.database):
            return dict.fromkeys(LLM_SUMS, 0)  # no call was accounted for
        past = self._all("SELECT value FROM llm_facts WHERE name = 'past'")
        texts = [*past, *self._all("SELECT use FROM llm_clients")]
        uses = [in_form(parse_json(str(text)), USE) for (text,) in texts]
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
    if status in BUSY:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = status
        raise error


def places(bits: int) -> Iterator[int]:
    """Places of the one bits, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
