"""Sort and number rows that come in any order, into one parquet file.

Memory is constant, and the same rows give the same bytes.

with SortedRows("out.parquet", facts) as rows:
    rows.add(sorted piece) …
    rows.publish([number of rows])
"""

import bisect
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.command_line import UserError
from common.untrusted import open_untrusted
from postprocess_dataset import table
from postprocess_dataset.publish import Draft

# Rows, 10-20 MB decoded: small enough that a tar worker decodes few rows that it does not need.
ROW_GROUP = 16384
MERGE_BATCH = 1024  # rows held of each run while up to 64 are merged
MAX_RUNS = 32  # more are merged into one at once: each open run holds a file and a few MB
ORDER = ("input_file", "prompt_index", "augmentation_idx", "__key__")
DICTIONARY = [
    "model_name",
    "llm_model_name",
    "input_file",
    "hostname",
    "gpu_name",
    "dtype",
    "library_versions",
    "slurm_job_id",
    "lease",
    "subdirectory",
    "original_prompt",
]


class Writer(pq.ParquetWriter):  # type: ignore[misc]
    """A ParquetWriter that does nothing when it is garbage collected.

    pyarrow's would try to finish the file on a full disk, and print a traceback.
    """

    def __del__(self) -> None:
        pass


def parquet_writer(sink: Any, schema: pa.Schema) -> Writer:
    """A writer of compressed row groups into `sink`, with dictionaries where values repeat."""
    return Writer(sink, schema, compression="zstd", use_dictionary=DICTIONARY)


class RowWriter:
    """Writes rows into the open draft of a parquet file and numbers them from `first_idx`.

    A row group has ROW_GROUP rows. `old`: a table that comes before the new rows. Its row groups
    are copied as bytes, not decoded; the footer is combined from both.
    """

    def __init__(
        self, draft: Draft, table_facts: dict[str, Any], first_idx: int = 0, old: str | None = None
    ) -> None:
        self.draft = draft
        self.facts = table_facts
        self.old = old
        self.idx = first_idx
        self.pending: list[pa.Table] = []
        self.pending_rows = 0
        self.sink = pa.OSFile(draft.opened, "wb")
        # The writer has put its 4 magic bytes, and notes where in the sink each row group begins.
        self.schema = table.schema(table_facts.get("scores", ()))
        self.writer = parquet_writer(self.sink, self.schema)
        if old:
            self._copy_row_groups(old)

    def _copy_row_groups(self, old: str) -> None:
        with os.fdopen(open_untrusted(old), "rb") as file:
            before = os.fstat(file.fileno())
            self.old_footer = pq.read_metadata(f"/proc/self/fd/{file.fileno()}")
            left = before.st_size - table.footer_size(file) - 4
            file.seek(4)
            while left > 0 and (piece := file.read(min(left, 1 << 18))):
                self.sink.write(piece)
                left -= len(piece)
            now = os.fstat(file.fileno())
        if left or (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise UserError(f"{old} was changed while it was read: give the same command again")

    def write(self, rows: pa.Table) -> None:
        """Add rows (all columns but idx)."""
        self.pending.append(rows)
        self.pending_rows += rows.num_rows
        while self.pending_rows >= ROW_GROUP:
            self._cut(ROW_GROUP)

    def _cut(self, count: int) -> None:
        rows = pa.concat_tables(self.pending)
        rest = rows.slice(count)
        self.pending = [rest] if rest.num_rows else []
        self.pending_rows = rest.num_rows
        numbers = pa.array(np.arange(self.idx, self.idx + count))
        rows = rows.slice(0, count).append_column("idx", numbers)
        rows = rows.select(self.schema.names).cast(self.schema)
        self.writer.write_table(rows, row_group_size=ROW_GROUP)
        self.idx += count

    def close(self, generations: list[int], follow_old: bool = True) -> None:
        """Finish the file. `generations`: numbers of rows, for facts().

        follow_old=False: the footer describes the new rows only.
        """
        if self.pending_rows:
            self._cut(self.pending_rows)
        note = {table.KEY.decode(): json.dumps({**self.facts, "generations": generations})}
        self.writer.add_key_value_metadata(note)
        self.writer.close()
        self.sink.close()
        if self.old and follow_old:
            self._put_footers_together(note)

    def _put_footers_together(self, note: dict[str, str]) -> None:
        buffer = io.BytesIO()
        with pq.ParquetWriter(buffer, self.schema) as empty:
            empty.add_key_value_metadata(note)
        merged = pq.read_metadata(buffer)
        merged.append_row_groups(self.old_footer)
        merged.append_row_groups(pq.read_metadata(self.draft.opened))
        buffer = io.BytesIO()
        merged.write_metadata_file(buffer)
        with open(self.draft.opened, "r+b") as file:
            file.truncate(os.path.getsize(self.draft.opened) - table.footer_size(file))
            file.seek(0, os.SEEK_END)
            file.write(buffer.getvalue()[4:])  # without the magic bytes of a file's beginning


class SortedRows:
    """Takes sorted tables in any order and publishes them as one sorted table.

    It holds a few pieces in memory. A piece that comes after the last row of a run (the usual case:
    folders come in the order of their prompts) is appended to that run. The first run is written as
    the final file at once. If there are more runs, all are merged into a second draft at the end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        table_facts: dict[str, Any],
        old: str | os.PathLike[str] | None = None,
        first_idx: int = 0,
    ) -> None:
        self.path = str(path)
        self.facts = table_facts
        self.schema = table.row_schema(table_facts.get("scores", ()))  # of runs
        self.old = str(old) if old else None
        self.first_idx = first_idx
        self.draft = Draft(path)
        self.first: RowWriter | None = None
        self.lasts: list[tuple[Any, ...]] = []  # of run 0, 1, …: its last key
        self.runs: list[Run] = []  # runs 1, 2, …

    def _first(self) -> RowWriter:
        if self.first is None:
            self.first = RowWriter(self.draft, self.facts, self.first_idx, self.old)
        return self.first

    def add(self, rows: pa.Table) -> None:
        """`rows`: in ORDER, all columns but idx."""
        first = self._first()
        low = order_key(rows, 0)
        fitting = [number for number, last in enumerate(self.lasts) if last < low]
        number = max(fitting, key=self.lasts.__getitem__, default=len(self.lasts))
        if number == len(self.lasts):
            if len(self.runs) == MAX_RUNS:
                number = self._merge_runs()
            if number:
                self.runs.append(Run(os.path.dirname(self.path), self.schema))
            self.lasts.append(low)
        (self.runs[number - 1] if number else first).write(rows)
        self.lasts[number] = order_key(rows, -1)

    def _merge_runs(self) -> int:
        """Make one run of all but the first; the number of the next one."""
        compact = Run(os.path.dirname(self.path), self.schema)
        for piece in merge([run.read() for run in self.runs]):
            compact.write(piece)
        self.runs = [compact]
        self.lasts = [self.lasts[0], max(self.lasts[1:])]
        return 2

    def publish(self, generations: list[int]) -> None:
        """Replace the file at `path`; nothing of it is seen before."""
        first = self._first()
        if not self.runs:
            first.close(generations)
            self.draft.publish()
            return
        first.close([], follow_old=False)
        with Draft(f"{self.path}.merged") as merged:
            writer = RowWriter(merged, self.facts, self.first_idx, self.old)
            new = table.read_rows([self.draft.opened], batch_size=MERGE_BATCH)
            for piece in merge([new, *(run.read() for run in self.runs)]):
                writer.write(piece)
            writer.close(generations)
            merged.publish(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.draft.__exit__(*error)


class Run:
    """Sorted rows in a temporary file without a name, which the system removes."""

    def __init__(self, folder: str, schema: pa.Schema) -> None:
        self.file = tempfile.TemporaryFile(dir=folder or ".")  # noqa: SIM115 (open as long as this)
        self.schema = schema
        self.writer = parquet_writer(self.file, schema)

    def write(self, rows: pa.Table) -> None:
        """Add rows that follow those before."""
        self.writer.write_table(rows.select(self.schema.names).cast(self.schema))

    def read(self) -> Iterator[pa.RecordBatch]:
        """All rows. After this nothing can be added."""
        self.writer.close()
        self.file.seek(0)
        yield from pq.ParquetFile(self.file).iter_batches(MERGE_BATCH, use_threads=False)


def order_key(rows: pa.Table, row: int) -> tuple[Any, ...]:
    """A row's place in ORDER. Python and Arrow both sort text by code points."""
    return tuple(rows.column(name)[row].as_py() for name in ORDER)


def in_order(rows: pa.Table) -> pa.Table:
    """The rows, sorted by ORDER. Most pieces are so already: one input_file, rising numbers."""
    names = rows["input_file"]
    prompts = rows["prompt_index"].to_numpy()
    augmentations = rows["augmentation_idx"].to_numpy()
    rising = (prompts[1:] > prompts[:-1]) | (
        (prompts[1:] == prompts[:-1]) & (augmentations[1:] > augmentations[:-1])
    )
    if bool(np.all(rising)) and pc.all(pc.equal(names, names[0])).as_py():
        return rows
    return rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in ORDER]))


def merge(runs: Iterable[Iterator[pa.RecordBatch]]) -> Iterator[pa.Table]:
    """Yield tables that together are the rows of all sorted `runs` in ORDER.

    A batch of each run is in memory.
    """

    def following(run: Iterator[pa.RecordBatch]) -> pa.Table | None:
        batch = next(run, None)
        if batch is None:
            return None
        return pa.Table.from_batches([batch]).select(
            [name for name in batch.schema.names if name != "idx"]
        )

    heads = [(run, head) for run in map(iter, runs) if (head := following(run))]
    while heads:
        # no later batch holds a row before this one
        until = min(order_key(head, head.num_rows - 1) for _, head in heads)
        pieces = []
        rest = []
        for run, head in heads:
            rows = _rows_until(head, until)
            pieces.append(head.slice(0, rows))
            head = head.slice(rows) if rows < head.num_rows else following(run)
            if head:
                rest.append((run, head))
        yield in_order(pa.concat_tables(pieces).combine_chunks())
        heads = rest


def _rows_until(rows: pa.Table, until: tuple[Any, ...]) -> int:
    """How many of the sorted rows come at or before `until`."""
    return bisect.bisect_right(range(rows.num_rows), until, key=lambda row: order_key(rows, row))
