"""The fields that --scores adds to a sample's JSON: read by Arrow, kept in `extra`.

    fields = fields_of(first)          # Arrow's, for the keys that the first JSON has
    table, extra = split(found)        # without them, and their JSON a row

They are scores (an object), tries, rejected, score_versions, accept. JSONs whose scores have other
names are not of this form: the reader then takes them one by one.
"""

from collections.abc import Mapping
from typing import Any

import orjson
import pyarrow as pa

PLAIN = {"accept": pa.string(), "score_versions": pa.list_(pa.string()), "tries": pa.int64()}
SCORES = "scores"
REJECTED = "rejected"


def fields_of(first: Mapping[str, Any]) -> list[pa.Field]:
    """[] unless it has scores."""
    scores = first.get(SCORES)
    if not isinstance(scores, dict) or not scores:
        return []
    values = pa.struct([(name, pa.float64()) for name in sorted(scores)])
    kinds = PLAIN | {
        SCORES: values,
        REJECTED: pa.list_(pa.struct([("scores", values), ("seed", pa.int64())])),
    }
    return [pa.field(name, kinds[name]) for name in sorted(kinds.keys() & first.keys())]


def split(found: pa.Table) -> tuple[pa.Table, pa.Array]:
    """(the table without these columns, `extra`: their JSON with sorted keys, null without scores).

    ValueError for a number that JSON does not have.
    """
    names = [name for name in (*PLAIN, SCORES, REJECTED) if name in found.schema.names]
    if not names:
        return found, pa.nulls(found.num_rows, pa.string())
    rows = found.select(sorted(names)).to_pylist()
    extra = [None if row[SCORES] is None else orjson.dumps(row).decode() for row in rows]
    if any(text and "NaN" in text for text in extra):
        raise ValueError("NaN is no JSON")
    return found.drop_columns(names), pa.array(extra, pa.string())
