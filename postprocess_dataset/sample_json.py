"""Parse the JSONs of samples into rows with the table's columns; each fault is named.

rows, kept, reasons = parse([Piece(b'{"prompt_index": 12345, …}'), Piece(b""), …])

A chunk is parsed by pyarrow as one text; one with anything out of the ordinary is parsed again file
by file, which names each fault.
"""

import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from common.json_form import number
from postprocess_dataset import score_fields, table

Content = bytes | OSError  # of a file
Parsed = tuple[pa.Table, Sequence[int], dict[int, str]]
NOT_NEGATIVE = ("prompt_index", "augmentation_idx")
INT64 = range(-1 << 63, 1 << 63)
PLAIN = {"float": float, "bool": bool, "str": str}
FIELDS = [(name, *kind, PLAIN.get(kind[0])) for name, kind in table.JSON_FIELDS.items()]


class Piece(NamedTuple):
    """The content of a file: one object, or of a .samples `rows` of them, one a line."""

    content: Content
    rows: int = 1


def parse(pieces: Sequence[Piece]) -> Parsed:
    """(table of the JSON's columns and `extra`, rows kept, {row: reason}) of the files' bytes."""
    contents = [content for content, _ in pieces]
    clean = parse_together(contents, sum(rows for _, rows in pieces))
    if clean is not None:
        return clean, range(clean.num_rows), {}
    apart: list[Content] = []
    for content, rows in pieces:
        if rows > 1 and isinstance(content, bytes):
            apart += content.split(b"\n")[:rows]
        else:
            apart.append(content)
    return parse_apart(apart)


def parse_together(contents: Sequence[Content], rows: int = 0) -> pa.Table | None:
    """The table; None when any file is not plain objects of known keys.

    Then only parse_apart() can say which. Every file begins with an object and no known key holds
    one, so as many rows as files means a row a file. `rows`: where files hold several, one a line;
    those are compared with their names later.
    """
    plain = [c for c in contents if type(c) is bytes and c[:1] == b"{"]
    if len(plain) < len(contents):
        return None
    rows = rows or len(plain)
    first = plain[0] if rows == len(plain) else plain[0].split(b"\n", 1)[0]
    text = b"\n".join(plain)
    try:
        one = orjson.loads(first)
        keys = one.keys()
        # a column asked for that no file has costs 0.3 us a row
        known = [field for field in table.JSON_SCHEMA if field.name in keys]
        asked = pa.schema(known + score_fields.fields_of(one))
        found = pa.json.read_json(
            pa.BufferReader(text),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pa.json.ParseOptions(
                explicit_schema=asked, unexpected_field_behavior="error"
            ),
        )
        found.validate(full=True)  # text is UTF-8
    except (pa.ArrowInvalid, orjson.JSONDecodeError):
        return None
    if found.num_rows != rows:
        return None
    for name, (kind, nullable) in table.JSON_FIELDS.items():
        if name not in keys:
            nulls = pa.nulls(found.num_rows, table.ARROW_TYPES[kind])
            found = found.append_column(name, nulls)
        if not nullable and found[name].null_count:
            return None
    if any(pc.min(found[name]).as_py() < 0 for name in NOT_NEGATIVE):
        return None
    for name, (kind, _) in table.JSON_FIELDS.items():
        # NaN and Infinity are no JSON, but Arrow takes them. min_count: of nothing but nulls (the
        # published form has no such key) all are finite, too.
        if kind == "float" and not pc.all(pc.is_finite(found[name]), min_count=0).as_py():
            return None
        if kind == "list of str" and pc.list_flatten(found[name]).null_count:
            return None
    found, extra = score_fields.split(found)
    return found.append_column("extra", extra)


def parse_apart(contents: Sequence[Content]) -> Parsed:
    """The same, file by file."""
    kept = []
    records = []
    reasons = {}
    for row, content in enumerate(contents):
        record, fault = parse_one(content)
        if fault:
            reasons[row] = fault
        else:
            kept.append(row)
            records.append(record)
    whole = table.JSON_SCHEMA.append(pa.field("extra", pa.string()))
    columns = {
        field.name: pa.array([record.get(field.name) for record in records], field.type)
        for field in whole
    }
    return pa.table(columns, schema=whole), kept, reasons


def parse_one(content: Content) -> tuple[dict[str, Any], str | None]:
    """({key: value} with `extra`, None), or ({}, why it is no sample)."""
    if isinstance(content, OSError):
        return {}, f"cannot be read: {content.strerror}"
    try:
        record = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return {}, "an empty file" if not content else f"not JSON: {error}"
    if fault := fault_of(record):
        return {}, fault
    unknown = {name: record[name] for name in record.keys() - table.JSON_FIELDS.keys()}
    try:
        extra = orjson.dumps(unknown, option=orjson.OPT_SORT_KEYS).decode() if unknown else None
    except orjson.JSONEncodeError as error:  # 254 levels are written, 1,024 are read
        return {}, f"its unknown keys cannot be kept: {error}"
    known = {name: record[name] for name in record.keys() & table.JSON_FIELDS.keys()}
    return known | {"extra": extra}, None


def fault_of(record: Any) -> str | None:
    """Why a parsed JSON is no sample, or None.

    A `source` that is one string becomes a list of it, a whole number where a float belongs a float
    (Arrow takes no integer beyond 2**53 for one).
    """
    if not isinstance(record, dict):
        return "not a JSON object"
    if isinstance(record.get("source"), str):
        record["source"] = [record["source"]]
    for name, kind, nullable, plain in FIELDS:
        value = record.get(name)
        if type(value) is plain:
            continue
        if value is None:
            if not nullable:
                return f"{name} is {'null' if name in record else 'missing'}"
            continue
        if kind == "float" and type(value) is int and number(value):
            record[name] = value = float(value)
        if fault := _value_fault(name, kind, value):
            return (
                f"{name} is {reprlib.repr(value):.60}, not {fault}"  # repr() stops at 1,000 levels
            )
    return None


def _value_fault(name: str, kind: str, value: Any) -> str | None:
    """What a value should have been, or None if it is right."""
    if kind == "int":
        if type(value) is not int:
            return "a whole number"
        return "in range" if value not in INT64 or (value < 0 and name in NOT_NEGATIVE) else None
    if kind == "list of str":
        good = isinstance(value, list) and all(type(part) is str for part in value)
    else:
        good = type(value) is PLAIN[kind]
    return None if good else f"a {kind}"
