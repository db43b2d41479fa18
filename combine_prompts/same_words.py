"""Near duplicates with the same words: the tail in another order, or one word with a typo.

Each prompt has a key (the sum of its words' hashes, in any order), and a key for each long word:
the sum without it, and its first two letters. Prompts that share a key are candidates, found by
sorting all keys at once: a million prompts have some ten million.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import DamerauLevenshtein

LONG = 7  # letters: of shorter words one letter makes another ("horse", "house")
FEWEST = 4  # words: in shorter prompts the order changes the meaning
NEIGHBOURS = 4  # candidates compared for each key, so that the cost stays linear
MASK = (1 << 64) - 1

Repeats = dict[int, tuple[int, float]]  # position: (position of the one it repeats, share of words)


def find(
    prompts: Sequence[str], foldeds: Sequence[str], same_order: Callable[[str, str], bool]
) -> Repeats:
    """The prompts that repeat an earlier one; `same_order(a, b)` looks at their subjects."""
    repeats: Repeats = {}
    for later, earlier in _candidates(foldeds):
        if later in repeats:
            continue
        earlier = repeats[earlier][0] if earlier in repeats else earlier
        words = foldeds[later].split()
        if _same_words(words, foldeds[earlier].split()) and same_order(
            prompts[later], prompts[earlier]
        ):
            repeats[later] = (earlier, 1 - 1 / len(words))
    return repeats


def spelling(a: str, b: str) -> bool:
    """The same word written otherwise: a plural, or one typo inside a long word."""
    if len(a) < 5 or a.isdigit():
        return False
    if a.rstrip("s") == b.rstrip("s"):
        return True
    if a[:2] != b[:2] or len(a) < LONG or not a.isalpha() or not b.isalpha():
        return False
    return bool(DamerauLevenshtein.distance(a, b, score_cutoff=1) <= 1)


def _same_words(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether two prompts have the same words in any order, but for one typo in a long one."""
    if sorted(a) == sorted(b):
        return True
    differing = [(x, y) for x, y in zip(a, b, strict=False) if x != y]
    return len(a) == len(b) and len(differing) == 1 and spelling(*differing[0])


def _candidates(foldeds: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(later, earlier) positions that share a key, in the order of the later ones."""
    keys, owners = _keys(foldeds)
    order = np.lexsort((owners, keys))
    keys = keys[order]
    owners = owners[order]
    pairs = []
    for step in range(1, NEIGHBOURS + 1):
        equal = np.flatnonzero(keys[step:] == keys[:-step])
        pairs.append(np.stack([owners[equal + step], owners[equal]], axis=1))
    found = np.unique(np.concatenate(pairs), axis=0)
    yield from ((later, earlier) for later, earlier in found.tolist() if later != earlier)


def _keys(foldeds: Sequence[str]) -> tuple[Any, Any]:
    """(keys, whose they are) of all prompts."""
    hashes: dict[str, int] = {}
    keys: list[int] = []
    owners: list[int] = []
    for owner, folded in enumerate(foldeds):
        words = folded.split()
        if len(words) < FEWEST:
            continue
        for word in words:
            if word not in hashes:
                digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                hashes[word] = int.from_bytes(digest, "big")
        total = sum(hashes[word] for word in words) & MASK
        without = [
            (total - hashes[word] + (ord(word[0]) << 8) + ord(word[1]) + 1) & MASK
            for word in words
            if len(word) >= LONG - 1
        ]
        keys += [total, *without]
        owners += [owner] * (1 + len(without))
    return np.array(keys, np.uint64), np.array(owners, np.int64)
