"""SQL operations of the ledger: data sets, blocks of 1,000 indices, who holds what.

    store = open_store(Path(".server/ledger.sqlite"), epoch=3)
    with store.transaction():
        store.take("HPDv2", [17, 18], lease="3-1")

Each operation keeps the sum of guarantee 13: waiting + leased + done + failed = total, where each
is counted on its own. A troubled index has a failure or a suspicion and is leased alone. Rules of
leases and faults are not here: see ledger.py and blame.py. Operations that change something are
to be called within a transaction.
"""

import contextlib
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from generate.server.storage.blocks import (
    Figures,
    bits_of,
    blob_of,
    block_of,
    first_of,
    numbers,
    place_of,
    sums_of,
)
from generate.server.storage.ledger_file import LedgerFile
from generate.server.storage.schema import Check, note_changes, open_database, unchecked

# one statement for all indices of a request, given as a JSON list
AMONG = "dataset = ? AND idx IN (SELECT value FROM json_each(?))"
AMONG_BLOCKS = "dataset = ? AND block IN (SELECT value FROM json_each(?))"
# of blocks, by a JSON list of their first indices: one range of the primary key for each
IN_BLOCKS = (
    "SELECT idx FROM json_each(?) AS first CROSS JOIN {} ON dataset = ?"
    " AND idx BETWEEN first.value AND first.value + ?"
)
ADD_OPEN = "UPDATE blocks SET open = open + ? WHERE dataset = ? AND block = ?"

Definition = dict[str, Any]  # as in dataset.yaml


def open_store(
    path: Path, epoch: int, utc: float | None = None, check: Check = unchecked
) -> "Store":
    """Parameters and errors: as of schema.open_database."""
    connection, lost = open_database(path, epoch, utc, check)
    return Store(connection, path, epoch, lost)


class Store:
    """The tables of one ledger file. .connection: others may keep tables in it.

    .lost: why the ledger is not what the last server left, or None. .epoch: this server's.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, epoch: int, lost: str | None
    ) -> None:
        self.connection = connection
        self.file = LedgerFile(path)
        self.folder = path.parent
        self.epoch = epoch
        self.lost = lost
        self.depth = 0

    # ------------------------------------------------ statements and transactions

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """One commit at the end of the outermost; an exception undoes all of it.

        Without a sync when nothing was changed.
        """
        if self.depth:
            yield
            return
        self.connection.execute("BEGIN IMMEDIATE")
        self.depth = 1
        before = self.connection.total_changes
        try:
            yield
            if self.connection.total_changes > before:
                self.connection.execute("UPDATE server SET changes = changes + 1")
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        finally:
            self.depth = 0

    def one(self, sql: str, *values: object) -> Any:
        """The first row, or None."""
        return self.connection.execute(sql, values).fetchone()

    def all(self, sql: str, *values: object) -> list[Any]:
        return self.connection.execute(sql, values).fetchall()

    def run(self, sql: str, *values: object) -> int:
        """Number of rows that were changed."""
        return self.connection.execute(sql, values).rowcount

    def run_many(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        self.connection.executemany(sql, rows)

    def loss_is_known(self) -> None:
        """Clear .lost on disk, once the LLM accounts have taken it into account."""
        with self.transaction():
            self.run("UPDATE server SET lost = NULL")

    def note_changes(self) -> None:
        changes = self.one("SELECT changes FROM server")[0]
        note_changes(self.folder, self.epoch, changes)

    def draining(self) -> bool:
        return bool(self.one("SELECT draining FROM server")[0])

    def drain(self, draining: bool = True) -> None:
        """Grant nothing new from now on; False: grant again."""
        with self.transaction():
            self.run("UPDATE server SET draining = ?", draining)

    # ------------------------------------------------ data sets

    def names(self) -> list[str]:
        return [name for (name,) in self.all("SELECT name FROM datasets ORDER BY name")]

    def has(self, dataset: str) -> bool:
        return self.one("SELECT 1 FROM datasets WHERE name = ?", dataset) is not None

    def definition(self, dataset: str) -> Definition:
        """As in dataset.yaml."""
        text = self.one("SELECT definition FROM datasets WHERE name = ?", dataset)[0]
        definition: Definition = json.loads(text)
        return definition

    def version(self, dataset: str) -> int:
        return int(self.one("SELECT version FROM datasets WHERE name = ?", dataset)[0])

    def open_indices(self, dataset: str) -> int:
        """How many wait or are leased."""
        return int(self.one("SELECT waiting + leased FROM datasets WHERE name = ?", dataset)[0])

    def add(self, dataset: str, **changes: int) -> None:
        """Add to the counters of a data set."""
        sets = ", ".join(f"{name} = {name} + ?" for name in changes)
        self.run(f"UPDATE datasets SET {sets} WHERE name = ?", *changes.values(), dataset)

    # ------------------------------------------------ what is held

    def indices(self, lease: str) -> list[int]:
        return [
            idx for (idx,) in self.all("SELECT idx FROM held WHERE lease = ? ORDER BY idx", lease)
        ]

    def held_by(self, client_id: str) -> dict[str, tuple[str, list[int]]]:
        """{lease: (data set, [index, …])} of a client."""
        leases = self.all("SELECT lease, dataset FROM leases WHERE client_id = ?", client_id)
        return {lease: (dataset, self.indices(lease)) for lease, dataset in leases}

    def dataset_of(self, lease: str) -> str | None:
        row = self.one("SELECT dataset FROM leases WHERE lease = ?", lease)
        return row[0] if row else None

    def held_in(self, dataset: str, block: int) -> set[int]:
        """The leased indices of a block."""
        rows = self.all(
            "SELECT idx FROM held WHERE dataset = ? AND idx BETWEEN ? AND ?",
            dataset,
            first_of(block),
            first_of(block + 1) - 1,
        )
        return {idx for (idx,) in rows}

    def trouble_in(self, dataset: str, block: int) -> dict[int, str]:
        """{index: state} of the troubled indices of a block."""
        rows = self.all(
            "SELECT idx, state FROM trouble WHERE dataset = ? AND idx BETWEEN ? AND ?",
            dataset,
            first_of(block),
            first_of(block + 1) - 1,
        )
        return dict(rows)

    def is_done(self, dataset: str | None, idx: int) -> bool:
        row = self.one(
            "SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, block_of(idx)
        )
        return row is not None and bits_of(row[0]) >> place_of(idx) & 1 == 1

    def done_in(self, dataset: str, block: int) -> set[int]:
        """The done indices of a block."""
        row = self.one("SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, block)
        return {first_of(block) + n for n in numbers(bits_of(row[0]))} if row else set()

    def open_bits(self, dataset: str, blocks: list[int]) -> dict[int, int]:
        """{block: a bit for each of its indices that is neither done, held nor troubled}."""
        rows = self.all(
            f"SELECT block, done, size FROM blocks WHERE {AMONG_BLOCKS}",
            dataset,
            json.dumps(blocks),
        )
        bits: dict[int, int] = {
            block: (1 << size) - 1 & ~bits_of(done) for block, done, size in rows
        }
        where = json.dumps([first_of(block) for block in blocks]), dataset, first_of(1) - 1
        in_flight = f"{IN_BLOCKS.format('held')} UNION {IN_BLOCKS.format('trouble')}"
        for (idx,) in self.all(in_flight, *where, *where):
            bits[block_of(idx)] &= ~(1 << place_of(idx))
        return bits

    # ------------------------------------------------ the state of an index

    def trouble(self, dataset: str, idx: int) -> str | None:
        """The state of a troubled index: waiting, leased or set_aside. None: not troubled."""
        row = self.one("SELECT state FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)
        return row[0] if row else None

    def take(self, dataset: str, indices: list[int], lease: str) -> None:
        """From waiting to leased. The primary key keeps an index from being held twice."""
        self._move(dataset, indices, -1, "leased")
        self.run(
            "INSERT INTO held SELECT ?, value, ? FROM json_each(?)",
            dataset,
            lease,
            json.dumps(indices),
        )
        self.add(dataset, waiting=-len(indices), leased=len(indices))

    def release(self, dataset: str, indices: list[int], reason: str | None = None) -> None:
        """From leased to waiting; counted under the reason."""
        if not indices:
            return
        self.run(f"DELETE FROM held WHERE {AMONG}", dataset, json.dumps(indices))
        self._move(dataset, indices, 1, "waiting")
        self.add(dataset, waiting=len(indices), leased=-len(indices))
        if reason:
            self.run(
                "INSERT INTO given_back VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET indices = indices + excluded.indices",
                dataset,
                reason,
                len(indices),
            )

    def _move(self, dataset: str, indices: list[int], by: int, state: str) -> None:
        """Set the state of the troubled ones; add the others to their blocks' open counts."""
        among = dataset, json.dumps(indices)
        troubled = {idx for (idx,) in self.all(f"SELECT idx FROM trouble WHERE {AMONG}", *among)}
        if troubled:
            self.run(f"UPDATE trouble SET state = ? WHERE {AMONG}", state, *among)
        counts = Counter(block_of(idx) for idx in indices if idx not in troubled)
        rows = [(by * n, dataset, block) for block, n in counts.items()]
        self.run_many(ADD_OPEN, rows)

    def add_open(self, dataset: str, block: int, by: int) -> None:
        """Add to a block's count of open indices."""
        self.run(ADD_OPEN, by, dataset, block)

    def suspect(self, dataset: str, idx: int) -> None:
        """A waiting or leased index is leased alone from now on."""
        if self.trouble(dataset, idx):
            return
        held = self.one("SELECT 1 FROM held WHERE dataset = ? AND idx = ?", dataset, idx)
        state = "leased" if held else "waiting"
        self.run("INSERT INTO trouble VALUES (?, ?, ?)", dataset, idx, state)
        if not held:
            self.add_open(dataset, block_of(idx), -1)

    def clear(self, dataset: str, idx: int) -> None:
        """Forget the failures of an index: it is ordinary again, and waits or stays leased."""
        state = self.trouble(dataset, idx)
        self.run("DELETE FROM blames WHERE dataset = ? AND idx = ?", dataset, idx)
        if state is None:
            return
        self.run("DELETE FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)
        if state != "leased":
            self.add_open(dataset, block_of(idx), 1)
        if state == "set_aside":
            self.add(dataset, waiting=1, set_aside=-1)

    def fail_permanently(self, dataset: str, idx: int) -> None:
        """A troubled index is not leased any more."""
        state = self.trouble(dataset, idx)
        self.run("DELETE FROM held WHERE dataset = ? AND idx = ?", dataset, idx)
        self.run(
            "UPDATE trouble SET state = 'set_aside' WHERE dataset = ? AND idx = ?", dataset, idx
        )
        self.add(dataset, set_aside=1, **{"leased" if state == "leased" else "waiting": -1})

    def tally(self, dataset: str, name: str, count: int) -> None:
        """Add to a count that no other one depends on."""
        if count:
            self.run(
                "INSERT INTO tallies VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET count = count + excluded.count",
                dataset,
                name,
                count,
            )

    def complete(self, dataset: str, figures: Figures) -> None:
        """From leased to done."""
        for table in ("held", "trouble", "blames"):
            self.run(f"DELETE FROM {table} WHERE {AMONG}", dataset, json.dumps(list(figures)))
        for block, indices in itertools.groupby(sorted(figures), block_of):
            group = list(indices)
            done = self.one(
                "SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, block
            )[0]
            bits = bits_of(done) | sum(1 << place_of(idx) for idx in group)
            sums = sums_of(figures[idx] for idx in group)
            self.run(
                "UPDATE blocks SET done = ?, images = images + ?, short = short + ?,"
                " short_images = short_images + ? WHERE dataset = ? AND block = ?",
                blob_of(bits),
                *sums.values(),
                dataset,
                block,
            )
            self.add(dataset, leased=-len(group), done=len(group), **sums)
