"""The data sets of a ledger: made, compared, extended.

changed = define(store, {"name": "HPDv2", "total": 100_000, "images_per_prompt": 100, …})
"""

import json
import random

from generate.server.blocks import block_sizes, place_of
from generate.server.store import Definition, Store

# sha256 tells prompts files apart
NOT_COMPARED = {
    "name",
    "prompts_file",
    "extend",
    "prefix_total",
    "prefix_sha256",
    "dataset_id",
    "created",
    "bare",
    "version",
}
GROWS = {"total", "images_per_prompt", "prompts_sha256"}  # what an extension may change


class DefinitionDiffers(Exception):
    """A request's data set definition is not the stored one; .field .stored .given say where."""

    def __init__(self, field: str, stored: object, given: object) -> None:
        super().__init__(
            f"{field}: the data set was made with {stored!r}, this request says {given!r}"
        )
        self.field = field
        self.stored = stored
        self.given = given


def define(store: Store, definition: Definition) -> bool:
    """Make the data set, or compare, or extend it. Whether it was made or extended.

    definition: as in dataset.yaml; needs name, total, images_per_prompt; a field that is absent
    is not compared. More images per prompt, or prompts appended (whoever calls has compared the
    prefix), are an extension. DefinitionDiffers names the first field that differs.
    """
    name = definition["name"]
    total = definition["total"]
    per = definition["images_per_prompt"]
    if not store.has(name):
        with store.transaction():
            store.run(
                "INSERT INTO datasets (name, definition, version, total, waiting)"
                " VALUES (?, ?, 1, ?, ?)",
                name,
                json.dumps(definition),
                total,
                total,
            )
            _append_blocks(store, name, 0, total, definition.get("order_seed"))
        return True
    stored = store.definition(name)
    old = stored["total"]
    old_per = stored["images_per_prompt"]
    for field in sorted(definition.keys() - NOT_COMPARED):
        fine = (
            definition[field] == stored.get(field)
            or (field in GROWS and total > old)
            or (field == "images_per_prompt" and per > old_per)
        )
        if not fine or total < old or per < old_per:
            raise DefinitionDiffers(field, stored.get(field), definition[field])
    if (total, per) == (old, old_per):
        return False
    with store.transaction():
        store.run(
            "UPDATE datasets SET definition = ?, version = version + 1, total = ?,"
            " waiting = waiting + ? WHERE name = ?",
            json.dumps({**stored, **definition}),
            total,
            total - old,
            name,
        )
        _append_blocks(store, name, old, total, stored.get("order_seed"))
    return True


def _append_blocks(store: Store, name: str, start: int, total: int, seed: int | None) -> None:
    """Rows for the blocks of indices start … total - 1, in a seeded order (or as they are)."""
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
        random.Random(f"{seed} {start}").shuffle(blocks)
    position = store.one(
        "SELECT COALESCE(MAX(position), -1) + 1 FROM blocks WHERE dataset = ?", name
    )[0]
    store.run_many(
        "INSERT INTO blocks (dataset, block, position, size, open) VALUES (?, ?, ?, ?, ?)",
        ((name, block, position + n, sizes[block], sizes[block]) for n, block in enumerate(blocks)),
    )
