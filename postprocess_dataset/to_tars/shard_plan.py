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
from common.untrusted import read_untrusted
from postprocess_dataset import table
from postprocess_dataset.column_values import values_of
from postprocess_dataset.shard_images import Images, Place
from postprocess_dataset.shard_rows import KEY, columns_of, row_keys
from postprocess_dataset.tar_header import padded
from postprocess_dataset.to_tars.row_order import Split

STEM = "output_dataset"
SHARD_NAME = re.compile(rf"{STEM}(_\w+)?_\d{{6,}}\.tar")
INDEX = re.compile(r"index(_\w+)?\.json")
# What this script writes beside a plan, and replaces. Of others it would be where no plan is.
REPLACED = re.compile(rf".*\.tar|{INDEX.pattern}|{STEM}\w*_stats\.json")
PLAN_BYTES = 1 << 30  # some 120 bytes a shard
INDEX_BYTES = 1 << 28  # of an index.json; some 90 bytes a shard
TAIL = 1024  # a tar ends with two empty blocks
Shard = dict[str, Any]  # {"name", "split", "start", "stop"}
Plan = dict[str, Any]  # {"rows", "digest", "identity", "options", "generations", "shards"}


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
        plan: Plan = orjson.loads(read_untrusted(path, PLAN_BYTES, text=True))
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
    if not is_plan(plan):
        raise UserError(f"{path} is no plan of this script; choose an empty --output_dir")
    return plan


def is_plan(plan: Any) -> bool:
    """Whether it has the parts of a plan.

    Its shards' names become paths, also of what is removed.
    """
    try:
        return (
            type(plan["rows"]) is int
            and isinstance(plan["digest"], str)
            and isinstance(plan["identity"], str)
            and {"shard_size_mb", "split", "shuffle_seed"} <= plan["options"].keys()
            and all(type(rows) is int for rows in plan["generations"])
            and all(
                SHARD_NAME.fullmatch(shard["name"])
                and type(shard["start"]) is type(shard["stop"]) is int
                and (shard["split"] is None or isinstance(shard["split"], str))
                for shard in plan["shards"]
            )
        )
    except (KeyError, TypeError, AttributeError):
        return False


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
