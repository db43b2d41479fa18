"""The plan of the shards: which rows go into which tar, fixed before the first one is written.

    output_dataset_plan.json                the table's digest and each shard's rows

The plan makes shard borders the same for any number of workers, restarts and partitions. It grows
with the table: when the new table begins with the rows of the old one, all shards but the last of
each split stay.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from common.command_line import UserError
from common.console import visible
from common.files import read_json
from common.json_form import COUNT, SHA256, in_form
from common.number_options import LARGEST_SEED
from common.untrusted import read_untrusted
from postprocess_dataset import table
from postprocess_dataset.column_values import values_of
from postprocess_dataset.options import MOST_MB, is_split, shares
from postprocess_dataset.row_filter import WHERE
from postprocess_dataset.shard_images import Images, Place
from postprocess_dataset.shard_rows import KEY, columns_of, row_keys
from postprocess_dataset.tar_header import padded
from postprocess_dataset.to_tars.row_order import Split

STEM = "output_dataset"
SHARD_NAME = re.compile(rf"{STEM}(_\w+)?_[0-9]{{6,}}\.tar")
MARKS = re.compile(rf"index(_\w+)?\.json|{STEM}\w*_stats\.json")
# What this script writes beside a plan, and replaces. Of others it would be where no plan is.
REPLACED = re.compile(rf".*\.tar|{MARKS.pattern}")
PLAN_BYTES = 1 << 30  # some 120 bytes a shard
INDEX_BYTES = 1 << 28  # of an index.json; some 90 bytes a shard
TAIL = 1024  # a tar ends with two empty blocks
Shard = dict[str, Any]
Plan = dict[str, Any]
# name: it becomes a path, also of what is removed
SHARD = {"name": SHARD_NAME, "split": (None, str), "start": COUNT, "stop": COUNT}
PLAN = {
    "rows": COUNT,
    "digest": SHA256,
    "identity": SHA256,
    "options": {
        "shard_size_mb": range(1, MOST_MB + 1),
        "split": (None, is_split),
        "shuffle_seed": (None, range(LARGEST_SEED + 1)),
        "where?": (None, str),  # an older plan has none
        "scores?": (None, {str: str}),
    },
    "generations": [COUNT],
    "kept?": [(str, COUNT)],  # rows that --where takes, sha256 over their keys
    "shards": [SHARD],
}
INDEX_FORM = {
    "shardlist": [{"url": str, "nsamples": COUNT, "filesize": COUNT}],
    "where?": WHERE,
}


def name_of(split: Split, number: int) -> str:
    """The file name of a shard."""
    return f"{STEM}_{split}_{number:06d}.tar" if split else f"{STEM}_{number:06d}.tar"


def plan_path(output: str) -> str:
    """Where the plan of an output folder lies."""
    return os.path.join(output, f"{STEM}_plan.json")


def load_plan(output: str) -> Plan | None:
    """The plan of an output folder, or None. UserError: tars or an index.json lie there without."""
    path = plan_path(output)
    try:
        plan = check_plan(orjson.loads(read_untrusted(path, PLAN_BYTES, text=True)))
    except FileNotFoundError:
        foreign = sorted(name for name in os.listdir(output) if REPLACED.fullmatch(name))
        if not foreign:
            return None
        others = f" and {len(foreign) - 1} other files" if len(foreign) > 1 else ""
        raise UserError(
            f"{output} holds {visible(foreign[0])}{others} of another table (no {STEM}_plan.json); "
            "choose an empty --output_dir"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); choose an empty --output_dir") from None
    return plan


def check_plan(plan: Any) -> Plan:
    """The plan. ValueError: it has another form, or its shards are not those of its rows."""
    in_form(plan, PLAN)
    text = plan["options"]["split"]
    names: list[Split] = list(shares(text)) if text else [None]
    ends = dict.fromkeys(names, (0, 0))  # of each split: shards, rows
    for shard in plan["shards"]:
        if shard["split"] not in ends:
            raise ValueError(f"{shard['split']} is no split of it")
        number, row = ends[shard["split"]]
        name = name_of(shard["split"], number)
        if (shard["name"], shard["start"]) != (name, row) or shard["stop"] <= row:
            raise ValueError(f"{name} does not begin at row {row:,} of its split")
        ends[shard["split"]] = number + 1, shard["stop"]
    kept = plan.get("kept", [plan["rows"], ""])
    if [type(value) for value in kept] != [int, str] or kept[0] > plan["rows"]:
        raise ValueError("kept is not a number of its rows and a text")
    if sum(plan["generations"]) != plan["rows"] or sum(row for _, row in ends.values()) > kept[0]:
        raise ValueError("its rows are not those of its generations and shards")
    return dict(plan)


def load_index(output: str) -> dict[str, Any]:
    """index.json of a folder of tars. FileNotFoundError; ValueError: it is damaged."""
    index: dict[str, Any] = in_form(
        read_json(os.path.join(output, "index.json"), INDEX_BYTES), INDEX_FORM
    )
    return index


class ShardSizes:
    """Where shards of at most `size_mb` MB (10**6 bytes) end; a larger sample stands alone.

    Of images only the size is read. One that is missing, or whose key is in `deleted`, counts 0.
    """

    def __init__(self, size_mb: int, images: Images, deleted: set[str]) -> None:
        self.limit = size_mb * 10**6
        self.images = images
        self.deleted = deleted
        self.present = 0
        self.first_tried: Place | None = None

    def shards(self, ordered: Mapping[Split, Sequence[str]], kept: Sequence[Shard]) -> list[Shard]:
        """The shards of the rows in tar order, after those `kept`.

        UserError when no image is found at all.
        """
        found: list[Shard] = []
        for split, files in ordered.items():
            mine = [shard for shard in kept if shard["split"] == split]
            mine += self._new(split, files, mine)
            for number, shard in enumerate(mine):
                found.append({**shard, "name": name_of(split, number)})
        if not self.present and not kept:
            tried = "(no rows)"
            if self.first_tried:
                tried = " nor at ".join(self.images.places(*self.first_tried))
            raise UserError(
                f"none of the table's images was found, the first neither at {visible(tried)}; "
                "is --base_dir right?"
            )
        return found

    def _new(self, split: Split, files: Sequence[str], mine: list[Shard]) -> list[Shard]:
        """The shards of a split after `mine`, whose last one may grow."""
        new: list[Shard] = []
        start = row = mine[-1]["stop"] if mine else 0
        size = TAIL
        for room in self._rooms(files, row):
            if size + room > self.limit and room and row > start:
                new.append({"split": split, "start": start, "stop": row})
                start = row
                size = TAIL
            size += room
            row += 1
        if size > TAIL:
            new.append({"split": split, "start": start, "stop": row})
        elif row > start and (new or mine):
            # nothing but missing images at the end: reported with the last shard
            last = new or mine
            last[-1] = {**last[-1], "stop": row}
        return new

    def _rooms(self, files: Sequence[str], first: int) -> Iterator[int]:
        """Bytes of each row's sample in a tar, at most; 0 when it has no image."""
        names = columns_of(files)
        texts = [
            name
            for name, kind in names.items()
            if pa.types.is_string(kind) or pa.types.is_large_string(kind)
        ]
        row = first
        columns = sorted({KEY, "image_path", *texts} & names.keys())
        for batch in table.read_rows(files, row, columns=columns):
            keys = row_keys(batch, row)
            row += len(batch)
            paths = [None] * len(keys)
            if "image_path" in names:
                paths = values_of(batch["image_path"])
            places: list[Place] = list(zip(paths, keys, strict=True))
            self.first_tried = self.first_tried or places[0]
            captions, metadata = text_lengths(batch, texts, len(names))
            for key, text, length, image in zip(
                keys, captions, metadata, self.images.sizes(places), strict=True
            ):
                if image is None or key in self.deleted:
                    yield 0
                    continue
                self.present += 1
                yield 3 * 512 + padded(image) + padded(text) + padded(length)


def text_lengths(
    batch: pa.RecordBatch, texts: Sequence[str], columns: int
) -> tuple[list[int], list[int]]:
    """(bytes of the rows' captions, of their metadata at most)."""
    lengths = {
        name: pc.fill_null(pc.binary_length(batch[name]), 0)
        .to_numpy(zero_copy_only=False)
        .astype(np.int64)
        for name in texts
    }
    # names, numbers, and caption and key twice: an upper bound
    metadata = sum(lengths.values(), np.full(len(batch), 30 * columns))
    captions = lengths.get("caption", lengths.get("augmented_prompt", metadata))
    return captions.tolist(), metadata.tolist()
