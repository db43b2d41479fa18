"""The order in which rows go into tars, when it is not the table's: by split, and shuffled.

    ordered(files("out.parquet"), [50_000, 1_200], shares("train=0.98,val=0.02"), 7, "tars/.rows")

A prompt's text decides its split: so all images of a prompt are in one split, also in two data sets
and after an update. The rows of each generation (the first conversion, each --update) are shuffled
among themselves, so that rows in finished tars keep their place.
"""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.command_line import UserError
from postprocess_dataset import sorted_rows, table
from postprocess_dataset.column_values import values_of
from postprocess_dataset.row_filter import RowFilter
from postprocess_dataset.shard_rows import is_text

BUCKET = 32768  # rows shuffled in memory at a time, about 40 MB
MAX_BUCKETS = 256  # open files; beyond 8 million rows a bucket grows instead
Split = str | None  # its name; None without a split


def side(prompt: str, shares: dict[str, float]) -> str:
    """The split a prompt belongs to."""
    digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    end = 0.0
    for name, share in shares.items():
        end += share
        if place < end:
            return name
    return list(shares)[-1]


def ordered(
    files: Sequence[str],
    generations: Sequence[int],
    shares: dict[str, float] | None,
    seed: int | None,
    folder: str,
    only: RowFilter | None = None,
) -> dict[Split, list[str]]:
    """Write the rows in tar order to FOLDER/<split>.parquet ("all" without a split).

    only: the rows that it takes. Returns {split: [its file]}. UserError when a split is asked for
    and the table has no prompts.
    """
    os.makedirs(folder, exist_ok=True)
    schema = pq.read_schema(files[0])
    known = [n for n in ("original_prompt", "caption", "augmented_prompt") if n in schema.names]
    if shares and not (known and is_text(schema.field(known[0]).type)):
        raise UserError(f"{files[0]}: --split needs a text column original_prompt or caption")
    names: list[Split] = list(shares) if shares else [None]
    outputs = {name: os.path.join(folder, f"{name or 'all'}.parquet") for name in names}
    writers = {
        name: pq.ParquetWriter(path, schema, compression="zstd") for name, path in outputs.items()
    }
    start = 0
    for generation, rows in enumerate(generations):
        count = 1 if seed is None else min(MAX_BUCKETS, -(-rows // BUCKET))
        chance = np.random.default_rng([seed or 0, generation])
        buckets: dict[tuple[Split, int], ShuffleBucket] = {}
        for batch in table.read_rows(files, start, start + rows, batch_size=BUCKET):
            if only:
                batch = batch.filter(only.mask(batch))
            sides: list[Split] = [None] * len(batch)
            if shares:
                sides = [side(text or "", shares) for text in values_of(batch[known[0]])]
            numbers = [0] * len(batch)
            if count > 1:
                numbers = (chance.random(len(batch)) * count).astype(int).tolist()
            wanted: dict[tuple[Split, int], list[int]] = {}
            for row, where in enumerate(zip(sides, numbers, strict=True)):
                wanted.setdefault(where, []).append(row)
            for where, some in wanted.items():
                if seed is None:  # the table's order
                    writers[where[0]].write_batch(batch.take(pa.array(some)))
                    continue
                if where not in buckets:
                    path = os.path.join(folder, f".{where[0]}-{where[1]}.tmp")
                    buckets[where] = ShuffleBucket(path, schema)
                buckets[where].write(batch.take(pa.array(some)))
        for where in sorted(buckets, key=lambda where: (names.index(where[0]), where[1])):
            found = buckets[where].read()
            again = np.random.default_rng([seed or 0, generation, where[1]])
            found = found.take(again.permutation(found.num_rows))
            writers[where[0]].write_table(found, row_group_size=sorted_rows.ROW_GROUP)
        start += rows
    for writer in writers.values():
        writer.close()
    return {name: [path] for name, path in outputs.items()}


class ShuffleBucket:
    """Rows on their way to one place, in a file that is read once."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self.path = path
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self.writer = pa.ipc.new_stream(path, schema, options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self.writer.write_batch(batch)

    def read(self) -> pa.Table:
        """All the rows; the file is removed."""
        self.writer.close()
        with pa.OSFile(self.path) as file:
            rows = pa.ipc.open_stream(file).read_all()
        os.unlink(self.path)
        return rows
