"""The parquet table: its columns, its files, what it says of itself, rows read by number.

    for batch in read_rows(files("out.parquet"), 10_000, 20_000): ...

A table is one parquet file, or (from `--part`) a directory of part files with one schema, read in the order of their names.
"""

import ctypes
import hashlib
import json
import os
import sys

BATCH = 4096  # rows read at a time
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
KEY = b"text_to_image_dataset"  # the table's own facts in the parquet footer
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
    if mallopt := getattr(
        ctypes.CDLL(None), "mallopt", None
    ):  # glibc: blocks from 1 MB on go back when they are freed, 20 MB less
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

    return {
        "int": pa.int64(),
        "str": pa.string(),
        "bool": pa.bool_(),
        "float": pa.float64(),
        "list of str": pa.list_(pa.string()),
    }


def json_schema():
    """The sample JSON's known keys as an Arrow schema."""
    import pyarrow as pa

    types = arrow_types()
    return pa.schema([(name, types[kind]) for name, (kind, _) in JSON_FIELDS.items()])


def schema():
    """The table's: the JSON's keys, `extra` (a JSON object of its unknown keys), `__key__`, `caption`, `subdirectory`, `idx`."""
    import pyarrow as pa

    own = [
        ("extra", pa.string()),
        ("__key__", pa.string()),
        ("caption", pa.string()),
        ("subdirectory", pa.string()),
        ("idx", pa.int64()),
    ]
    nullable = [pa.field(f.name, f.type, nullable=JSON_FIELDS[f.name][1]) for f in json_schema()]
    return pa.schema(
        nullable + [pa.field(name, kind, nullable=name == "extra") for name, kind in own]
    )


def row_schema():
    """The table's before its rows have a number."""
    return schema().remove(schema().get_field_index("idx"))


def files(path):
    """The parquet files of a table in the order of its rows. SystemExit when there is none."""
    path = str(path)
    found = [path]
    if os.path.isdir(path):
        found = sorted(
            os.path.join(path, n)
            for n in os.listdir(path)
            if n.endswith(".parquet") and not n.startswith(".")
        )
    if not found or not os.path.isfile(found[0]):
        raise SystemExit(
            f"{path}: no such table; make it with convert_json_to_parquet.py DIR {path}"
        )
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
            for batch in (
                file.iter_batches(batch_size, row_groups=groups, columns=columns, use_threads=False)
                if groups
                else ()
            ):
                begin, position = position, position + len(batch)
                if position > start and begin < stop:
                    yield batch.slice(
                        max(0, start - begin), min(position, stop) - max(begin, start)
                    )


def footer_size(f):
    """Bytes of an open parquet file's footer, with its length and magic."""
    f.seek(-8, os.SEEK_END)
    return int.from_bytes(f.read(4), "little") + 8


def key_of(subdirectory, stem):
    """A sample's `__key__`. A dot in its last part would split it in a tar, so it is written %2E (and % as %25)."""
    stem = stem.replace("%", "%25").replace(".", "%2E") if "." in stem or "%" in stem else stem
    return f"{subdirectory}/{stem}"


def stem_of(key):
    """(subdirectory, stem) of a `__key__`."""
    subdirectory, stem = key.rsplit("/", 1)
    return subdirectory, stem.replace("%2E", ".").replace("%25", "%")
