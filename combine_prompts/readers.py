"""Rows of the sources' files, one by one: (row number, text as str or bytes, None without text)."""

import csv
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from combine_prompts.prompt_files import json_list
from common.sqlite_files import open_to_read, refuse_computed

BATCH = 20_000  # rows a batch: of a table of any size only one column of so many is in memory
LONGEST_LINE = 1 << 30  # a line without its closing quote is named, not refused at 128 kB
LONGEST_VALUE = 1 << 20  # bytes of a value of a SQLite file
RELIABLE = "max_disagreement_less_0.5"  # Gecko's annotators agreed: the paper's choice
NOT_FOR_TRAINING = ("posescript", "whoops")  # kinds of Gecko's rows, by their dataset_id

Row = tuple[int, Any]


def parquet_column(path: Path, column: str) -> Iterator[Row]:
    """One column of a parquet, in batches; nothing else is read. ValueError: no such column."""
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise ValueError(f"no column {column!r}; its columns are {', '.join(names[:20])}")
        row = 0
        for batch in file.iter_batches(BATCH, columns=[column]):
            for value in _values(batch.column(0)):
                yield row, value
                row += 1


def _values(column: pa.Array) -> list[Any]:
    """The values of a column; as bytes where a text is not UTF-8."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        kind = "large_binary" if "large" in str(column.type) else "binary"
        return list(column.cast(kind).to_pylist())


def sac_generations(path: Path) -> Iterator[Row]:
    """(id, prompt as bytes) of SAC's SQLite file, opened read-only, in the order of the ids.

    Raises sqlite3.Error if the file is locked, damaged or no such database. For a value that is too
    large, a text of as many "?" comes: the processor then drops it as too long.
    """
    database = open_to_read(path, timeout_s=5)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    try:
        _refuse_computed(database)
        database.text_factory = bytes  # a prompt that is not UTF-8 is one bad row, not the end
        # one prompt at a time, 4 us more each: a value that is too large ends the query it is in
        for row, number in database.execute("SELECT rowid, id FROM generations ORDER BY id"):
            try:
                found = database.execute("SELECT prompt FROM generations WHERE rowid = ?", (row,))
                text = found.fetchone()[0]
            except sqlite3.DataError:
                text = b"?" * LONGEST_VALUE
            yield number, text
    finally:
        database.close()


def _refuse_computed(database: sqlite3.Connection) -> None:
    """sqlite3.DatabaseError if the rows are computed: they could be endless, or of any size.

    Also if a column hides SQLite's own rowid: each row would be looked for among all.
    """
    refuse_computed(database, "generations")
    columns = database.execute("SELECT name, hidden FROM pragma_table_xinfo('generations')")
    for name, hidden in columns.fetchall():
        if hidden:
            raise sqlite3.DatabaseError("generations has a column that is computed")
        if name.lower() == "rowid":
            raise sqlite3.DatabaseError("generations has a column called rowid; rename it")


def gecko_prompts(path: Path, reliable: bool = False, trainable: bool = False) -> Iterator[Row]:
    """(line number, prompt) of Gecko's CSV. ValueError: a column is missing.

    reliable: only rows whose annotators agreed. trainable: without the rows whose terms forbid
    training use.
    """
    csv.field_size_limit(LONGEST_LINE)
    needed = ["prompt", *[RELIABLE] * reliable, *["dataset_id"] * trainable]
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        names = rows.fieldnames or []
        for column in needed:
            if column not in names:
                there = ", ".join(names) or "none: the file is empty"
                raise ValueError(f"no column {column!r}; its columns are {there}")
        for row in rows:
            if reliable and row[RELIABLE] != "True":
                continue
            if trainable and (row["dataset_id"] or "").startswith(NOT_FOR_TRAINING):
                continue
            text = row["prompt"]
            yield rows.line_num, text if text is None else text.encode("utf-8", "surrogateescape")


def json_prompts(path: Path) -> Iterator[Row]:
    """(item number from 0, prompt) of a JSON list. ValueError: it is none."""
    yield from enumerate(json_list(path.read_bytes()))
