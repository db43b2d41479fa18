"""Rows come in any order and leave sorted, numbered, in one parquet file: constant memory, the same bytes for the same rows.

with SortedRows("out.parquet", facts) as rows:
    rows.add(sorted piece) …
    rows.publish([number of rows])
"""

import bisect
import io
import json
import os
import tempfile

from postprocess_dataset import table
from postprocess_dataset.publish import Draft

ROW_GROUP = 16384  # rows, 10-20 MB decoded: a tar worker that wants 10,000 rows from the middle decodes few in vain
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


def parquet_writer(sink, schema):
    """A ParquetWriter that the garbage collector leaves alone: it would end a file whose disk is full, and print a traceback."""
    import pyarrow.parquet as pq

    class Writer(pq.ParquetWriter):
        def __del__(self):
            pass

    return Writer(sink, schema, compression="zstd", use_dictionary=DICTIONARY)


class RowWriter:
    """Writes rows into the open draft of a parquet file, numbers them from `first_idx`, cuts row groups at every ROW_GROUP rows.

    `old`: a table that the new rows follow. Its row groups are copied as bytes, not decoded; the footer is put together from both.
    """

    def __init__(self, draft, table_facts, first_idx=0, old=None):
        import pyarrow as pa

        self.draft, self.facts, self.old, self.rows, self.idx = (
            draft,
            table_facts,
            old,
            0,
            first_idx,
        )
        self.pending, self.pending_rows = [], 0
        self.sink = pa.OSFile(draft.temporary, "wb")
        self.writer = parquet_writer(self.sink, table.schema())
        if old:  # the writer has put its 4 magic bytes and notes where in the sink it writes each row group
            with open(old, "rb") as f:
                left = os.path.getsize(old) - table.footer_size(f) - 4
                f.seek(4)
                while left:
                    piece = f.read(min(left, 1 << 18))
                    self.sink.write(piece)
                    left -= len(piece)

    def write(self, rows):
        """Add rows (all columns but idx)."""
        self.pending.append(rows)
        self.pending_rows += rows.num_rows
        while self.pending_rows >= ROW_GROUP:
            self._cut(ROW_GROUP)

    def _cut(self, count):
        import pyarrow as pa

        rows = pa.concat_tables(self.pending)
        rest = rows.slice(count)
        self.pending, self.pending_rows = [rest] if rest.num_rows else [], rest.num_rows
        rows = rows.slice(0, count).append_column(
            "idx", pa.array(range(self.idx, self.idx + count), pa.int64())
        )
        self.writer.write_table(
            rows.select(table.schema().names).cast(table.schema()), row_group_size=ROW_GROUP
        )
        self.idx += count
        self.rows += count

    def close(self, generations):
        """Finish the file. `generations`: numbers of rows, for facts()."""
        import pyarrow.parquet as pq

        if self.pending_rows:
            self._cut(self.pending_rows)
        note = {table.KEY.decode(): json.dumps({**self.facts, "generations": generations})}
        self.writer.add_key_value_metadata(note)
        self.writer.close()
        self.sink.close()
        if self.old:
            buffer = io.BytesIO()
            with pq.ParquetWriter(buffer, table.schema()) as empty:
                empty.add_key_value_metadata(note)
            merged = pq.read_metadata(buffer)
            merged.append_row_groups(pq.read_metadata(self.old))
            merged.append_row_groups(pq.read_metadata(self.draft.temporary))
            buffer = io.BytesIO()
            merged.write_metadata_file(buffer)
            with open(self.draft.temporary, "r+b") as f:
                f.truncate(os.path.getsize(f.name) - table.footer_size(f))
                f.seek(0, os.SEEK_END)
                f.write(buffer.getvalue()[4:])  # without the magic bytes of a file's beginning


class SortedRows:
    """Takes sorted tables in any order and publishes them as one sorted table, holding a few pieces in memory.

    A piece that follows an earlier one (the usual case: folders come in the order of their prompts) goes on in its run. The first run is
    written as the final file at once; when others were needed, all are merged into a second draft at the end.
    """

    def __init__(self, path, table_facts, old=None, first_idx=0):
        self.path, self.how = path, (table_facts, first_idx, old)
        self.draft, self.first = Draft(path), None
        self.lasts, self.runs = [], []  # of run 0, 1, …: its last key; runs holds 1, 2, …

    def add(self, rows):
        """`rows`: in ORDER, all columns but idx."""
        self.first = self.first or RowWriter(self.draft, *self.how)
        low, high = order_key(rows, 0), order_key(rows, -1)
        fitting = [n for n, last in enumerate(self.lasts) if last < low]
        number = max(fitting, key=self.lasts.__getitem__, default=len(self.lasts))
        if number == len(self.lasts):
            if len(self.runs) == MAX_RUNS:
                compact, last = Run(os.path.dirname(self.path)), max(self.lasts[1:])
                for piece in merge([run.read() for run in self.runs]):
                    compact.write(piece)
                self.runs, self.lasts, number = [compact], [self.lasts[0], last], 2
            if number:
                self.runs.append(Run(os.path.dirname(self.path)))
            self.lasts.append(high)
        (self.runs[number - 1] if number else self.first).write(rows)
        self.lasts[number] = high

    def publish(self, generations):
        """Replace the file at `path`; nothing of it is seen before."""
        self.first = self.first or RowWriter(self.draft, *self.how)
        if not self.runs:
            self.first.close(generations)
            return self.draft.publish()
        self.first.old = None  # its footer then tells of the new rows alone
        self.first.close([])
        with Draft(f"{self.path}.merged") as merged:
            writer = RowWriter(merged, *self.how)
            for piece in merge(
                [
                    table.read_rows([self.draft.temporary], batch_size=MERGE_BATCH),
                    *(run.read() for run in self.runs),
                ]
            ):
                writer.write(piece)
            writer.close(generations)
            merged.path = self.path
            merged.publish()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.draft.__exit__(*error)


class Run:
    """Sorted rows in a file without a name, gone with the process."""

    def __init__(self, folder):
        self.file, self.rows = tempfile.TemporaryFile(dir=folder or "."), 0
        self.writer = parquet_writer(self.file, table.row_schema())

    def write(self, rows):
        self.writer.write_table(rows.select(table.row_schema().names).cast(table.row_schema()))
        self.rows += rows.num_rows

    def read(self):
        import pyarrow.parquet as pq

        self.writer.close()
        self.file.seek(0)
        yield from pq.ParquetFile(self.file).iter_batches(MERGE_BATCH, use_threads=False)


def order_key(rows, row):
    """A row's place in ORDER. Python and Arrow both sort text by code points."""
    return tuple(rows.column(name)[row].as_py() for name in ORDER)


def in_order(rows):
    """The rows, sorted by ORDER. Most pieces are so already: one input_file, and rising numbers."""
    import numpy as np
    import pyarrow.compute as pc

    names = rows["input_file"]
    prompts, augmentations = rows["prompt_index"].to_numpy(), rows["augmentation_idx"].to_numpy()
    rising = (prompts[1:] > prompts[:-1]) | (
        (prompts[1:] == prompts[:-1]) & (augmentations[1:] > augmentations[:-1])
    )
    if bool(np.all(rising)) and pc.all(pc.equal(names, names[0])).as_py():
        return rows
    return rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in ORDER]))


def merge(runs):
    """Yield tables that together are the rows of all `runs` (iterators of sorted record batches) in ORDER, a batch of each in memory."""
    import pyarrow as pa

    def following(run):
        return next(
            (pa.Table.from_batches([batch]).select(table.row_schema().names) for batch in run), None
        )

    heads = [(run, head) for run in map(iter, runs) if (head := following(run))]
    while heads:
        until = min(
            order_key(head, head.num_rows - 1) for _, head in heads
        )  # no later batch holds a row before this one
        pieces, rest = [], []
        for run, head in heads:
            rows = bisect.bisect_right(
                range(head.num_rows), until, key=lambda row: order_key(head, row)
            )
            pieces.append(head.slice(0, rows))
            head = head.slice(rows) if rows < head.num_rows else following(run)
            if head:
                rest.append((run, head))
        yield in_order(pa.concat_tables(pieces).combine_chunks())
        heads = rest
