"""The parquet table: its columns, its files, its metadata, reading rows by number.

    for batch in read_rows(files("out.parquet"), 10_000, 20_000): ...

A table is one parquet file, or (from `--part`) a directory of part files with one schema, read in
the order of their names.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.command_line import UserError
from common.console import visible
from common.untrusted import open_untrusted, real_folders
from postprocess_dataset.progress import first_line

BATCH = 4096  # rows read at a time
KEY = b"text_to_image_dataset"  # the table's own facts in the parquet footer
# name: (type, may be null): every field that a sample's JSON can hold. The first 14 are the
# published ones; a sample without a value for a "not null" one is rejected.
JSON_FIELDS = {
    "prompt_index": ("int", False),
    "augmentation_idx": ("int", False),
    "original_prompt": ("str", False),
    "augmented_prompt": ("str", False),
    "is_augmented": ("bool", False),
    "model_name": ("str", False),
    "llm_model_name": ("str", True),
    "height": ("int", False),
    "width": ("int", False),
    "input_file": ("str", False),
    "hostname": ("str", True),
    "image_path": ("str", True),
    "gpu_name": ("str", True),
    "generation_timestamp": ("str", True),
    "source": ("list of str", True),
    "seed": ("int", True),
    "num_inference_steps": ("int", True),
    "guidance_scale": ("float", True),
    "dtype": ("str", True),
    "batch_size": ("int", True),
    "library_versions": ("str", True),
    "image_sha256": ("str", True),
    "slurm_job_id": ("str", True),
    "lease": ("str", True),
    "version": ("str", True),
    "negative_prompt": ("str", True),
    "jpeg_quality": ("int", True),
    "text_tokens": ("list of str", True),
    "truncated": ("list of str", True),
    "model_commit": ("str", True),
    "left_out": ("list of str", True),
    "scheduler": ("str", True),
    "lora": ("list of str", True),
    "quantize": ("str", True),
    "quantize_args": ("str", True),
    "compiled": ("bool", True),
    "attention_backend": ("str", True),
    "offload": ("str", True),
    "vae_slicing": ("bool", True),
}
ARROW_TYPES = {
    "int": pa.int64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "float": pa.float64(),
    "list of str": pa.list_(pa.string()),
}
# The sample JSON's known keys.
JSON_SCHEMA = pa.schema([(name, ARROW_TYPES[kind]) for name, (kind, _) in JSON_FIELDS.items()])


class NotUpdatable(UserError):
    """A table that cannot be updated, and `why`; what to do is said by the script that is used."""

    def __init__(self, why: str, advice: str = "--rebuild it") -> None:
        super().__init__(f"{why}; {advice}")
        self.why = why


def row_schema(scores: Sequence[str] = ()) -> pa.Schema:
    """A row before it has a number: those keys, `extra` (a JSON object of the unknown ones),
    `score_NAME` of each score, and ours.
    """
    return pa.schema(
        [pa.field(each.name, each.type, nullable=JSON_FIELDS[each.name][1]) for each in JSON_SCHEMA]
        + [pa.field("extra", pa.string())]
        + [pa.field(f"score_{name}", pa.float64()) for name in scores]
        + [
            pa.field("__key__", pa.string(), nullable=False),
            pa.field("caption", pa.string(), nullable=False),
            pa.field("subdirectory", pa.string(), nullable=False),
        ]
    )


def schema(scores: Sequence[str] = ()) -> pa.Schema:
    """The table's."""
    return row_schema(scores).append(pa.field("idx", pa.int64(), nullable=False))


def refuse_no_utf8(path: str) -> None:
    """UserError for a name that Arrow cannot open: a table could be written there, and not read."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{visible(path)}: this name is not UTF-8; choose another") from None


def files(path: str | os.PathLike[str]) -> list[str]:
    """The parquet files of a table in the order of its rows. UserError when there is none."""
    path = str(path)
    refuse_no_utf8(path)
    found = [path]
    inside: tuple[str, ...] = ()
    if os.path.isdir(path):
        inside = real_folders([path])
        found = sorted(
            os.path.join(path, name)
            for name in os.listdir(path)
            if name.endswith(".parquet") and not name.startswith(".")
        )
    try:
        for name in found:
            os.close(open_untrusted(name, inside))
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise UserError(f"{visible(name)}: no table: {error.strerror}") from None
    if not found:
        raise UserError(
            f"{path}: no such table; make it with convert_json_to_parquet.py DIR {path}"
        )
    return found


def partition_path(output: str, number: int, count: int) -> str:
    """The file of partition `number` of `count`, until they are put together."""
    return os.path.join(f"{output}.parts", f"part-{number:05d}-of-{count:05d}.parquet")


def footer(path: str) -> pq.FileMetaData:
    """The metadata of a parquet file. UserError: no parquet file, a pipe or device, or damaged."""
    try:
        os.close(open_untrusted(path))  # Arrow would wait for the writer of a pipe
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise UserError(f"{path} cannot be read as a parquet file: {first_line(error)}") from None


def facts(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The facts that a table of this project has in its footer; None for a foreign table.

    {"base", "relative", "generations": [rows of the first run, rows of each --update]}, and of a
    table with columns score_NAME their names in "scores".
    """
    parts = [_facts_in((footer(name).metadata or {}).get(KEY, b"")) for name in files(path)]
    if None in parts:
        return None
    known = [part for part in parts if part is not None]
    return {**known[0], "generations": [rows for part in known for rows in part["generations"]]}


def _facts_in(note: bytes) -> dict[str, Any] | None:
    """The facts in a footer, if they have the right form."""
    try:
        part = orjson.loads(note)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(part, dict) or type(part.get("relative")) is not bool:
        return None
    rows = part.get("generations")
    good = isinstance(rows, list) and all(type(n) is int and n >= 0 for n in rows)
    scores = part.get("scores", [])
    good = good and isinstance(scores, list) and all(type(name) is str for name in scores)
    return part if good and isinstance(part.get("base"), str) else None


def identity(path: str | os.PathLike[str]) -> str:
    """sha256 over the footers of the table's files; tells tables apart.

    The state beside a table names the table by it.
    """
    digest = hashlib.sha256()
    for name in files(path):
        footer(name)  # it is one
        with os.fdopen(open_untrusted(name), "rb") as file:
            file.seek(-footer_size(file), os.SEEK_END)
            digest.update(file.read())
    return digest.hexdigest()


def read_rows(
    paths: Sequence[str],
    start: int = 0,
    stop: int | None = None,
    columns: list[str] | None = None,
    batch_size: int = BATCH,
) -> Iterator[pa.RecordBatch]:
    """Yield batches that together are the rows [start, stop) of the files.

    Row groups outside are not read.
    """
    last = sys.maxsize if stop is None else stop
    end = 0  # row number after the row groups looked at so far
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            groups = []
            position = -1
            for group in range(file.metadata.num_row_groups):
                begin = end
                end = begin + file.metadata.row_group(group).num_rows
                if begin < last and end > start:
                    groups.append(group)
                    position = begin if position < 0 else position
            if not groups:
                continue
            for batch in file.iter_batches(
                batch_size, row_groups=groups, columns=columns, use_threads=False
            ):
                begin = position
                position += len(batch)
                if position > start and begin < last:
                    skipped = max(0, start - begin)
                    yield batch.slice(skipped, min(position, last) - begin - skipped)


def footer_size(file: BinaryIO) -> int:
    """Bytes of an open parquet file's footer, with its length and magic."""
    file.seek(-8, os.SEEK_END)
    return int.from_bytes(file.read(4), "little") + 8


def key_of(subdirectory: str, stem: str) -> str:
    """A sample's `__key__`.

    A dot in its last part would split it in a tar, so it is written %2E (and % as %25).
    """
    if "." in stem or "%" in stem:
        stem = stem.replace("%", "%25").replace(".", "%2E")
    return f"{subdirectory}/{stem}"


def keys_of(subdirectory: str, stems: pa.StringArray) -> pa.StringArray:
    """key_of() of many samples of a folder."""
    for letter, written in (("%", "%25"), (".", "%2E")):
        stems = pc.replace_substring(stems, letter, written)
    return pc.binary_join_element_wise(f"{subdirectory}/", stems, "")


def stem_of(key: str) -> tuple[str, str]:
    """(subdirectory, stem) of a `__key__`."""
    subdirectory, stem = key.rsplit("/", 1)
    return subdirectory, stem.replace("%2E", ".").replace("%25", "%")
