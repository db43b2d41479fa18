"""Figures of a prompt's variations: how much they differ, and what they keep of the prompt.

figures = measure("a corgi in a top hat", texts)
figures.vendi           # as if so many texts had nothing in common

Vectors are those of common/embeddings.py; one figure misleads alone: words shuffled at random are
diverse, and copies are faithful.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.embeddings import embed
from common.texts import fold

MOST = (
    2000  # texts a Vendi score is computed of: the matrix's eigenvalues take seconds at that size
)


@dataclass(frozen=True)
class Diversity:
    """vendi: exp of the entropy of the similarity matrix's eigenvalues (Friedman and Dieng 2023).

    distinct_2: share of word pairs that are different ones. nearest: mean cosine of a text to its
    nearest neighbour. fidelity: mean cosine to the original.
    """

    texts: int
    vendi: float
    distinct_2: float
    nearest: float
    fidelity: float


def measure(original: str, texts: Sequence[str]) -> Diversity:
    """The figures of one prompt's variations."""
    vectors = embed(texts)
    fidelity = float((vectors @ embed([original])[0]).mean()) if texts else 0.0
    return Diversity(len(texts), vendi(vectors), distinct_2(texts), nearest(vectors), fidelity)


def vendi(vectors: Any) -> float:
    """The Vendi score of unit vectors (n, d), 1 … n; of the first 2,000."""
    vectors = vectors[:MOST].astype(np.float64)
    if not len(vectors):
        return 0.0
    # The n x n and the d x d matrix have the same eigenvalues but for zeros: take the smaller one.
    matrix = vectors @ vectors.T if len(vectors) <= vectors.shape[1] else vectors.T @ vectors
    values = np.linalg.eigvalsh(matrix) / len(vectors)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def distinct_2(texts: Sequence[str]) -> float:
    """Different pairs of neighbouring words as a share of all pairs."""
    words = [fold(text).split() for text in texts]
    pairs = [pair for each in words for pair in itertools.pairwise(each)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def nearest(vectors: Any) -> float:
    """Mean cosine of a vector to the most similar other one; of the first 2,000."""
    vectors = vectors[:MOST]
    if len(vectors) < 2:
        return 0.0
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    return float(cosines.max(axis=1).mean())
