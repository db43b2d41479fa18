"""The images of a table of scores, each compared with all others: by dhash, then by embedding.

compared = compare("scores")              # writes _near_duplicates.parquet beside the scores
str(compared)                             # "12 of 5,000 images are near duplicates"
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.command_line import UserError
from postprocess_dataset import near_table
from postprocess_dataset.column_values import arrow_errors
from postprocess_dataset.score_table import KEY, files_of
from postprocess_dataset.scored.embeddings import Embeddings
from postprocess_dataset.scored.near_prints import NEAR, WINDOW, Array, nearest_earlier

HASH = "dhash"
DIGITS = 4  # of a cosine


@dataclass(frozen=True)
class Compared:
    """How many images there are, how many of them are near duplicates, how many may be unseen.

    cut: images of a crowd, without a near duplicate among those they were compared with.
    """

    images: int
    near: int
    cut: int

    def __str__(self) -> str:
        said = f"{self.near:,} of {self.images:,} images are near duplicates"
        if self.cut:
            said += f"; {self.cut:,} others may be: too many look alike, "
            said += f"and each was compared with the last {WINDOW} of them only"
        return said


def compare(folder: str) -> Compared:
    """Write which image is near which earlier one. UserError: a dhash that is none."""
    names = files_of(folder)
    parts = [pq.read_table(name, columns=[KEY, HASH]) for name in names]
    with arrow_errors(folder):
        rows = pa.concat_tables(parts, promote_options="default")
    total = len(rows)
    rows = _newest(rows)
    try:
        prints = _prints(rows[HASH].to_pylist())
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{folder}: its dhash are no 16 digits each; score anew") from None
    embeddings = Embeddings.read(names, _places(rows["row"].to_numpy(), total))
    found = nearest_earlier(prints, embeddings.alike if embeddings else None)
    keys = rows[KEY].combine_chunks()
    places = pa.array(found.places, mask=found.places < 0)
    columns = [keys, pa.array(found.bits), keys.take(places), _cosines(embeddings, found.places)]
    near_table.publish(folder, names, columns)
    return Compared(len(keys), int((found.bits <= NEAR).sum()), found.cut)


def _newest(rows: pa.Table) -> pa.Table:
    """By key; of a key that stands twice the last row."""
    rows = rows.append_column("row", pa.array(numpy.arange(rows.num_rows)))
    rows = rows.take(pc.sort_indices(rows, sort_keys=[(KEY, "ascending"), ("row", "ascending")]))
    if rows.num_rows < 2:
        return rows
    keys = rows[KEY].combine_chunks()
    last = pc.not_equal(keys[:-1], keys[1:])
    return rows.filter(pa.concat_arrays([last, pa.array([True])]))


def _places(rows: Array, total: int) -> Array:
    """Of each of `total` rows, which image it is; -1: an older row of one."""
    places = numpy.full(total, -1)
    places[rows] = numpy.arange(len(rows))
    return places


def _cosines(embeddings: Embeddings | None, places: Array) -> pa.Array:
    """Of each image and the one that it is near; null where that is not known."""
    known = numpy.full(len(places), numpy.nan)
    near = numpy.flatnonzero(places >= 0)
    if embeddings:
        known[near] = embeddings.cosine(near, places[near]).round(DIGITS)
    return pa.array(known, pa.float64(), from_pandas=True)


def _prints(hashes: Sequence[str]) -> Array:
    return numpy.array([int(text, 16) for text in hashes], numpy.uint64)
