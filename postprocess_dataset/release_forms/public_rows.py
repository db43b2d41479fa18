"""The public table: the rows of a table without the fields that say where they were made.

    make_public("HPDv2.parquet", "HPDv2.work/public.parquet", PublicSettings("/data"))

Host, job and lease go, absolute paths become relative or go, a column `split` comes. The order of
the rows stays, so that the tars of a table that has grown keep theirs.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.command_line import UserError
from postprocess_dataset import increment, table
from postprocess_dataset.column_values import (
    arrow_errors,
    is_deep,
    json_column,
    json_type,
    json_values,
    values_of,
)
from postprocess_dataset.options import shares
from postprocess_dataset.private_fields import (
    TEXTS,
    is_private_name,
    tells_path,
    without_folders,
    without_private,
)
from postprocess_dataset.publish import Draft
from postprocess_dataset.shard_rows import KEY, check_columns, check_kinds
from postprocess_dataset.sorted_rows import ROW_GROUP
from postprocess_dataset.to_tars.row_order import side

PRIVATE = frozenset(["hostname", "slurm_job_id", "lease", "subdirectory"])
SPLIT = "split"
ONLY_SPLIT = "train"  # its name where there is one alone
SOURCE = b"release_of"  # in the footer: digest of the table's identity and the options


@dataclass(frozen=True)
class PublicSettings:
    """base_dir: where the images lie. split: as "train=0.98,val=0.02". keep_private: all stays."""

    base_dir: str
    split: str | None = None
    keep_private: bool = False


def make_public(source: str, output: str, settings: PublicSettings) -> None:
    """Write the public table, unless it is there already. UserError: no table of this project."""
    files = table.files(source)
    check_columns(files)
    whole = pa.unify_schemas([pq.read_schema(path) for path in files])
    if not {KEY, "caption", "original_prompt"} <= set(whole.names):
        raise UserError(
            f"{source}: no table of this project (it lacks {KEY}, caption or original_prompt); "
            "make it with convert_json_to_parquet.py"
        )
    for path in files:
        check_kinds(path)
    gone = increment.load_lines(f"{source.rstrip('/')}.gone.jsonl", KEY)
    # a digest: the footer is published, and the settings tell a path
    made_of = hashlib.sha256(f"{table.identity(source)} {settings}".encode()).hexdigest().encode()
    if not _is_made_of(output, made_of):
        _write(files, output, settings, made_of)
    if gone:
        increment.save_lines(f"{output}.gone.jsonl", [{KEY: line[KEY]} for line in gone])
    elif os.path.exists(f"{output}.gone.jsonl"):
        os.unlink(f"{output}.gone.jsonl")


def public_schema(whole: pa.Schema, keep_private: bool) -> pa.Schema:
    """The columns of the public table. The first are what most readers want."""
    first = ("caption", "original_prompt", KEY)
    names = [*first, *(name for name in whole.names if name not in (*first, SPLIT))]
    kept = [name for name in names if keep_private or not (name in PRIVATE or tells_path(name))]
    ours = table.schema()
    fields = [
        ours.field(name)
        if name in ours.names and pa.types.is_null(whole.field(name).type)
        else pa.field(name, public_type(json_type(whole.field(name).type), keep_private))
        for name in kept
    ]
    return pa.schema([*fields, pa.field(SPLIT, pa.string())])


def public_type(kind: pa.DataType, keep_private: bool) -> pa.DataType:
    """A json_type() without the fields of structs whose names are private."""
    if keep_private or not pa.types.is_nested(kind):
        return kind
    if pa.types.is_list(kind):
        return pa.list_(public_type(kind.value_type, keep_private))
    named = [field for field in kind if not is_private_name(field.name)]
    fields = [pa.field(field.name, public_type(field.type, keep_private)) for field in named]
    return pa.struct(fields) if fields else pa.string()  # no parquet file has an empty struct


def _is_made_of(path: str, made_of: bytes) -> bool:
    try:
        return (pq.read_metadata(path).metadata or {}).get(SOURCE) == made_of
    except (OSError, pa.ArrowException):  # none yet; a torn one cannot be, and is made again
        return False


def _write(files: Sequence[str], output: str, settings: PublicSettings, made_of: bytes) -> None:
    schema = public_schema(pq.read_schema(files[0]), settings.keep_private)
    sides = shares(settings.split) if settings.split else {ONLY_SPLIT: 1.0}
    base = os.path.abspath(settings.base_dir)
    with Draft(output, wait=True) as draft:
        with pq.ParquetWriter(
            draft.file, schema.with_metadata({SOURCE: made_of}), compression="zstd"
        ) as writer:
            for path in files:
                for batch in table.read_rows([path], batch_size=ROW_GROUP):
                    row_group = []
                    for field in schema:
                        with arrow_errors(path, field.name):
                            row_group.append(_public_column(batch, field, sides, base, settings))
                    writer.write_table(pa.Table.from_arrays(row_group, schema=schema))
        draft.publish()


def _public_column(
    batch: pa.RecordBatch,
    field: pa.Field,
    sides: dict[str, float],
    base: str,
    settings: PublicSettings,
) -> pa.Array:
    if field.name == SPLIT:
        prompts = values_of(batch["original_prompt"])
        return pa.array([side(text or "", sides) for text in prompts])
    found = batch[field.name]
    if not settings.keep_private and is_deep(found.type):
        return json_values(without_private(values_of(found)), field.type)
    column = json_column(found, field.type)
    return column if settings.keep_private else _without_places(field.name, column, base)


def _without_places(name: str, column: pa.Array, base: str) -> pa.Array:
    """Paths and `extra` of a column as they may be published."""
    if name == "image_path":
        return _each(column, lambda path: relative(path, base))
    if name == "extra":
        return _each(column, public_extra)
    if name in ("model_name", "input_file"):
        return _each(column, without_folders)
    if name not in (*TEXTS, KEY) and pa.types.is_string(column.type) and _has_slashes(column):
        return _each(column, lambda text: None if tells_path(text) else text)
    if column.type == pa.list_(pa.string()) and _has_slashes(column.flatten()):
        rows = [without_folders(texts) for texts in values_of(column)]
        return pa.array(rows, pa.list_(pa.string()))
    return column


def _each(column: pa.Array, change: Callable[[Any], str | None]) -> pa.Array:
    """Texts, each different one changed once."""
    texts = column.dictionary_encode()
    changed = [None if text is None else change(text) for text in values_of(texts.dictionary)]
    return pa.array(changed, pa.string()).take(texts.indices)


def _has_slashes(column: pa.Array) -> bool:
    """Whether any text of a column may tell a path: each has one of these signs."""
    return any(
        pc.any(pc.match_substring(column, sign), min_count=0).as_py() for sign in ("/", "\\")
    )


def relative(path: Any, base: str) -> str | None:
    """A path relative to `base`; unchanged if it is relative already; None if it lies elsewhere."""
    if not isinstance(path, str) or not path.startswith("/"):
        return path if isinstance(path, str) else None
    below = os.path.relpath(path, base)
    return None if below.startswith("..") else below


def public_extra(text: Any) -> str | None:
    """The unknown keys of a sample without private ones and absolute paths, at any depth."""
    try:
        extra = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None  # of a foreign table: it may hold anything
    try:
        kept = without_private(extra) if isinstance(extra, dict) else None
        return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode() if kept else None
    except (orjson.JSONEncodeError, RecursionError):  # 254 levels are written, 1,024 are read
        return None
