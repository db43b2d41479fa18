"""The tars of a release: hard links to those of the work folder, under names that tell the split.

shards = link_tars("HPDv2.work/tars", "HPDv2/webdataset")
shards[0].name, shards[0].split, shards[0].samples        # "train-000000.tar", "train", 4821
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.command_line import UserError
from common.files import sync_folder
from postprocess_dataset.publish import publish_text
from postprocess_dataset.release_folder import PUBLISHED, remove_others
from postprocess_dataset.release_forms.public_rows import ONLY_SPLIT
from postprocess_dataset.to_tars import shard_plan

TARS = PUBLISHED["webdataset"]


@dataclass(frozen=True)
class Shard:
    """One tar of a release. path: of the tar in the work folder."""

    split: str
    number: int
    path: str
    samples: int
    size: int

    @property
    def name(self) -> str:
        """Its name in the release."""
        return f"{self.split}-{self.number:06d}.tar"


def shards_of(tars: str) -> list[Shard]:
    """All tars that make_tars() has written to a folder, by split and number."""
    plan = shard_plan.load_plan(tars)
    try:
        index = shard_plan.load_index(tars)
        counted = {line["url"]: (line["nsamples"], line["filesize"]) for line in index["shardlist"]}
        listed = plan["shards"] if plan else []
        return [
            Shard(
                shard["split"] or ONLY_SPLIT,
                int(re.findall(r"[0-9]+", shard["name"])[-1]),
                os.path.join(tars, shard["name"]),
                *counted[shard["name"]],
            )
            for shard in listed
        ]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{tars}: its index.json is not the one of its plan ({error}); remove {tars} and run "
            "the same command again"
        ) from None


def where_of(tars: str) -> dict[str, Any] | None:
    """What --where took of the rows for a folder of tars, as its index.json says; None: all."""
    where: dict[str, Any] | None = shard_plan.load_index(tars).get("where")
    return where


def link_tars(shards: Sequence[Shard], folder: str, where: dict[str, Any] | None = None) -> None:
    """Link the tars into a folder, with an index.json that wids reads; what is stale goes.

    where: what --where took, for the index.
    """
    os.makedirs(folder, exist_ok=True)
    for shard in shards:
        place(shard.path, os.path.join(folder, shard.name))
    remove_others(folder, {shard.name for shard in shards} | {"index.json"}, TARS)
    listed = [
        {"url": shard.name, "nsamples": shard.samples, "filesize": shard.size} for shard in shards
    ]
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
    index |= {"where": where} if where else {}
    publish_text(os.path.join(folder, "index.json"), json.dumps(index, indent=1) + "\n")


def place(source: str, target: str) -> None:
    """Give a file a second name, whole at any instant; where that cannot be, a copy of it."""
    if _same(source, target):
        return
    folder, name = os.path.split(target)
    draft = os.path.join(folder, f".{name}.tmp")
    if os.path.lexists(draft):
        os.unlink(draft)  # of a killed run
    try:
        os.link(source, draft)
    except OSError:  # another file system, or one without hard links
        with open(source, "rb") as file, open(draft, "xb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            os.fsync(copy.fileno())
        shutil.copystat(source, draft)
    os.rename(draft, target)
    sync_folder(folder)


def _same(source: str, target: str) -> bool:
    """Whether the target is this file already, by link or as a copy (size and time)."""
    try:
        there = os.stat(target, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.stat(source)
    same = (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    return os.path.samestat(here, there) or same
