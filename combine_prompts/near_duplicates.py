"""Near duplicates by MinHash LSH: prompts that differ in a few words only.

Two prompts are near duplicates when the Jaccard index of their 3-word shingles is at least 0.7
*and* they name the same subject. The MinHash sketches are rensa's (Rust; the tests compare them
with datasketch). Prompts that share a band of sketch values are candidates. Every candidate is
checked on the words themselves, so an error of a sketch never drops a prompt.

The index alone is not enough: prompts share long tails ("highly detailed, artstation, sharp focus,
..."), so at 0.7 "portrait of a queen, <30 words>" and "portrait of a toad, <30 words>" are alike,
and so are "a cyborg, ..." and "a demon, ...". So one of the two prompts must say all that the other
says: apart from spellings and words without weight ("a", "very", "portrait"), only one of them may
have words of its own, and not in its subject (the clauses before the tail). The medium has weight:
a photo is no painting. Prompts that have the same words, but for one typo or the order of the tail,
are near duplicates too. Their shingles differ too much, so same_words.py finds them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from rensa import RMinHash

from combine_prompts import same_words
from combine_prompts.same_words import spelling
from common.texts import word_set

# words a shingle: with 2 lists of artists look alike, with 4 prompts of 10 words have too few
WORDS = 3
# on 12,966 real prompts drops 42; 0.6 takes 8 more, half of them other pictures, 0.8 misses half of
# the true ones
THRESHOLD = 0.7
BANDS = 21  # with ROWS: finds 0.93 of the pairs at 0.7, 0.998 at 0.8
ROWS = 6
# candidates are first compared by 32 values: at 0.7 fewer than 0.4 of them are equal once in 7,000
QUICK = 32
QUICK_SHARE = 0.4
# candidates of one band, the latest; so the cost stays linear when a million prompts share a tail
BUCKET = 20
SEED = 42
CHUNK = 5_000  # prompts sketched at a time: their shingles as strings take 2 kB a prompt
MIXER = np.uint64(0x9E3779B97F4A7C15)
WORD = re.compile(r"[^\W_]+|[\u2600-\u27bf\U0001f000-\U0001faff]")
WEIGHTLESS = word_set(
    """a an the of in on at by with and or to for from as is are was its it his her their this that
    very highly extremely ultra hyper super really beautiful stunning gorgeous amazing detailed
    intricate realistic photorealistic hyperrealistic portrait picture
    image art artwork digital concept style styled"""
)

Repeats = dict[int, tuple[int, float]]  # position: (position of the one it repeats, Jaccard index)


def shingles(words: Sequence[str]) -> set[str]:
    """The set of 3-word shingles of a folded prompt's words; shorter prompts are one shingle."""
    if len(words) <= WORDS:
        return {" ".join(words)}
    return {" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}


def sketches(foldeds: Sequence[str]) -> tuple[Any, Any]:
    """(band keys, values): two prompts that share a key in a column are candidates.

    Band keys: uint64 array (prompts, BANDS). Values: uint32 array (prompts, QUICK).
    """
    keys: Any = np.empty((len(foldeds), BANDS), np.uint64)
    values: Any = np.empty((len(foldeds), QUICK), np.uint32)
    for start in range(0, len(foldeds), CHUNK):
        tokens = [sorted(shingles(folded.split())) for folded in foldeds[start : start + CHUNK]]
        matrix = RMinHash.digest_matrix_from_token_sets(tokens, BANDS * ROWS, SEED)
        sketch = np.array(matrix.to_rows(), np.uint64)
        bands = sketch.reshape(len(tokens), BANDS, ROWS)
        key: Any = np.zeros((len(tokens), BANDS), np.uint64)
        for row in range(ROWS):
            key = (key ^ bands[:, :, row]) * MIXER
            key ^= key >> np.uint64(29)
        keys[start : start + CHUNK] = key
        values[start : start + CHUNK] = sketch[:, :QUICK].astype(np.uint32)
    return keys, values


def find(prompts: Sequence[str], foldeds: Sequence[str]) -> Repeats:
    """The prompts that repeat an earlier one. The first one stays, in the given order."""
    keys, values = sketches(foldeds)
    buckets: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in range(BANDS)]
    dropped = same_words.find(prompts, foldeds, same_order)
    for i in np.flatnonzero(_sharing_a_band(keys)).tolist():
        if i in dropped:
            continue
        mine = [bucket[key] for bucket, key in zip(buckets, keys[i].tolist(), strict=True)]
        others = np.fromiter({j for bucket in mine for j in bucket[-BUCKET:]}, np.int64)
        near: list[int] = []
        if len(others):
            similar = (values[others] == values[i]).mean(axis=1) >= QUICK_SHARE
            near = sorted(others[similar].tolist())
        repeated = _first_repeated(i, near, prompts, foldeds)
        if repeated:
            dropped[i] = repeated
        else:
            for bucket in mine:
                bucket.append(i)
    return dropped


def _sharing_a_band(keys: Any) -> Any:
    """Which prompts share a band with another one (bool array): only these can be duplicates."""
    sharing: Any = np.zeros(len(keys), bool)
    for band in range(BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        equal = keys[order[1:], band] == keys[order[:-1], band]
        sharing[order[1:][equal]] = True
        sharing[order[:-1][equal]] = True
    return sharing


def _first_repeated(
    i: int, near: Iterable[int], prompts: Sequence[str], foldeds: Sequence[str]
) -> tuple[int, float] | None:
    own = shingles(foldeds[i].split())
    for j in near:
        similarity = jaccard(own, shingles(foldeds[j].split()))
        if similarity >= THRESHOLD and same_subject(prompts[i], prompts[j]):
            return j, similarity
    return None


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


@lru_cache(10_000)  # the candidates of one tail are compared again and again
def words_of(prompt: str) -> frozenset[str]:
    return frozenset(WORD.findall(prompt.casefold()))


@lru_cache(10_000)
def subject(prompt: str) -> tuple[str, ...]:
    """The words before the style tail: the first clauses, up to at least 6 words, at most 30."""
    found: list[str] = []
    for clause in re.split(r"[,;|.!]\s", prompt):
        found += WORD.findall(clause.casefold())
        if len(found) >= 6:
            break
    return tuple(found[:30])


def same_subject(a: str, b: str) -> bool:
    """Whether one of two prompts that are alike says all that the other says.

    What it adds is not in its subject, and what both name there stands in the same order ("a red
    car beside a blue house" is not "a blue car beside a red house").
    """
    words_a = words_of(a)
    words_b = words_of(b)
    only_a = new_words(words_a, words_b)
    only_b = new_words(words_b, words_a)
    subject_a = subject(a)
    subject_b = subject(b)
    if only_a and only_b:
        return False
    if only_a & set(subject_a) or only_b & set(subject_b):
        return False
    return same_order(a, b)


def same_order(a: str, b: str) -> bool:
    """Whether the words of weight that both subjects name stand in the same order."""
    subject_a = subject(a)
    subject_b = subject(b)
    both = (set(subject_a) & set(subject_b)) - WEIGHTLESS
    in_a = [word for word in subject_a if word in both]
    in_b = [word for word in subject_b if word in both]
    return in_a == in_b


def new_words(words: frozenset[str], others: frozenset[str]) -> set[str]:
    """The words of weight that the others lack, in no spelling."""
    return {
        word
        for word in words - others - WEIGHTLESS
        if not any(spelling(word, other) for other in others)
    }
