"""Turn the rows of any table into samples of a tar: key, caption, metadata as JSON.

for sample in samples(batch, first_row): …
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from common.command_line import UserError
from common.console import visible
from postprocess_dataset import table
from postprocess_dataset.column_values import in_json, values_of

KEY = "__key__"
OWN = (KEY, "caption", "extra")  # in the tar as names, as .txt, and merged into .json


class Sample(NamedTuple):
    """One row on its way into a tar."""

    key: str
    caption: Any
    metadata: bytes  # JSON
    sha256: str | None
    image_path: str | None
    fault: str | None  # why it cannot be taken, if that is known already


def samples(batch: pa.RecordBatch, first: int) -> Iterator[Sample]:
    """Yield a batch's rows; `first`: the number of the first one in the table."""
    values = {
        name: values_of(column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    none = [None] * len(batch)
    texts = zip(values.get("caption", none), values.get("augmented_prompt", none), strict=True)
    captions = [caption or text for caption, text in texts]
    extras, sums, paths = (
        values.get(name, none) for name in ("extra", "image_sha256", "image_path")
    )
    kept = [name for name in values if name not in OWN]
    columns = (values[name] for name in kept)
    for key, caption, extra, sha256, path, *row in zip(
        row_keys(batch, first), captions, extras, sums, paths, *columns, strict=True
    ):
        # five nulls (or []) make `datasets` choose the type null, and the sixth sample fails
        record = {name: v for name, v in zip(kept, row, strict=True) if v is not None and v != []}
        fault = None
        metadata = b""
        try:
            if extra:
                for name, value in orjson.loads(extra).items():
                    if value is not None and value != []:
                        record.setdefault(name, value)
            # dates as ISO 8601; NaN inside a list as null
            metadata = orjson.dumps(record, default=in_json)
        except (orjson.JSONDecodeError, AttributeError):
            fault = "extra is not a JSON object"
        except orjson.JSONEncodeError as error:
            fault = f"its values cannot be written as JSON: {error}"
        yield Sample(key, caption, metadata, sha256, path, fault)


def row_keys(batch: pa.RecordBatch, first: int) -> list[str]:
    """The rows' keys in a tar: `__key__`, or the row's number in a table that has none.

    No dot in the last part.
    """
    if KEY not in batch.schema.names:
        return [f"{row:09d}" for row in range(first, first + len(batch))]
    return [
        key
        if not key or "." not in key.rsplit("/", 1)[-1]
        else table.key_of(*f"/{key}".rsplit("/", 1))[1:]
        for key in values_of(batch[KEY])
    ]


def columns_of(files: Sequence[str]) -> dict[str, pa.DataType]:
    """{name: Arrow type} of a table."""
    return {field.name: field.type for field in schema_of(files[0])}


def schema_of(path: str) -> pa.Schema:
    """Of a parquet file; UserError when it is none."""
    return table.footer(path).schema.to_arrow_schema()


def check_columns(files: Sequence[str]) -> None:
    """UserError unless all files have the same columns, and key and image_path are text."""
    first = columns_of(files)
    for path in files:
        columns = columns_of([path])
        if columns.keys() != first.keys() or len(columns) != len(schema_of(path)):
            raise UserError(f"{path}: its columns are not those of {files[0]}, or occur twice")
        for name in (KEY, "image_path"):
            if name in columns and not is_text(columns[name]):
                raise UserError(f"{path}: its column {name} is {columns[name]}, not text")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type gives text, or nothing."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null
    return any(test(kind) for test in text)


def fits(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column of another writer's type gives the same Python values, or none."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(wanted):
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return pa.types.is_null(kind) or (lists and fits(kind.value_type, wanted.value_type))
    if pa.types.is_string(wanted):
        return is_text(kind)
    tests = [pa.types.is_null, pa.types.is_integer]
    if pa.types.is_floating(wanted):
        tests.append(pa.types.is_floating)
    if pa.types.is_boolean(wanted):
        tests = [pa.types.is_null, pa.types.is_boolean]
    return any(test(kind) for test in tests)


def check_kinds(path: str) -> None:
    """UserError where a column that we know has values of another kind than our tables give it."""
    known = {field.name: field.type for field in table.schema()}
    for field in schema_of(path):
        if field.name in known and not fits(field.type, known[field.name]):
            raise UserError(
                f"{path}: its column {field.name} is {visible(str(field.type), 80)}, "
                f"not {known[field.name]}"
            )


def check_unique(files: Sequence[str]) -> None:
    """UserError if a key occurs twice: readers then fail, or mix two samples.

    Costs 8 bytes a row.
    """
    if KEY not in columns_of(files):
        return
    row = 0
    hashes: list[Any] = [np.empty(0, np.int64)]
    for batch in table.read_rows(files, columns=[KEY]):
        hashes.append(np.fromiter(map(hash, row_keys(batch, row)), np.int64, len(batch)))
        row += len(batch)
    found, counts = np.unique(np.concatenate(hashes), return_counts=True)
    twice = set(found[counts > 1].tolist())
    if not twice:
        return
    seen: dict[str, int] = {}
    row = 0
    for batch in table.read_rows(files, columns=[KEY]):
        for key in row_keys(batch, row):
            if hash(key) in twice:
                if key in seen:
                    raise UserError(
                        f"{files[0]}: the key '{visible(key)}' occurs twice "
                        f"(rows {seen[key]} and {row}); keys must be unique"
                    )
                seen[key] = row
            row += 1


def digest_rows(files: Sequence[str], borders: Iterable[int]) -> dict[int, str]:
    """{border: sha256 over the values of the rows before it}.

    Independent of how the table is split into files and row groups. About 3 s for a million rows.
    """
    digest = hashlib.sha256(repr(schema_of(files[0]).names).encode())
    found = {}
    row = 0
    for border in sorted(set(borders)):
        for batch in table.read_rows(files, row, border):
            lines = pc.binary_join_element_wise(
                *map(as_text, batch.columns),
                pa.scalar(""),
                "\x1f",
                null_handling="replace",
                null_replacement="\x00",
            )
            digest.update(lines.buffers()[2] or b"")
        found[border] = digest.hexdigest()
        row = border
    return found


def as_text(column: pa.Array) -> pa.Array:
    """Any column as one of strings."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == pa.list_(pa.string()):
        return pc.binary_join(column, "\x1e")
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        values = [None if value is None else repr(value) for value in values_of(column)]
        return pa.array(values, pa.string())
    return column.cast(pa.string())
