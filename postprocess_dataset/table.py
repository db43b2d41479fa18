"""The parquet table: its columns, its order, how rows are written once, merged, appended and read by number.

    rows = SortedRows("out.parquet", meta)      # add(sorted pieces), then publish(): constant memory, the same bytes for the same rows
    for batch in read_rows(files("out.parquet"), 10_000, 20_000): ...

A table is one parquet file, or (from `--part`) a directory of part files with one schema, read in the order of their names.
"""

import bisect
import ctypes
import hashlib
import io
import json
import os
import sys
import tempfile

from publish import Draft

ROW_GROUP = 16384  # rows, 10-20 MB decoded: a tar worker that wants 10,000 rows from the middle decodes few in vain
BATCH = 4096  # rows read at a time
MERGE_BATCH = 1024  # rows held of each run while up to 64 are merged
MAX_RUNS = 32  # more are merged into one at once: each open run holds a file and a few MB
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
KEY = b"text_to_image_dataset"  # the table's own facts in the parquet footer
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
# name: (type, may be null). The first 14 are the published ones; a sample without a value for a "not null" one is rejected.
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
}


def own_process():
    """For scripts, which own their process: Arrow's memory from malloc (40 MB less at the peak, at the same speed), and no pandas, which
    pyarrow imports at the first array it makes: 0.4 s and 40 MB for nothing."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc: blocks from 1 MB on go back when they are freed, 20 MB less
        mallopt(M_MMAP_THRESHOLD, 1 << 20)
    import pyarrow

    class NoPandas:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "pandas":
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, NoPandas)
    pyarrow.array([])
    sys.meta_path.remove(NoPandas)


def arrow_types():
    import pyarrow as pa

    return {"int": pa.int64(), "str": pa.string(), "bool": pa.bool_(), "float": pa.float64(), "list of str": pa.list_(pa.string())}


def json_schema():
    """The sample JSON's known keys as an Arrow schema."""
    import pyarrow as pa

    types = arrow_types()
    return pa.schema([(name, types[kind]) for name, (kind, _) in JSON_FIELDS.items()])


def schema():
    """The table's: the JSON's keys, `extra` (a JSON object of its unknown keys), `__key__`, `caption`, `subdirectory`, `idx`."""
    import pyarrow as pa

    own = [("extra", pa.string()), ("__key__", pa.string()), ("caption", pa.string()), ("subdirectory", pa.string()), ("idx", pa.int64())]
    nullable = [pa.field(f.name, f.type, nullable=JSON_FIELDS[f.name][1]) for f in json_schema()]
    return pa.schema(nullable + [pa.field(name, kind, nullable=name == "extra") for name, kind in own])


def row_schema():
    """The table's before its rows have a number."""
    return schema().remove(schema().get_field_index("idx"))


def files(path):
    """The parquet files of a table in the order of its rows. SystemExit when there is none."""
    path = str(path)
    found = [path]
    if os.path.isdir(path):
        found = sorted(os.path.join(path, n) for n in os.listdir(path) if n.endswith(".parquet") and not n.startswith("."))
    if not found or not os.path.isfile(found[0]):
        raise SystemExit(f"{path}: no such table; make it with convert_json_to_parquet.py DIR {path}")
    return found


def footer(path):
    """The parquet file's own account of itself. SystemExit when it is none, or torn."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SystemExit(f"{path} cannot be read as a parquet file: {str(error).splitlines()[0]}")


def facts(path):
    """What the table says of itself: {"base", "relative", "generations": [rows of the first run, of each --update]}; None for others'."""
    parts = [json.loads((footer(f).metadata or {}).get(KEY, b"null")) for f in files(path)]
    if None in parts:
        return None
    return {**parts[0], "generations": [n for part in parts for n in part["generations"]]}


def identity(path):
    """sha256 over the footers of the table's files: another table has another one. The state beside the table names it."""
    digest = hashlib.sha256()
    for name in files(path):
        footer(name)  # it is one
        with open(name, "rb") as f:
            f.seek(-footer_size(f), os.SEEK_END)
            digest.update(f.read())
    return digest.hexdigest()


def read_rows(paths, start=0, stop=None, columns=None, batch_size=BATCH):
    """Yield record batches that together are the rows [start, stop) of the files; row groups outside are not read."""
    import pyarrow.parquet as pq

    stop = float("inf") if stop is None else stop
    end = 0  # row number after the row groups looked at so far
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            groups, position = [], None
            for group in range(file.metadata.num_row_groups):
                begin, end = end, end + file.metadata.row_group(group).num_rows
                if begin < stop and end > start:
                    groups.append(group)
                    position = begin if position is None else position
            for batch in file.iter_batches(batch_size, row_groups=groups, columns=columns, use_threads=False) if groups else ():
                begin, position = position, position + len(batch)
                if position > start and begin < stop:
                    yield batch.slice(max(0, start - begin), min(position, stop) - max(begin, start))


class RowWriter:
    """Writes rows into the open draft of a parquet file, numbers them from `first_idx`, cuts row groups at every ROW_GROUP rows.

    `old`: a table that the new rows follow. Its row groups are copied as bytes, not decoded; the footer is put together from both.
    """

    def __init__(self, draft, table_facts, first_idx=0, old=None):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.draft, self.facts, self.old, self.rows, self.idx = draft, table_facts, old, 0, first_idx
        self.pending, self.pending_rows = [], 0
        self.sink = pa.OSFile(draft.temporary, "wb")
        self.writer = pq.ParquetWriter(self.sink, schema(), compression="zstd", use_dictionary=DICTIONARY)
        if old:  # the writer has put its 4 magic bytes and notes where in the sink it writes each row group
            with open(old, "rb") as f:
                left = os.path.getsize(old) - footer_size(f) - 4
                f.seek(4)
                while left:
                    piece = f.read(min(left, 1 << 18))
                    self.sink.write(piece)
                    left -= len(piece)

    def write(self, table):
        """Add rows (all columns but idx)."""
        self.pending.append(table)
        self.pending_rows += table.num_rows
        while self.pending_rows >= ROW_GROUP:
            self._cut(ROW_GROUP)

    def _cut(self, rows):
        import pyarrow as pa

        table = pa.concat_tables(self.pending)
        rest = table.slice(rows)
        self.pending, self.pending_rows = [rest] if rest.num_rows else [], rest.num_rows
        table = table.slice(0, rows).append_column("idx", pa.array(range(self.idx, self.idx + rows), pa.int64()))
        self.writer.write_table(table.select(schema().names).cast(schema()), row_group_size=ROW_GROUP)
        self.idx += rows
        self.rows += rows

    def close(self, generations):
        """Finish the file. `generations`: numbers of rows, for facts()."""
        import pyarrow.parquet as pq

        if self.pending_rows:
            self._cut(self.pending_rows)
        note = {KEY.decode(): json.dumps({**self.facts, "generations": generations})}
        self.writer.add_key_value_metadata(note)
        self.writer.close()
        self.sink.close()
        if self.old:
            buffer = io.BytesIO()
            with pq.ParquetWriter(buffer, schema()) as empty:
                empty.add_key_value_metadata(note)
            merged = pq.read_metadata(buffer)
            merged.append_row_groups(pq.read_metadata(self.old))
            merged.append_row_groups(pq.read_metadata(self.draft.temporary))
            buffer = io.BytesIO()
            merged.write_metadata_file(buffer)
            with open(self.draft.temporary, "r+b") as f:
                f.truncate(os.path.getsize(f.name) - footer_size(f))
                f.seek(0, os.SEEK_END)
                f.write(buffer.getvalue()[4:])  # without the magic bytes of a file's beginning


def footer_size(f):
    """Bytes of an open parquet file's footer, with its length and magic."""
    f.seek(-8, os.SEEK_END)
    return int.from_bytes(f.read(4), "little") + 8


class SortedRows:
    """Takes sorted tables in any order and publishes them as one sorted table, holding a few pieces in memory.

    A piece that follows an earlier one (the usual case: folders come in the order of their prompts) goes on in its run. The first run is
    written as the final file at once; when others were needed, all are merged into a second draft at the end.
    """

    def __init__(self, path, table_facts, old=None, first_idx=0):
        self.path, self.how = path, (table_facts, first_idx, old)
        self.draft, self.first = Draft(path), None
        self.lasts, self.runs = [], []  # of run 0, 1, …: its last key; runs holds 1, 2, …

    def add(self, table):
        """`table`: rows in ORDER, all columns but idx."""
        self.first = self.first or RowWriter(self.draft, *self.how)
        low, high = order_key(table, 0), order_key(table, -1)
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
        (self.runs[number - 1] if number else self.first).write(table)
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
            for piece in merge([read_rows([self.draft.temporary], batch_size=MERGE_BATCH), *(run.read() for run in self.runs)]):
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
        import pyarrow.parquet as pq

        self.file, self.rows = tempfile.TemporaryFile(dir=folder or "."), 0
        self.writer = pq.ParquetWriter(self.file, row_schema(), compression="zstd", use_dictionary=DICTIONARY)

    def write(self, table):
        self.writer.write_table(table.select(row_schema().names).cast(row_schema()))
        self.rows += table.num_rows

    def read(self):
        import pyarrow.parquet as pq

        self.writer.close()
        self.file.seek(0)
        yield from pq.ParquetFile(self.file).iter_batches(MERGE_BATCH, use_threads=False)


def key_of(subdirectory, stem):
    """A sample's `__key__`. A dot in its last part would split it in a tar, so it is written %2E (and % as %25)."""
    stem = stem.replace("%", "%25").replace(".", "%2E") if "." in stem or "%" in stem else stem
    return f"{subdirectory}/{stem}"


def stem_of(key):
    """(subdirectory, stem) of a `__key__`."""
    subdirectory, stem = key.rsplit("/", 1)
    return subdirectory, stem.replace("%2E", ".").replace("%25", "%")


def order_key(table, row):
    """A row's place in ORDER. Python and Arrow both sort text by code points."""
    return tuple(table.column(name)[row].as_py() for name in ORDER)


def in_order(table):
    """The table, sorted by ORDER. Most pieces are so already: one input_file, and rising numbers."""
    import numpy as np
    import pyarrow.compute as pc

    names = table["input_file"]
    prompts, augmentations = table["prompt_index"].to_numpy(), table["augmentation_idx"].to_numpy()
    rising = (prompts[1:] > prompts[:-1]) | ((prompts[1:] == prompts[:-1]) & (augmentations[1:] > augmentations[:-1]))
    if bool(np.all(rising)) and pc.all(pc.equal(names, names[0])).as_py():
        return table
    return table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in ORDER]))


def merge(runs):
    """Yield tables that together are the rows of all `runs` (iterators of sorted record batches) in ORDER, a batch of each in memory."""
    import pyarrow as pa

    def following(run):
        return next((pa.Table.from_batches([batch]).select(row_schema().names) for batch in run), None)

    heads = [(run, head) for run in map(iter, runs) if (head := following(run))]
    while heads:
        until = min(order_key(head, head.num_rows - 1) for _, head in heads)  # no later batch holds a row before this one
        pieces, rest = [], []
        for run, head in heads:
            rows = bisect.bisect_right(range(head.num_rows), until, key=lambda row: order_key(head, row))
            pieces.append(head.slice(0, rows))
            head = head.slice(rows) if rows < head.num_rows else following(run)
            if head:
                rest.append((run, head))
        yield in_order(pa.concat_tables(pieces).combine_chunks())
        heads = rest
