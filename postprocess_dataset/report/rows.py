"""Read a table for a report: counts over many rows, and some prompts with all their rows.

    seen = look(table.files("HPDv2.parquet"))
    seen.counts["source"], seen.prompts[0].rows[0]["caption"]

A table of up to GROUPS row groups (2 million rows) is counted whole. Of a larger one GROUPS row
groups are read, evenly spread, so that the time does not grow with the table.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.command_line import UserError
from postprocess_dataset import table
from postprocess_dataset.column_values import arrow_errors, values_of
from postprocess_dataset.row_filter import RowFilter
from postprocess_dataset.shard_rows import KEY, is_text, schema_of

GROUPS = 128  # row groups of 16,384 rows
TEXTS = 20_000  # rows whose texts are read
COUNTED = ("source", "llm_model_name", "model_name", "gpu_name", "is_augmented", "input_file")
SIZE = ("width", "height")
LONGEST = 1 << 16  # characters of a caption
TEXT = {KEY, "image_path", "image_sha256", "caption", "original_prompt", "source"}
TEXT |= {"llm_model_name", "model_name", "gpu_name", "input_file"}
Row = dict[str, Any]


@dataclass
class Prompt:
    """One prompt with its rows, in the order of the table; `original` is its text."""

    original: str
    rows: list[Row]

    @property
    def variations(self) -> list[str]:
        """The captions that an LLM wrote."""
        return [row["caption"] for row in self.rows if row.get("is_augmented")]


@dataclass
class Seen:
    """rows: of the table; counted: those that the counts are of; sizes: by (width, height)."""

    rows: int
    counted: int = 0
    counts: dict[str, Counter[Any]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    prompts: list[Prompt] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether every row was counted."""
        return self.counted == self.rows

    def texts(self) -> list[Row]:
        """The rows whose texts were read."""
        return [row for prompt in self.prompts for row in prompt.rows]


def look(files: Sequence[str], seed: int = 0, where: RowFilter | None = None) -> Seen:
    """Read a table's counts and some of its prompts. UserError: it has no captions or no rows.

    where: only the rows that it takes; how many they are is then an estimate for a table of which a
    part is read.
    """
    groups = [
        (path, number)
        for path in files
        for number in range(table.footer(path).num_row_groups)
        if table.footer(path).row_group(number).num_rows
    ]
    seen = Seen(sum(table.footer(path).num_rows for path in files))
    names = pq.read_schema(files[0]).names
    if not {KEY, "caption"} <= set(names) or not groups:
        raise UserError(
            f"{files[0]}: no table of this project, or one without rows; make it with "
            "convert_json_to_parquet.py"
        )
    for path in files:
        check_types(path)
    chance = random.Random(seed)
    chosen = _spread(groups, chance)
    wanted = max(1, TEXTS // len(chosen))
    read = 0
    for path, number in chosen:
        with arrow_errors(path), pq.ParquetFile(path, pre_buffer=False) as file:
            _count(file, number, names, seen, where)
            rows = file.metadata.row_group(number).num_rows
            read += rows
            start = chance.randrange(max(1, rows - wanted + 1))
            seen.prompts += _prompts(file, number, start, wanted, where)
    if where:
        seen.rows = round(seen.rows * seen.counted / read)
    elif not seen.prompts:
        raise UserError(f"{files[0]}: no row has key and caption")
    return seen


def check_types(path: str) -> None:
    """UserError where a column that is read has another type than our tables give it."""
    for column in schema_of(path):
        kind = column.type
        if column.name == "source" and pa.types.is_list(kind):
            kind = kind.value_type
        if column.name in TEXT and not is_text(kind):
            raise UserError(f"{path}: its column {column.name} is {column.type}, not text")
        if column.name == "is_augmented" and pa.types.is_nested(kind):
            raise UserError(f"{path}: its column is_augmented is {kind}, not true or false")
        if column.name in SIZE and not pa.types.is_integer(kind):
            raise UserError(f"{path}: its column {column.name} is {kind}, not a whole number")


def _spread(groups: list[tuple[str, int]], chance: random.Random) -> list[tuple[str, int]]:
    """At most GROUPS of them, one from each of as many equal parts."""
    if len(groups) <= GROUPS:
        return groups
    part = len(groups) / GROUPS
    return [groups[int((place + chance.random()) * part)] for place in range(GROUPS)]


def _count(
    file: pq.ParquetFile, group: int, names: list[str], seen: Seen, where: RowFilter | None
) -> None:
    columns = [name for name in (*COUNTED, *SIZE) if name in names]
    needed = columns if where is None else names  # the expression may name any column
    for batch in file.iter_batches(65536, row_groups=[group], columns=needed, use_threads=False):
        batch = batch.filter(where.mask(batch)) if where else batch
        seen.counted += len(batch)
        for name in COUNTED:
            if name in columns:
                found = seen.counts.setdefault(name, Counter())
                found.update(count_values(batch[name]))
        if set(SIZE) <= set(columns):
            seen.sizes.update(count_sizes(batch))


def count_sizes(batch: pa.RecordBatch) -> Counter[tuple[int, int]]:
    """How often each (width, height) stands in a batch; not where one of them is missing."""
    width, height = (batch[name].cast(pa.int64()) for name in SIZE)
    counts = count_values(pc.add(pc.shift_left(width, 32), height))
    del counts[None]
    return Counter({(both >> 32, both & 0xFFFFFFFF): count for both, count in counts.items()})


def count_values(column: pa.Array) -> Counter[Any]:
    """How often each value stands in a column; in one of lists each item counts."""
    if pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    found = pc.value_counts(column)
    counts: Counter[Any] = Counter()
    values = values_of(found.field("values"))
    for value, count in zip(values, found.field("counts").to_pylist(), strict=True):
        counts[value] += count  # all that is no text is None
    return counts


def _prompts(
    file: pq.ParquetFile, group: int, start: int, wanted: int, where: RowFilter | None
) -> Iterator[Prompt]:
    """The prompts of the rows [start, start + wanted) of a row group.

    A prompt that the first or the last row may cut in two is left out, unless it is the only one.
    """
    known = set(file.schema_arrow.names)
    left_out = {"library_versions", "lease", "slurm_job_id", "subdirectory"} if not where else set()
    rows: list[Row] = []
    passed = 0
    for batch in file.iter_batches(
        2048, row_groups=[group], columns=sorted(known - left_out), use_threads=False
    ):
        first = max(0, start - passed)
        passed += len(batch)
        if first < len(batch):
            some = batch.slice(first, wanted - len(rows))
            rows += _records(some.filter(where.mask(some)) if where else some)
        if len(rows) >= wanted:
            break
    prompts: list[Prompt] = []
    for row in rows:
        original = row.get("original_prompt") or row["caption"]
        if not prompts or prompts[-1].original != original:
            prompts.append(Prompt(original, []))
        prompts[-1].rows.append(row)
    total = file.metadata.row_group(group).num_rows
    if len(prompts) > 2 and len(rows) < total:
        prompts = prompts[1 if start else 0 : -1]
    yield from prompts


def _records(batch: pa.RecordBatch) -> list[Row]:
    """Rows as dicts; what `extra` holds stands among the columns."""
    columns = [values_of(column) for column in batch.columns]
    found = []
    for values in zip(*columns, strict=True):
        row = dict(zip(batch.schema.names, values, strict=True))
        if not (_short(row[KEY]) and _short(row["caption"])):
            continue
        extra = _extra(row.pop("extra", None))
        found.append({**extra, **row})
    return found


def _short(text: Any) -> bool:
    """Whether it is a text that a sample can have: no JPEG carries a longer one."""
    return isinstance(text, str) and len(text) <= LONGEST


def _extra(text: Any) -> Row:
    try:
        extra = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:  # of a foreign table; the row itself counts
        return {}
    if not isinstance(extra, dict):
        return {}
    return {
        name: value
        for name, value in extra.items()
        if name not in TEXT or isinstance(value, str) or (name, type(value)) == ("source", list)
    }
