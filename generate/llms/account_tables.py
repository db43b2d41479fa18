"""Tables of the LLM accounts, in the file of the job server's ledger.

tables = AccountTables(sqlite3.connect("ledger.sqlite"))
tables.write_client("client-1", ClientAccount(granted_usd=0.4))
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from generate.llms.usage import Use

TABLES = (
    """create table if not exists llm_clients (
    client_id text primary key, granted_usd real not null, spent_usd real not null,
    closed integer not null, use text not null)""",
    """create table if not exists llm_past (
    client_id text primary key, granted_usd real not null, spent_usd real not null,
    closed integer not null, use text not null)""",
    "create table if not exists llm_facts (name text primary key, value text not null)",
)
COLUMNS = "granted_usd, spent_usd, closed, use"
# Rows of such clients that are kept, of 2.3 kB each.
PAST_KEPT = 2000


@dataclass
class ClientAccount:
    """What is known of a client. heard: when, None = not since this server began."""

    granted_usd: float = 0.0
    spent_usd: float = 0.0
    closed: bool = False
    use: dict[str, Any] = field(default_factory=dict)
    heard: float | None = None
    saved: float = float("-inf")

    @property
    def unspent_usd(self) -> float:
        """Granted and not reported as spent."""
        return self.granted_usd - self.spent_usd

    @property
    def backends(self) -> dict[str, Use]:
        """Its running totals by backend."""
        return self.use.get("backends") or {}


def _account_of(row: Sequence[Any]) -> ClientAccount:
    granted_usd, spent_usd, closed, use = row
    return ClientAccount(granted_usd, spent_usd, bool(closed), json.loads(use))


class AccountTables:
    """The tables; made if they are missing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        for statement in TABLES:
            connection.execute(statement)

    def clients(self) -> dict[str, ClientAccount]:
        """{client_id: account} of the clients that were not retired."""
        rows = self.connection.execute(f"select client_id, {COLUMNS} from llm_clients")
        return {client_id: _account_of(row) for client_id, *row in rows}

    def facts(self) -> dict[str, Any]:
        """{name: value} of the run's single facts: budget, limits, sums of the past."""
        facts = self.connection.execute("select name, value from llm_facts")
        return {name: json.loads(value) for name, value in facts}

    def past_client(self, client_id: str) -> ClientAccount | None:
        """The account of a retired client; None if it is not kept."""
        row = self.connection.execute(
            f"select {COLUMNS} from llm_past where client_id = ?", (client_id,)
        ).fetchone()
        return _account_of(row) if row else None

    def write_fact(self, name: str, value: Any) -> None:
        self.connection.execute(
            "insert or replace into llm_facts values (?, ?)", (name, json.dumps(value))
        )

    def write_client(self, client_id: str, client: ClientAccount) -> None:
        self._write("llm_clients", client_id, client)

    def retire(self, client_id: str, client: ClientAccount) -> None:
        """Move a client that ended to the past, of which the newest rows are kept."""
        self.connection.execute("delete from llm_clients where client_id = ?", (client_id,))
        if client.granted_usd:
            self._write("llm_past", client_id, client)
            self.connection.execute(
                "delete from llm_past where rowid <= (select max(rowid) from llm_past) - ?",
                (PAST_KEPT,),
            )

    def bring_back(self, client_id: str, client: ClientAccount) -> None:
        """Move a client from the past back to the present ones."""
        self.connection.execute("delete from llm_past where client_id = ?", (client_id,))
        self._write("llm_clients", client_id, client)

    def _write(self, table: str, client_id: str, client: ClientAccount) -> None:
        use = json.dumps(client.use)
        row = (client_id, client.granted_usd, client.spent_usd, int(client.closed), use)
        self.connection.execute(f"insert or replace into {table} values (?, ?, ?, ?, ?)", row)

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What is written within is on disk as a whole, or not at all."""
        if self.connection.in_transaction:  # whoever began it commits
            yield
            return
        self.connection.execute("begin immediate")
        try:
            yield
            self.connection.execute("commit")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("rollback")
            raise
