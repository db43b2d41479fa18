"""Whether a ledger that SQLite can read holds what the server can read: types, bounds, JSON.

    check_values(connection)        # sqlite3.DatabaseError: it is torn

Once at each start: an edited or half-restored file would else end the server, or break its page for
as long as it lives. Not looked at is the text of stored answers, each of which is read for one
request only.
"""

import contextlib
import math
import sqlite3
from typing import Any

from common.json_text import parse_json
from common.sqlite_files import plain_tables
from generate.dataset.definition import fault_of
from generate.protocol import fields as wire
from generate.protocol.connection import LAST_EPOCH
from generate.protocol.fields import BadField, Fields
from generate.server.storage.blocks import BLOCK
from generate.server.storage.schema import SCHEMA

# Tables of the LLM accounts, which make them at their first start.
ACCOUNTS = {"llm_clients", "llm_past", "llm_facts"}
MAY_BE_NULL = {
    ("server", "utc"),
    ("server", "lost"),
    ("leases", "slurm_job"),
    ("leases", "slurm_restart"),
    ("leases", "known_good"),
    ("leases", "probe"),
    ("blames", "mark"),
    ("quarantine", "probe"),
}
LATEST_S = 1e10  # 300 years
BOUNDS = {
    "epoch": (0, LAST_EPOCH),  # it is part of the names of leases
    "size": (0, BLOCK),
    **dict.fromkeys(("utc", "time", "since", "until", "pause"), (-LATEST_S, LATEST_S)),
}
# Of 10**9 prompts each may report 10**9 images; a sum of two is still a whole number of SQLite's
OTHER_BOUNDS = {"INTEGER": (-(4 * 10**18), 4 * 10**18), "REAL": (-1e300, 1e300)}
# Of many rows: their types say enough. Done bits are numbers, whatever they are.
NOT_READ = ("answers", "blocks", "held")
WRONG = (BadField, ValueError, TypeError, KeyError, AttributeError, OverflowError)


def check_values(connection: sqlite3.Connection) -> None:
    """sqlite3.DatabaseError: a value is not what the server writes."""
    present = plain_tables(connection)
    with contextlib.closing(sqlite3.connect(":memory:")) as declared:
        declared.executescript(SCHEMA)
        own = declared.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = {table: _columns_of(declared, table) for (table,) in own}
    for table in ACCOUNTS & present:
        tables[table] = _columns_of(connection, table)
    for table, columns in tables.items():
        _check_types(connection, table, columns)
    if connection.execute("SELECT COUNT(*) FROM server").fetchone()[0] != 1:
        raise sqlite3.DatabaseError("it is no ledger of one server")
    for table in tables.keys() - set(NOT_READ):
        _check_rows(connection, table)


def _columns_of(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """{column: type}."""
    rows = connection.execute(f"PRAGMA table_info({table})")
    return {column: kind.upper() for _, column, kind, *_ in rows}


def _check_types(connection: sqlite3.Connection, table: str, columns: dict[str, str]) -> None:
    fits = []
    for column, kind in columns.items():
        test = f"typeof({column}) = '{kind.lower()}'"
        if kind in OTHER_BOUNDS:
            low, high = BOUNDS.get(column, OTHER_BOUNDS[kind])
            test += f" AND {column} BETWEEN {low} AND {high}"
        if (table, column) in MAY_BE_NULL:
            test = f"({test} OR {column} IS NULL)"
        fits.append(test)
    wrong = f"SELECT 1 FROM {table} WHERE NOT ({' AND '.join(fits)}) LIMIT 1"
    if connection.execute(wrong).fetchone():
        raise sqlite3.DatabaseError(f"a value in its table {table} is of another type")


def _check_rows(connection: sqlite3.Connection, table: str) -> None:
    """Every text can be decoded, every JSON is what its readers need."""
    cursor = connection.execute(f"SELECT * FROM {table}")
    names = [column for column, *_ in cursor.description]
    facts: dict[str, Any] = {}
    read: dict[tuple[str, str], Any] = {}  # one worker stands in many rows
    for values in cursor:
        row = dict(zip(names, values, strict=True))
        for column in JSON.keys() & names:
            try:
                if (column, row[column]) not in read:
                    value = read[column, row[column]] = parse_json(row[column])
                    JSON[column](value)
                if table == "datasets":
                    _as_defined(row, read[column, row[column]])
                elif table == "llm_facts":
                    facts[row["name"]] = read[column, row[column]]
            except WRONG:
                raise sqlite3.DatabaseError(f"{table}.{column} is damaged") from None
    try:
        _facts(facts)
    except WRONG:
        raise sqlite3.DatabaseError("llm_facts.value is damaged") from None


def _must(fits: bool) -> None:
    if not fits:
        raise ValueError


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < LATEST_S  # type: ignore[arg-type]


def _worker(value: Any) -> None:
    wire.worker(Fields({"worker": Fields(value).values}))
    _must(isinstance(value.get("host"), str | None))


def _errors(rows: Any) -> None:
    """The last errors of a worker."""
    _must(isinstance(rows, list))
    for row in rows:
        _worker(row["worker"])
        _must(_is_time(row["time"]) and isinstance(row["error"], str))


def _health(value: Any) -> None:
    for name, one in value.items():
        _must(name in ("state", "reason", "probe", "since", "pause", "probe_at"))
        if name in ("since", "pause", "probe_at"):
            _must(_is_time(one) or (one is None and name == "since"))
        else:
            _must(isinstance(one, str | None))


def _definition(value: Any) -> None:
    _must(fault_of(value) is None)


def _as_defined(row: dict[str, Any], definition: Any) -> None:
    _must((definition["name"], definition["total"]) == (row["name"], row["total"]))


def _use(value: Any) -> None:
    backends = value.get("backends") or {}
    _must(all(wire.counts_can_be_added(part) for part in (value, *backends.values())))


def _facts(facts: dict[str, Any]) -> None:
    _use(facts)
    _must(math.isfinite(facts.get("spent_before_usd", 0)))
    if "past" in facts:
        _use(facts["past"])
        _must({"granted_usd", "backends"} <= facts["past"].keys())


def _any(value: Any) -> None:
    """The facts are checked together."""


JSON = {
    "weather": _health,
    "definition": _definition,
    "worker": _worker,
    "errors": _errors,
    "use": _use,
    "value": _any,
}
