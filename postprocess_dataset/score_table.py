"""The table of scores beside a data set's table: a folder of parquet files, joined by `__key__`.

    scores = ScoreTable.read("scores")
    scores.names                          # ["score_nsfw", "dhash_distance", "dhash_set_distance"]
    scores.of("000012/12345_3")           # {"score_nsfw": 0.02, "dhash_distance": 64}

    publish(rows, "scores", "part-00000-of-00001.000000", facts)

A file appears whole. Of a key that stands twice (its image was made anew) the last row counts.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.command_line import UserError
from common.console import visible
from common.expression import NAME
from common.json_form import in_form
from common.json_text import parse_json
from postprocess_dataset import near_table, table
from postprocess_dataset.column_values import arrow_errors
from postprocess_dataset.publish import Draft

KEY = "__key__"
FACTS = b"text_to_image_scores"  # what the table says of itself, in each file's footer
FILE = re.compile(r"part-[0-9]{5,}-of-[0-9]{5,}\.[0-9]{6,}\.parquet")
OTHERS = {
    KEY: pa.string(),
    "image_sha256": pa.string(),
    "dhash": pa.string(),
    "dhash_distance": pa.int64(),
    near_table.DISTANCE: pa.int64(),
    near_table.DUPLICATE: pa.string(),
    near_table.COSINE: pa.float64(),
}
EMBEDDING = "embedding"  # a column that near_images alone reads
# scores: their versions; embedding: the score that it is of; licences: {name: licence}
FACTS_FORM = {"scores": {str: str}, "embedding?": str}
Facts = dict[str, Any]


@dataclass(frozen=True)
class ScoreTable:
    """All rows of a table of scores. near: its near duplicates, if they are known of all rows."""

    facts: Facts
    rows: pa.Table
    places: Mapping[str, int]  # key -> row
    near: pa.Table | None = None

    @classmethod
    def read(cls, folder: str) -> "ScoreTable":
        """UserError when the folder is no table of scores."""
        names = files_of(folder)
        if not names:
            raise UserError(
                f"{folder}: no table of scores; make it with score_images.py DIR {folder}"
            )
        facts = [facts_of(name) for name in names]
        for name, each in zip(names, facts, strict=True):
            if each["scores"] != facts[0]["scores"]:
                raise UserError(
                    f"{name} holds other scores than {names[0]}: remove the one that does not "
                    "belong there, or score into an empty folder"
                )
        with arrow_errors(folder):
            rows = pa.concat_tables(map(_read, names), promote_options="default")
        refuse_no_scores(folder, rows.schema)
        with arrow_errors(folder):
            rows.validate(full=True)  # that its texts are UTF-8, too
        if rows[KEY].null_count:
            raise UserError(f"{folder}: {rows[KEY].null_count:,} rows of the scores have no {KEY}")
        _refuse_no_hashes(folder, rows)
        keys = rows[KEY].to_pylist()
        places = {key: row for row, key in enumerate(keys)}
        return cls(facts[0], rows, places, near_table.read(folder, names))

    @property
    def names(self) -> list[str]:
        """The columns that an expression may name."""
        near = near_table.COLUMNS if self.near else ()
        return self._own + [name for name in near if name not in self._own]

    @property
    def _own(self) -> list[str]:
        others = (KEY, "image_sha256", "dhash")
        return [name for name in self.rows.schema.names if name not in others]

    def of(self, key: str) -> dict[str, Any]:
        """The values of an image; {} when it has none."""
        row = self.places.get(key)
        if row is None:
            return {}
        values = {name: column[row] for name, column in self._values.items()}
        return values | self._near.get(key, {})

    @cached_property
    def _values(self) -> dict[str, list[Any]]:
        return {name: self.rows[name].to_pylist() for name in self._own}

    @cached_property
    def _near(self) -> dict[str, dict[str, Any]]:
        rows = self.near.to_pylist() if self.near else []
        return {row.pop(KEY): row for row in rows}


def refuse_no_scores(folder: str, schema: pa.Schema) -> None:
    """UserError: a column holds other things than scores; they would be published with them."""
    for field in schema:
        name = field.name
        kind = field.type
        own = NAME.fullmatch(name.removeprefix("score_")) and name.startswith("score_")
        numbers = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if not (numbers if own else kind == OTHERS.get(name)) and kind != pa.null():
            raise UserError(
                f"{folder}: its column {visible(name, 80)} ({visible(str(kind), 80)}) is no score: "
                f"those are score_NAME, of numbers, and {', '.join(OTHERS)}"
            )


def _refuse_no_hashes(folder: str, rows: pa.Table) -> None:
    if "dhash" in rows.schema.names:
        good = pc.match_substring_regex(rows["dhash"].cast(pa.string()), "^[0-9a-f]{1,16}$")
        if not pc.all(good, min_count=0).as_py():
            raise UserError(f"{folder}: its column dhash holds what is no difference hash")


def files_of(folder: str) -> list[str]:
    """The files of a table of scores, in the order in which they count; [] when there is none."""
    if not os.path.isdir(folder):
        return []
    table.refuse_no_utf8(folder)
    names = [name for name in os.listdir(folder) if FILE.fullmatch(name)]
    ordered = sorted(names, key=lambda name: (int(name.split(".")[-2]), name))
    return [os.path.join(folder, name) for name in ordered]


def _read(name: str) -> pa.Table:
    """A file of it, but for the embeddings, which are most of its bytes."""
    columns = [column for column in pq.read_schema(name).names if column != EMBEDDING]
    return pq.read_table(name, columns=columns)


def facts_of(path: str) -> Facts:
    """What a file says of itself; UserError when it is none of ours."""
    try:
        facts = parse_json((table.footer(path).metadata or {}).get(FACTS, b""))
        facts = dict(in_form(facts, FACTS_FORM))
        with arrow_errors(path):
            _refuse_other_columns(pq.read_schema(path), facts)
        return facts
    except ValueError as error:
        raise UserError(f"{visible(path)} is no file of score_images.py: {error}") from None


def _refuse_other_columns(schema: pa.Schema, facts: Facts) -> None:
    """ValueError: a column that must be there is not, is there twice, or holds no embeddings."""
    names = schema.names
    for name in (KEY, "image_sha256", *(["dhash"] if "dhash" in facts["scores"] else [])):
        if name not in names:
            raise ValueError(f"it has no column {name}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"its column {visible(twice[0], 80)} is there twice")
    if EMBEDDING in names and schema.field(EMBEDDING).type not in (pa.binary(), pa.null()):
        raise ValueError(f"its column {EMBEDDING} holds no bytes")


def publish(rows: Sequence[Mapping[str, Any]], path: str, facts: Facts) -> None:
    """Write rows as a file of the table; `dhash` columns only where dhash is one of the scores.

    And embeddings where the facts name the score that they are of.
    """
    fields = [pa.field(KEY, pa.string(), nullable=False), pa.field("image_sha256", pa.string())]
    for name in facts["scores"]:
        if name == "dhash":
            fields += [pa.field(name, OTHERS[name]) for name in ("dhash", "dhash_distance")]
        else:
            fields.append(pa.field(f"score_{name}", pa.float64()))
    if EMBEDDING in facts:
        fields.append(pa.field(EMBEDDING, pa.binary()))
    schema = pa.schema(fields, metadata={FACTS: json.dumps(facts, sort_keys=True).encode()})
    with Draft(path) as draft:
        pq.write_table(pa.Table.from_pylist(list(rows), schema), draft.file, compression="zstd")
        draft.publish()
