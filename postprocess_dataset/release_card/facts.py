"""Facts of a release's parquet files: splits, columns, and how often each value occurs.

    facts = read_facts("release/HPDv2")
    facts.splits["train"].rows, facts.counts["source"], facts.prompts

Every row is counted, but only in the columns that have few values. No image is read.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.command_line import UserError
from common.terms import source_of
from postprocess_dataset import table
from postprocess_dataset.column_values import arrow_errors, values_of
from postprocess_dataset.release_note import Note, read_note
from postprocess_dataset.report.rows import SIZE, count_sizes, count_values
from postprocess_dataset.shard_rows import check_kinds

SHARD = re.compile(r"(\w+)-([0-9]{5,})\.(parquet|tar)")
COUNTED = (
    "source",
    "llm_model_name",
    "model_name",
    "model_commit",
    "is_augmented",
    "num_inference_steps",
    "guidance_scale",
    "dtype",
    "scheduler",
    "negative_prompt",
    "jpeg_quality",
    "quantize",
    "version",
)
PROMPT = "original_prompt"
TIME = "generation_timestamp"
FILE = "input_file"
CUT = "truncated"
TOKENS = "text_tokens"
MARK = b"trainedAlgorithmicMedia"  # IPTC's digital source type, in the XMP of an image


@dataclass
class Split:
    """The files of a split. bytes: on disk; memory: of its columns as Arrow holds them."""

    rows: int = 0
    bytes: int = 0
    memory: int = 0
    parquet: list[str] = field(default_factory=list)
    tars: list[str] = field(default_factory=list)


@dataclass
class Facts:
    """rows_in: "data" (with images) or "metadata" (rows alone); tar_bytes: of all tars."""

    folder: str
    rows_in: str
    schema: pa.Schema
    splits: dict[str, Split] = field(default_factory=dict)
    counts: dict[str, Counter[Any]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    prompts: int = 0
    first: str = ""  # the days of the first and the last image
    last: str = ""
    tar_bytes: int = 0
    sourceless: int = 0  # rows whose prompt has no source
    cut: int = 0  # captions that a text encoder has not read to the end
    unread: int = 0  # of them, captions that no text encoder has read to the end
    marked: bool = False  # whether the first image of each shard says that a model made it
    filled: set[str] = field(default_factory=set)  # columns that are not empty in all rows
    note: Note = field(default_factory=dict)  # release.json

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits.values())

    @property
    def download_bytes(self) -> int:
        """Of the form that `datasets` loads by itself."""
        parquet = sum(split.bytes for split in self.splits.values())
        return parquet if self.has_images else self.tar_bytes

    @property
    def has_images(self) -> bool:
        """Whether the parquet files hold the images."""
        return self.rows_in == "data"


def read_facts(folder: str) -> Facts:
    """Count all rows. UserError: it is no release folder, or a file in it is damaged."""
    rows_in = "data" if os.path.isdir(os.path.join(folder, "data")) else "metadata"
    files = _shards(folder, rows_in, "parquet")
    if not files:
        raise UserError(
            f"{folder}: neither data nor metadata with parquet files lie there; make them with "
            f"make_release_forms.py TABLE.parquet {folder}"
        )
    facts = Facts(folder, rows_in, table.footer(str(files[0][1])).schema.to_arrow_schema())
    hashes: list[np.ndarray] = [np.empty(0, np.int64)]
    for split, path in files:
        with arrow_errors(str(path)):
            check_kinds(str(path))
            _add_file(facts, facts.splits.setdefault(split, Split()), path)
            hashes.append(_count(facts, path))
    for split, path in _shards(folder, "webdataset", "tar"):
        facts.splits.setdefault(split, Split()).tars.append(path.name)
        facts.tar_bytes += path.stat().st_size
    facts.marked = all(MARK in _first_image(path) for _, path in files) and facts.has_images
    facts.note = read_note(folder)
    facts.prompts = len(np.unique(np.concatenate(hashes)))
    return facts


def _shards(folder: str, form: str, suffix: str) -> list[tuple[str, Path]]:
    """(split, path) of the shards of a form, "train" first, in their order."""
    found = []
    for path in Path(folder, form).glob(f"*.{suffix}"):
        match = SHARD.fullmatch(path.name)
        if match and match[3] == suffix:
            found.append((match[1], int(match[2]), path))
    found.sort(key=lambda shard: (shard[0] != "train", shard[0], shard[1]))
    return [(split, path) for split, _, path in found]


def _add_file(facts: Facts, split: Split, path: Path) -> None:
    footer = table.footer(str(path))
    if footer.schema.to_arrow_schema().names != facts.schema.names:
        raise UserError(f"{path}: its columns are not those of the other files of the release")
    split.rows += footer.num_rows
    split.bytes += path.stat().st_size
    for group in range(footer.num_row_groups):
        split.memory += footer.row_group(group).total_byte_size
        facts.filled |= {
            column.path_in_schema.split(".")[0]
            for column in map(footer.row_group(group).column, range(footer.num_columns))
            if not _empty(column)
        }
    split.parquet.append(path.name)


def _empty(column: pq.ColumnChunkMetaData) -> bool:
    """Whether a column has only nulls, empty lists or empty texts, by its statistics."""
    found = column.statistics
    if found is None or not found.has_null_count:
        return False
    return found.num_values == 0 or bool(found.has_min_max and found.min == found.max == "")


def _first_image(path: Path) -> bytes:
    """Of a parquet file; b"" if it holds no images."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        if "image" not in file.schema_arrow.names:
            return b""
        for batch in file.iter_batches(1, columns=["image"], use_threads=False):
            image = batch["image"][0].as_py()
            content = image.get("bytes") if isinstance(image, dict) else None
            return content if isinstance(content, bytes) else b""
    return b""


def _count(facts: Facts, path: Path) -> np.ndarray:
    """Count a file's values; returns hashes of its prompts."""
    names = facts.schema.names
    columns = [name for name in (*COUNTED, *SIZE, PROMPT, TIME, FILE, CUT, TOKENS) if name in names]
    texts: set[int] = set()
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(65536, columns=columns, use_threads=False):
            for name in COUNTED:
                if name in columns:
                    found = facts.counts.setdefault(name, Counter())
                    found.update(count_values(batch[name]))
            if "source" in columns:
                _count_sourceless(facts, batch)
            if set(SIZE) <= set(columns):
                facts.sizes.update(count_sizes(batch))
            if PROMPT in columns:
                texts.update(hash(text) for text in values_of(pc.unique(batch[PROMPT])))
            if TIME in columns:
                _span(facts, batch[TIME])
            if {CUT, TOKENS} <= set(columns):
                cut = pc.fill_null(pc.list_value_length(batch[CUT]), 0)
                encoders = pc.fill_null(pc.list_value_length(batch[TOKENS]), 0)
                some = pc.greater(cut, 0)
                facts.cut += pc.sum(some).as_py() or 0
                facts.unread += pc.sum(pc.and_(some, pc.equal(cut, encoders))).as_py() or 0
    hashes: np.ndarray = np.fromiter(texts, np.int64, len(texts))
    return hashes


def _count_sourceless(facts: Facts, batch: pa.RecordBatch) -> None:
    """Count the rows without a source (a user's own list has its file's name as source)."""
    lengths = pc.fill_null(pc.list_value_length(batch["source"]), 0)
    without = batch.filter(pc.equal(lengths, 0))
    if FILE not in batch.schema.names:
        facts.sourceless += without.num_rows
        return
    for name, count in count_values(without[FILE]).items():
        if name:
            facts.counts["source"][source_of(name)] += count
        else:
            facts.sourceless += count


def _span(facts: Facts, stamps: pa.Array) -> None:
    texts = stamps.cast(pa.string())
    days = texts.filter(pc.match_substring_regex(texts, r"^\d{4}-\d\d-\d\d"))  # else no date
    ends = pc.min_max(days).as_py()  # ISO 8601 in UTC: in the order of their letters
    if ends["min"] is not None:
        facts.first = min(facts.first or ends["min"][:10], ends["min"][:10])
        facts.last = max(facts.last, ends["max"][:10])
