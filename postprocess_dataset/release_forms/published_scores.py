"""The table of scores as it is published: for each shard a file of its samples, in their order.

    write_scores(["train-00000.parquet"], "HPDv2/data", "HPDv2/scores", ScoreTable.read("scores"))

Joined by `__key__`. `image_sha256` is that of the published image. A sample without scores has
nulls. The folder is itself a table of scores that --scores takes, so that others can filter by it.
Near duplicates are columns of it: they were found among all images, not the published ones alone.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from postprocess_dataset import near_table
from postprocess_dataset.private_fields import without_folders
from postprocess_dataset.publish import Draft
from postprocess_dataset.release_folder import PUBLISHED, SCORES, remove_others
from postprocess_dataset.score_table import FACTS, KEY, ScoreTable

SHA256 = "image_sha256"


def write_scores(
    names: Sequence[str], rows: str, folder: str, scores: ScoreTable
) -> dict[str, Any]:
    """Write what has changed; what the card says of them.

    names: of the release's parquet files, in the folder `rows`.
    """
    os.makedirs(folder, exist_ok=True)
    scored = total = 0
    kept = set()
    for number, name in enumerate(names):
        keys = pq.read_table(os.path.join(rows, name), columns=[KEY, SHA256])
        table = scores_of(keys, scores)
        total += len(table)
        scored += sum(key in scores.places for key in keys[KEY].to_pylist())
        kept.add(own := f"part-00000-of-00001.{number:06d}.parquet")
        _write(table, os.path.join(folder, own))
    remove_others(folder, kept, PUBLISHED[SCORES])
    facts = public_facts(scores)
    return {
        "versions": facts["scores"],
        "licences": facts["licences"],
        "scored": scored,
        "without": total - scored,
    }


def public_facts(scores: ScoreTable) -> dict[str, dict[str, str | None]]:
    """Versions and licences of the scores without the folders that they may name."""
    licences = scores.facts.get("licences")
    known = licences if isinstance(licences, dict) else {}
    return {
        "scores": {name: without_folders(str(at)) for name, at in scores.facts["scores"].items()},
        "licences": {name: _text(known.get(name)) for name in scores.facts["scores"]},
    }


def _text(licence: Any) -> str | None:
    return None if licence is None else without_folders(str(licence))


def scores_of(keys: pa.Table, scores: ScoreTable) -> pa.Table:
    """The scores of some samples; `keys`: their __key__ and image_sha256."""
    places = [scores.places.get(key) for key in keys[KEY].to_pylist()]
    taken = scores.rows.take(pa.array(places, pa.int64()))
    metadata = {FACTS: json.dumps(public_facts(scores), sort_keys=True).encode()}
    for name in (KEY, SHA256):
        taken = taken.set_column(taken.schema.get_field_index(name), name, keys[name])
    for name in near_table.COLUMNS if scores.near else ():
        found = [scores.of(key).get(name) for key in keys[KEY].to_pylist()]
        field = near_table.SCHEMA.field(name).with_nullable(True)
        taken = taken.drop_columns([name] if name in taken.schema.names else [])
        taken = taken.append_column(field, pa.array(found, field.type))
    if near_table.DUPLICATE in taken.schema.names:  # another image, and no other text
        at = taken.schema.get_field_index(near_table.DUPLICATE)
        found = [key if key in scores.places else None for key in taken[at].to_pylist()]
        taken = taken.set_column(at, taken.schema.field(at), pa.array(found, pa.string()))
    return taken.replace_schema_metadata(metadata).combine_chunks()


def _write(table: pa.Table, path: str) -> None:
    try:
        if pq.read_table(path).equals(table, check_metadata=True):
            return
    except (OSError, pa.ArrowException):  # none yet, or damaged
        pass
    with Draft(path, wait=True) as draft:
        pq.write_table(table, draft.file, compression="zstd")
        draft.publish()
