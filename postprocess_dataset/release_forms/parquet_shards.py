"""Parquet with embedded images, or with rows alone: a file for each tar, its samples in its order.

    write_parquet(shards, "HPDv2/data", Work("HPDv2.work/parquet", schema, workers=2))

The column `image` is one of `datasets` (bytes and path). Row groups and the page index are such
that the hub's viewer reads a page without the rest. A file's done mark in the work folder names the
tar that it was made of, so that only new and changed tars are done again. Beside it is kept what
the tar tells of its samples: the verification need not read it once more.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from common.command_line import UserError
from common.json_form import COUNT, TIME_NS, in_form
from common.untrusted import read_untrusted
from postprocess_dataset.hub_features import HUGGINGFACE, IMAGE, footer_note
from postprocess_dataset.manifest.hashed import HashedWriter
from postprocess_dataset.manifest.manifest import FILE, Known
from postprocess_dataset.manifest.shards import ShardSample, Unreadable
from postprocess_dataset.manifest.tar_facts import TarReading, kept_path, save_facts
from postprocess_dataset.progress import Progress
from postprocess_dataset.publish import Draft, publish_text
from postprocess_dataset.release_folder import PUBLISHED, remove_others
from postprocess_dataset.release_forms.linked_tars import Shard
from postprocess_dataset.shard_rows import KEY
from postprocess_dataset.workers import forked, start

# Of images in a row group. The hub's viewer takes up to 300 MB. 8 MB took 5 % more CPU, since each
# group has 42 columns to begin; larger ones took no less.
GROUP_BYTES = 16 << 20
GROUP_ROWS = 1000
# Rows after which the writer looks whether its page has 1 MB. At its default of 1,024 a row group
# was one page and one write, whose copy into the page cache took three times the CPU.
BATCH_ROWS = 16
# Columns of few values; a dictionary of the others would only be thrown away again.
REPEATED = ("original_prompt", "model_name", "llm_model_name", "gpu_name", "input_file", "dtype")
MARK_BYTES = 1 << 16
MARK = {"tar": [COUNT], "file": FILE, "changed_ns": TIME_NS}


@dataclass(frozen=True)
class Work:
    """folder: where the done marks lie. schema: of the public table. images: with the images.

    where: what --where took; the footers tell the expression and the scores' versions.
    """

    folder: str
    schema: pa.Schema
    workers: int = 1
    images: bool = True
    where: dict[str, Any] | None = None


def mark_path(marks: str, shard: Shard) -> str:
    """Where a shard's done mark lies."""
    return os.path.join(marks, f"{shard.name}.json")


def parquet_name(shard: Shard) -> str:
    """ "train-00000.parquet": the file's name in the release."""
    return f"{shard.split}-{shard.number:05d}.parquet"


def write_parquet(shards: Sequence[Shard], folder: str, work: Work) -> int:
    """Write what is missing; the number of files written now. UserError: a tar is damaged."""
    os.makedirs(folder, exist_ok=True)
    os.makedirs(work.folder, exist_ok=True)
    todo = [shard for shard in shards if not _is_done(shard, folder, work)]
    schema = schema_of(work) if todo else work.schema
    progress = Progress("samples", sum(shard.samples for shard in todo))
    with forked(max(1, min(work.workers, len(todo)))) as pool:
        futures = [start(pool, _one, shard, folder, schema, work) for shard in todo]
        for shard, future in zip(todo, futures, strict=True):
            future.result()
            progress.add(shard.samples, shard.size)
    progress.close()
    remove_others(folder, {parquet_name(shard) for shard in shards}, PUBLISHED["data"])
    return len(todo)


def schema_of(work: Work) -> pa.Schema:
    """The public table's columns, after `image`, with the note that `datasets` reads."""
    fields = [field for field in work.schema if field.name not in ("image", "extra")]
    fields.append(pa.field("extra", pa.string()))
    if work.images:
        fields.insert(0, pa.field("image", IMAGE))
    plain = pa.schema(fields)
    metadata = {HUGGINGFACE: footer_note(plain)}
    if work.where:  # no counts: they grow, and a shard that is done stays as it is
        repeatable = {name: work.where[name] for name in ("expression", "scores")}
        metadata[b"where"] = orjson.dumps(repeatable)
    schema: pa.Schema = plain.with_metadata(metadata)
    return schema


def _state(shard: Shard) -> list[int]:
    there = os.stat(shard.path)
    return [there.st_size, there.st_mtime_ns]


def _is_done(shard: Shard, folder: str, work: Work) -> bool:
    try:
        file, tar = known_parquet(work.folder, shard)
        return tar == _state(shard) and file.is_still(os.path.join(folder, parquet_name(shard)))
    except (OSError, ValueError):  # none yet, or not ours: done again
        return False


def known_parquet(marks: str, shard: Shard) -> tuple[Known, list[int]]:
    """The file as it was written, and size and time of the tar that it was made of.

    marks: the folder of the done marks.
    OSError, ValueError: it is not there yet.
    """
    mark = in_form(orjson.loads(read_untrusted(mark_path(marks, shard), MARK_BYTES)), MARK)
    return Known(mark["file"], None, mark["changed_ns"]), mark["tar"]


def _one(shard: Shard, folder: str, schema: pa.Schema, work: Work) -> None:
    """Write one file, then its done mark."""
    path = os.path.join(folder, parquet_name(shard))
    state = _state(shard)
    try:
        with Draft(path, wait=True) as draft:
            hashed = HashedWriter(draft.file)
            reading = TarReading(shard.path, planned=True)
            with pq.ParquetWriter(hashed, schema, **_layout(schema)) as writer:
                group = RowGroup(schema)
                for sample in reading.samples():
                    group.add(sample)
                    if group.full:
                        writer.write_table(group.table())
                        group.clear()
                if group.keys:
                    writer.write_table(group.table())
            refuse_other_count(len(reading.facts.members), shard)
            draft.publish()
    except Unreadable as error:
        raise UserError(
            f"{shard.path}: {error}; remove it and run the same command again"
        ) from None
    save_facts(kept_path(work.folder, os.path.basename(shard.path)), reading.facts)
    file = {"path": shard.name, "bytes": hashed.size, "sha256": hashed.sha256.hexdigest()}
    mark = {"tar": state, "file": file, "changed_ns": os.stat(path).st_mtime_ns}
    publish_text(mark_path(work.folder, shard), orjson.dumps(mark).decode())


def refuse_other_count(samples: int, shard: Shard) -> None:
    """Unreadable: a tar has other samples than when it was written; one of zeros has none."""
    if samples != shard.samples:
        raise Unreadable(f"holds {samples:,} samples, {shard.samples:,} were written")


def _layout(schema: pa.Schema) -> dict[str, Any]:
    """Images are compressed already; the rest is."""
    leaves = []
    for field in schema:
        if field.name == "image":
            leaves += ["image.bytes", "image.path"]
        else:
            leaves.append(
                f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
            )
    return {
        "compression": {leaf: "none" if leaf == "image.bytes" else "zstd" for leaf in leaves},
        "use_dictionary": [name for name in REPEATED if name in schema.names],
        "write_statistics": [leaf for leaf in leaves if leaf != "image.bytes"],
        "write_page_index": True,
        "write_batch_size": BATCH_ROWS,
    }


class RowGroup:
    """The samples of one row group. Their images lie in one piece of memory, used again."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.images = io.BytesIO()
        self.clear()

    def clear(self) -> None:
        """Begin the next one; no table of this one may be in use."""
        self.images.seek(0)
        self.ends = [0]
        self.keys: list[str] = []
        self.captions: list[str] = []
        self.records: list[dict[str, Any]] = []

    @property
    def full(self) -> bool:
        """Whether it holds as much as it should."""
        return self.ends[-1] >= GROUP_BYTES or len(self.keys) == GROUP_ROWS

    def add(self, sample: ShardSample) -> None:
        """The next row. The image is copied while it is in the cache: later that takes 40 us."""
        self.images.write(sample.image)
        self.ends.append(self.images.tell())
        self.keys.append(sample.key)
        self.captions.append(sample.caption)
        self.records.append(sample.metadata)

    def table(self) -> pa.Table:
        """Its rows. Fields of the JSON that are no column stand in `extra`, as JSON."""
        known = set(self.schema.names)
        columns: dict[str, list[Any]] = {
            KEY: self.keys,
            "caption": self.captions,
            "extra": [_extra(record, record.keys() - known) for record in self.records],
        }
        arrays = [
            self._images()
            if field.name == "image"
            else pa.array(
                columns.get(field.name) or [record.get(field.name) for record in self.records],
                field.type,
            )
            for field in self.schema
        ]
        return pa.table(arrays, schema=self.schema)

    def _images(self) -> pa.Array:
        ends = pa.array(self.ends, pa.int32()).buffers()[1]
        data = pa.py_buffer(self.images.getbuffer())
        contents = pa.Array.from_buffers(pa.binary(), len(self.keys), [None, ends, data])
        paths = pa.array([f"{key}.jpg" for key in self.keys], pa.string())
        return pa.StructArray.from_arrays([contents, paths], fields=list(IMAGE))


def _extra(record: dict[str, Any], names: set[str]) -> str | None:
    unknown = {name: record[name] for name in names}
    return orjson.dumps(unknown, option=orjson.OPT_SORT_KEYS).decode() if unknown else None
