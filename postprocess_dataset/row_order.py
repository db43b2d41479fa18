"""The order in which rows go into tars, when it is not the table's: by split, and shuffled.

    ordered(files("out.parquet"), [50_000, 1_200], {"train": 0.98, "val": 0.02}, 7, "tars/.rows")

A prompt's text decides its split, so all images of a prompt are on one side, also when it stands in two data sets, and always will be. A
shuffle is an even one over all rows of a generation (the first conversion, each --update), so that what is in tars already keeps its place.
"""

import hashlib
import os

from postprocess_dataset import sorted_rows, table

PILE = 32768  # rows shuffled in memory at a time, about 40 MB
MAX_PILES = 256  # open files; beyond 8 million rows a pile grows instead


def parse_split(text):
    """{"train": 0.98, "val": 0.02} of "train=0.98,val=0.02". ValueError unless the shares make 1."""
    split = {}
    for share in text.split(","):
        name, value = share.split("=")
        if not name.isidentifier() or name in split or float(value) <= 0:
            raise ValueError
        split[name] = float(value)
    if abs(sum(split.values()) - 1) > 1e-6:
        raise ValueError
    return split


def side(prompt, split):
    """The split a prompt belongs to."""
    place, end = (
        int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=8).digest(), "big") / 2**64,
        0.0,
    )
    for name, share in split.items():
        end += share
        if place < end:
            return name
    return name


def ordered(files, generations, split, seed, folder):
    """Write the rows in tar order to FOLDER/<split>.parquet ("all" without a split). Returns {split: [its file]}."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    os.makedirs(folder, exist_ok=True)
    schema = pq.read_schema(files[0])
    prompt = next(
        (
            name
            for name in ("original_prompt", "caption", "augmented_prompt")
            if name in schema.names
        ),
        None,
    )
    if split and not prompt:
        raise SystemExit(f"{files[0]}: --split needs a column original_prompt or caption")
    names = list(split) if split else [None]
    outputs = {name: os.path.join(folder, f"{name or 'all'}.parquet") for name in names}
    writers = {
        name: pq.ParquetWriter(path, schema, compression="zstd") for name, path in outputs.items()
    }
    start = 0
    for generation, rows in enumerate(generations):
        many = 1 if seed is None else min(MAX_PILES, -(-rows // PILE))
        chance = np.random.default_rng([seed or 0, generation])
        piles = {}
        for batch in table.read_rows(files, start, start + rows, batch_size=PILE):
            sides = (
                [side(text or "", split) for text in batch[prompt].to_pylist()]
                if split
                else [None] * len(batch)
            )
            places = (
                (chance.random(len(batch)) * many).astype(int).tolist()
                if many > 1
                else [0] * len(batch)
            )
            wanted = {}
            for row, where in enumerate(zip(sides, places)):
                wanted.setdefault(where, []).append(row)
            for where, some in wanted.items():
                if where not in piles:
                    piles[where] = Pile(os.path.join(folder, f".{where[0]}-{where[1]}.tmp"), schema)
                piles[where].write(batch.take(pa.array(some)))
        for where in sorted(piles, key=lambda where: (names.index(where[0]), where[1])):
            for piece in piles[where].read():
                if seed is not None:
                    piece = piece.take(
                        np.random.default_rng([seed, generation, where[1]]).permutation(
                            piece.num_rows
                        )
                    )
                writers[where[0]].write_table(piece, row_group_size=sorted_rows.ROW_GROUP)
        start += rows
    for writer in writers.values():
        writer.close()
    return {name: [path] for name, path in outputs.items()}


class Pile:
    """Rows on their way to one place, in a file that is read once."""

    def __init__(self, path, schema):
        import pyarrow as pa

        self.path = path
        self.writer = pa.ipc.new_stream(
            path, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
        )

    def write(self, batch):
        self.writer.write_batch(batch)

    def read(self):
        """The rows as tables: one, or, when nothing will be shuffled, batch by batch."""
        import pyarrow as pa

        self.writer.close()
        with pa.OSFile(self.path) as f:
            yield pa.ipc.open_stream(f).read_all()
        os.unlink(self.path)
