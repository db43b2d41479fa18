"""README.md of a folder of tars: how they are loaded.

`datasets.load_dataset(FOLDER)` takes every file of a folder for data, index.json too, unless the
head of a README.md names the tars.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from common.untrusted import read_text
from postprocess_dataset.publish import publish_text
from postprocess_dataset.shard_names import braces
from postprocess_dataset.to_tars.shard_plan import STEM, load_index

NAME = "README.md"
ABOUT = """
Images with captions as WebDataset tars, made by convert_parquet_to_wds.py. With the lines above
`datasets.load_dataset(FOLDER)` finds them. This file is yours: once it is changed it is not
written again.
"""
MIXED = (
    "order: that of the table, all images of a prompt in a row; --shuffle_seed 1, into another "
    "--output_dir, mixes them"
)


def explain(output: str, shuffled: bool) -> list[str]:
    """Write README.md for the shards of index.json; lines that tell how to load them."""
    listed = load_index(output)["shardlist"]
    stems: dict[str, list[str]] = {}  # {output_dataset_val: its shards}, in the order of the plan
    for shard in listed:
        stems.setdefault(shard["url"].rpartition("_")[0], []).append(shard["url"])
    if not stems:
        return []
    write_readme(output, list(stems))
    lines = [
        f'load: webdataset.WebDataset("{os.path.join(output, braces(names))}", shardshuffle=100)'
        for names in stems.values()
    ]
    lines.append(f'  or: datasets.load_dataset("{output}")')
    return lines if shuffled else [*lines, MIXED]


def write_readme(output: str, stems: Sequence[str]) -> None:
    """Write README.md, unless the user has changed it. Ours is updated for new splits."""
    path = os.path.join(output, NAME)
    if os.path.lexists(path):
        try:
            stands = read_text(Path(path))
        except (OSError, ValueError):
            return
        ours = [stem for stem in stems if f"path: {stem}_[0-9]*.tar\n" in stands]
        if ours == list(stems) or stands != text_of(ours):
            return
    publish_text(path, text_of(stems))


def text_of(stems: Sequence[str]) -> str:
    """README.md for the shards STEM_000000.tar …; a stem without a split is `train`."""
    files = [
        {
            "split": stem.removeprefix(STEM).removeprefix("_") or "train",
            "path": f"{stem}_[0-9]*.tar",
        }
        for stem in stems
    ]
    configs = [{"config_name": "default", "data_files": files}]
    head = yaml.safe_dump({"configs": configs}, sort_keys=False)
    return f"---\n{head}---\n{ABOUT}"
