"""Rows of the data sets in the ledger: define, extend, replace, forget.

    change = define(store, {"name": "HPDv2", "total": 100_000, "images_per_prompt": 100, …})

The folder's dataset.yaml goes before what the ledger knows: definitions are compared by
generate/dataset/definition.py alone, and the ledger follows.
"""

import json
import random
from typing import Literal

from generate.dataset.definition import RULE
from generate.server.ledger import acceptance, origins
from generate.server.storage.blocks import block_sizes, place_of, spread
from generate.server.storage.store import Definition, Store

TABLES = ("blocks", "held", "trouble", "blames", "leases", "given_back", "tallies", "origins")

Change = Literal["none", "new", "extended", "replaced"]


def change_of(store: Store, definition: Definition) -> Change:
    """What the definition of a folder means for the ledger.

    Extended: it has more, or another rule of what is accepted. Replaced: it is another folder of
    that name (dataset_id), or it has less than the ledger knows.
    """
    name = definition["name"]
    if not store.has(name):
        return "new"
    stored = store.definition(name)
    ids = {stored.get("dataset_id"), definition.get("dataset_id")} - {None}
    total = definition["total"] - stored["total"]
    per = definition["images_per_prompt"] - stored["images_per_prompt"]
    if len(ids) == 2 or total < 0 or per < 0:
        return "replaced"
    return "extended" if total or per or _has_another_rule(stored, definition) else "none"


def _has_another_rule(stored: Definition, definition: Definition) -> bool:
    return any(stored.get(field) != definition.get(field) for field in RULE)


def define(store: Store, definition: Definition, version: int = 1) -> Change:
    """Follow a definition, as in dataset.yaml: it needs name, total and images_per_prompt.

    version: of a data set that the ledger does not know yet.
    After an extension what is missing is found by comparing every block with the folder anew.
    """
    name = definition["name"]
    total = definition["total"]
    change = change_of(store, definition)
    with store.transaction():
        known = 0  # prompts that have their blocks
        if change == "replaced":
            version = store.version(name) + 1
            forget(store, name)
        if change in ("new", "replaced"):
            store.run(
                "INSERT INTO datasets (name, version, total, waiting) VALUES (?1, ?2, ?3, ?3)",
                name,
                version,
                total,
            )
        else:
            stored = store.definition(name)
            known = stored["total"]
            if _has_another_rule(stored, definition):
                acceptance.begin_anew(store, name)
            if definition["images_per_prompt"] > stored["images_per_prompt"]:
                origins.begin_anew(store, name)  # each prompt is done again, and told as a whole
            definition = {**stored, **definition}
        if change == "extended":
            store.run(
                "UPDATE datasets SET version = version + 1, total = ?1,"
                " waiting = waiting + ?1 - ?2 WHERE name = ?3",
                total,
                known,
                name,
            )
        if known < total:
            _append_blocks(store, name, known, total, definition.get("order_seed"))
        text = json.dumps(definition)
        store.run(
            "UPDATE datasets SET definition = ?1 WHERE name = ?2 AND definition IS NOT ?1",
            text,
            name,
        )
    return change


def forget(store: Store, dataset: str) -> None:
    """Remove all that the ledger knows of a data set; its leases were ended before."""
    for table in TABLES:
        store.run(f"DELETE FROM {table} WHERE dataset = ?", dataset)
    store.run("DELETE FROM datasets WHERE name = ?", dataset)


def _append_blocks(store: Store, name: str, start: int, total: int, seed: int | None) -> None:
    """Rows for the blocks of indices start … total - 1, in a seeded order (or as they are).

    Appended ones come after those that were there: what has begun keeps its order.
    """
    sizes = block_sizes(start, total)
    blocks = list(sizes)
    if place_of(start):  # the last block of the shorter list grows
        block = blocks.pop(0)
        store.run(
            "UPDATE blocks SET size = size + ?1, open = open + ?1"
            " WHERE dataset = ?2 AND block = ?3",
            sizes[block],
            name,
            block,
        )
    if seed is not None:
        blocks = spread(blocks, random.Random(f"{seed} {start}"))
    position = store.one(
        "SELECT COALESCE(MAX(position), -1) + 1 FROM blocks WHERE dataset = ?", name
    )[0]
    store.run_many(
        "INSERT INTO blocks (dataset, block, position, size, open) VALUES (?, ?, ?, ?, ?)",
        ((name, block, position + n, sizes[block], sizes[block]) for n, block in enumerate(blocks)),
    )
