"""Embeddings of images, a byte a dimension, kept beside their dhash: are two images the same scene?

    rows = packed(score.vectors)              # bytes of each image, for the column `embedding`
    known = Embeddings.read(names, places)    # of a table of scores; None: it has none
    known.cosine(mine, others)                # of pairs; NaN where one of them has none
    known.alike(mine, others)                 # cosine of 0.95 or more, or unknown

An embedding is scaled so that its largest number is 127: a cosine is off by less than 0.005.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import pyarrow.parquet as pq

from common.command_line import UserError
from postprocess_dataset.score_table import EMBEDDING

SAME = 0.95
MOST = 127
PAIRS = 4096  # at once: 25 MB of numbers
LARGEST = 1 << 16  # dimensions: sums of their squares fit into 32 bits
Array = Any  # numpy array


def packed(vectors: Any) -> list[bytes]:
    """Of float vectors, images x dimensions."""
    values = numpy.asarray(vectors, numpy.float32)
    largest = numpy.abs(values).max(1, keepdims=True)
    scaled = values * (MOST / numpy.where(largest > 0, largest, 1))
    return [row.tobytes() for row in scaled.round().astype(numpy.int8)]


@dataclass(frozen=True)
class Embeddings:
    """rows: int8, images x dimensions; an image without one has zeros."""

    rows: Array
    lengths: Array  # of the rows, as vectors

    @classmethod
    def of(cls, rows: Array) -> "Embeddings":
        squares = numpy.einsum("ij,ij->i", rows, rows, dtype=numpy.int32)
        return cls(rows, numpy.sqrt(squares.astype(numpy.float32)))

    @classmethod
    def read(cls, names: Sequence[str], places: Array) -> "Embeddings | None":
        """places: of each row of these files, one after the other, which image it is; -1: none."""
        rows: Array = None
        start = 0
        count = int(places.max(initial=-1)) + 1
        for name in names:
            file = pq.ParquetFile(name)
            mine = places[start : start + file.metadata.num_rows]
            start += file.metadata.num_rows
            if EMBEDDING not in file.schema_arrow.names:
                continue
            values = file.read([EMBEDDING])[EMBEDDING].to_pylist()
            for place, value in zip(mine, values, strict=True):
                if place < 0 or not value:
                    continue
                if len(value) > LARGEST:
                    raise UserError(f"{name}: an embedding in it has more than {LARGEST:,} bytes")
                if rows is None:
                    rows = numpy.zeros((count, len(value)), numpy.int8)
                if len(value) == rows.shape[1]:
                    rows[place] = numpy.frombuffer(value, numpy.int8)
        return None if rows is None else cls.of(rows)

    def cosine(self, mine: Array, others: Array) -> Array:
        """Float32, one a pair."""
        found: Array = numpy.empty(len(mine), numpy.float32)
        for start in range(0, len(mine), PAIRS):
            pair = slice(start, start + PAIRS)
            one, other = (self.rows[each[pair]].astype(numpy.float32) for each in (mine, others))
            found[pair] = numpy.einsum("ij,ij->i", one, other)
        lengths = self.lengths[mine] * self.lengths[others]
        return numpy.divide(found, lengths, numpy.full_like(found, numpy.nan), where=lengths > 0)

    def alike(self, mine: Array, others: Array) -> Array:
        """Whether they are the same by their embeddings, or one of them has none."""
        return ~(self.cosine(mine, others) < SAME)
