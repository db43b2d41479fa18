"""Static embeddings of short texts: how near two texts are in meaning, without running a model.

>>> vectors = embed(["a dog on a sofa", "a hound on a couch"])
>>> float(vectors[0] @ vectors[1]) > 0.6
True

WordLlama's token vectors (MIT, 16 MB, in its wheel, no network) are averaged over a text. Its own
loader looks for the tokenizer in the wrong folder (0.4.0.post1), so the two files are read here.
100,000 prompts take about 3 s on one core.
"""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 256  # numbers a vector
AT_ONCE = 2_000  # texts
SUMMED = 100  # texts: their words' vectors stay in the processor's cache, a third of the time
MOST_WORDS = 50_000  # remembered: 51 MB
MODEL = "l2_supercat"


def embed(texts: Sequence[str]) -> Any:
    """One vector of length 1 a text: float32 array (texts, SIZE); zeros for an empty text."""
    vectors: Any = np.zeros((len(texts), SIZE), np.float32)
    for start in range(0, len(texts), AT_ONCE):
        vectors[start : start + AT_ONCE] = _words().sums(texts[start : start + AT_ONCE])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-9)


def model_name() -> str:
    """The model and its version, for reports: vectors of another one cannot be compared."""
    return f"wordllama {version('wordllama')} {MODEL}_{SIZE}"


class _WordVectors:
    """Cache of the summed token vectors of words. No token spans two words."""

    def __init__(self) -> None:
        self._tokenizer, self._tokens = _load()
        self._rows: dict[str, int] = {}
        self._table: Any = np.empty((0, SIZE), np.float32)

    def sums(self, texts: Sequence[str]) -> Any:
        """The sum of each text's token vectors: float32 array (texts, SIZE)."""
        words = [text.split() for text in texts]
        self._learn({word for each in words for word in each})
        sums: Any = np.zeros((len(texts), SIZE), np.float32)
        for start in range(0, len(texts), SUMMED):
            some = words[start : start + SUMMED]
            rows = np.array([self._rows[word] for each in some for word in each], np.int64)
            counts = np.array([len(each) for each in some])
            filled = np.flatnonzero(counts)
            if len(filled):
                starts = (np.cumsum(counts) - counts)[filled]
                sums[start + filled] = np.add.reduceat(self._table[rows], starts, axis=0)
        return sums

    @property
    def _size(self) -> int:
        return len(self._table)

    def _learn(self, words: set[str]) -> None:
        if self._size > MOST_WORDS:
            self._rows = {}
            self._table = self._table[:0]
        new = sorted(word for word in words if word not in self._rows)
        if not new:
            return
        codes = self._tokenizer.encode_batch(new, add_special_tokens=False)
        sums = np.stack([self._tokens[code.ids].sum(axis=0, dtype=np.float32) for code in codes])
        self._rows |= {word: self._size + place for place, word in enumerate(new)}
        self._table = np.concatenate([self._table, sums])


@lru_cache(maxsize=1)
def _words() -> _WordVectors:
    return _WordVectors()


def _load() -> tuple[Any, Any]:
    """(tokenizer, token vectors)."""
    # imported here: only a comparison with a validation set needs it
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    found = importlib.util.find_spec("wordllama")
    if found is None or found.origin is None:
        raise ImportError("wordllama is not installed; pip install -r requirements.txt")
    folder = Path(found.origin).parent
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / f"{MODEL}_tokenizer_config.json"))
    weights = load_file(folder / "weights" / f"{MODEL}_{SIZE}.safetensors")
    return tokenizer, weights["embedding.weight"]
