"""The values of columns of any Arrow type, as Python and JSON know them.

    values_of(batch["caption"])             # a list; what is no text in UTF-8 is None
    json_column(batch["day"])               # of dates: their text; of text and numbers: as it is
    with arrow_errors(path, "caption"): …   # what Arrow cannot do is one line

A table of another hand may hold anything: Arrow reads it, and fails when a value is looked at.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from common.command_line import UserError
from common.console import visible
from postprocess_dataset.progress import first_line

ARROW_ERRORS = (pa.ArrowException, UnicodeError, OverflowError)
PLAIN = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


@contextmanager
def arrow_errors(path: str, column: str = "") -> Iterator[None]:
    """UserError, naming table and column, for what Arrow cannot read, convert or hold."""
    try:
        yield
    except ARROW_ERRORS as error:
        what = f"its column {visible(column, 80)}" if column else "its rows"
        raise UserError(f"{path}: {what} cannot be read: {first_line(error)}") from None


def values_of(column: pa.Array) -> list[Any]:
    """A column's values as Python and JSON know them; text that is not UTF-8 is None."""
    if pa.types.is_dictionary(column.type):  # decoded, a few kilobytes can be many gigabytes
        values = values_of(column.dictionary)
        return [None if place is None else values[place] for place in column.indices.to_pylist()]
    column = _readable(column)
    try:
        return list(column.to_pylist())
    except (*ARROW_ERRORS, ValueError):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    """A value alone: a date that Python has none for as text, what cannot be read as None."""
    try:
        return scalar.as_py()
    except (*ARROW_ERRORS, ValueError):
        try:
            return scalar.cast(pa.string()).as_py()
        except (*ARROW_ERRORS, ValueError):
            return None


def _readable(column: pa.Array) -> pa.Array:
    # older pandas writes nanoseconds; a datetime holds microseconds
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    if pa.types.is_floating(column.type):
        wide = column.cast(pa.float64()) if pa.types.is_float16(column.type) else column
        column = pc.if_else(pc.is_finite(wide), wide, None)  # NaN and infinity are no JSON
    return column


def in_json(value: Any) -> str:
    """For orjson: values of foreign tables that JSON does not have.

    Bytes become hexadecimal digits, durations and decimals text.
    """
    return value.hex() if isinstance(value, bytes) else str(value)


def json_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values after JSON: dates, bytes, decimals and the like are text."""
    if pa.types.is_dictionary(kind):
        return json_type(kind.value_type)
    if any(test(kind) for test in LISTS):
        return pa.list_(json_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, json_type(field.type)) for field in kind])
    if pa.types.is_float16(kind):
        return pa.float32()
    return kind if any(test(kind) for test in PLAIN) else pa.string()


def is_deep(kind: pa.DataType) -> bool:
    """Whether its values hold others or bytes; a list of texts is flat."""
    if pa.types.is_dictionary(kind):
        return is_deep(kind.value_type)
    if any(test(kind) for test in LISTS):
        return pa.types.is_nested(kind.value_type) or is_deep(kind.value_type)
    return pa.types.is_nested(kind) or any(test(kind) for test in BYTES)


def json_column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as one of `kind`, which is its json_type(). ARROW_ERRORS: it cannot be."""
    if column.type == kind:
        return column
    plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if any(test(plain) for test in (*PLAIN, pa.types.is_large_string, pa.types.is_null)):
        return column.cast(kind)
    return json_values(values_of(column), kind)


def json_values(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values of Python as a column of `kind`, a json_type(). ARROW_ERRORS: they cannot be."""
    values = orjson.loads(orjson.dumps(values, default=in_json))
    if pa.types.is_string(kind):
        values = [
            value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
            for value in values
        ]
    return pa.array(values, kind)
