"""The settings of convert_parquet_to_wds.py, and the order of rows that follows from them."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from postprocess_dataset.options import shares
from postprocess_dataset.row_filter import RowFilter
from postprocess_dataset.shard_images import Images
from postprocess_dataset.to_tars.row_order import Split, ordered


@dataclass(frozen=True)
class TarSettings:
    """See the script's --help."""

    table: str
    base_dir: str
    output: str
    workers: int = 1
    shard_size_mb: int = 500
    split: str | None = None
    shuffle_seed: int | None = None
    partition: tuple[int, int] | None = None
    finish: bool = False
    image_dirs: Sequence[str] = ()  # where images may lie too
    where: RowFilter | None = None  # only the rows that it takes
    anew: bool = False  # make another plan than the one that is there

    @property
    def rows_folder(self) -> str:
        """Where the rows in tar order lie until all shards are done."""
        return os.path.join(self.output, ".rows")

    def images(self) -> Images:
        """Where the images are taken from."""
        return Images(self.base_dir, self.image_dirs)

    def plan_options(self) -> dict[str, Any]:
        """The options that decide which row goes into which shard."""
        return {
            "shard_size_mb": self.shard_size_mb,
            "split": self.split,
            "shuffle_seed": self.shuffle_seed,
            "where": self.where.text if self.where else None,
            "scores": self.where.versions() if self.where else None,
        }


def in_tar_order(
    settings: TarSettings, files: Sequence[str], generations: Sequence[int]
) -> dict[Split, list[str]]:
    """{split: parquet files whose rows are in the order of the tars}.

    If that is not the table's order, they are written to OUTPUT/.rows.
    """
    folder = settings.rows_folder
    sides = shares(settings.split) if settings.split else None
    if sides is None and settings.shuffle_seed is None and settings.where is None:
        return {None: list(files)}
    if not os.path.isdir(folder):
        shutil.rmtree(f"{folder}.tmp", ignore_errors=True)
        ordered(files, generations, sides, settings.shuffle_seed, f"{folder}.tmp", settings.where)
        os.rename(f"{folder}.tmp", folder)
    names: list[Split] = list(sides) if sides else [None]
    return {name: [os.path.join(folder, f"{name or 'all'}.parquet")] for name in names}
