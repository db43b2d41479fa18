"""Near duplicates by MinHash LSH: the same prompt but for a few words.

Two prompts are twins when the Jaccard index of their 3-word shingles is at least 0.7 *and* they name the same subject. Sketches are rensa's
(Rust; the tests hold them against datasketch), candidates share a band of sketch values, and every candidate is checked on the words
themselves, so a sketch's error never drops a prompt.

Why more than the index: prompts share long tails ("highly detailed, artstation, sharp focus, ..."), so at 0.7 "portrait of a queen, <30
words>" and "portrait of a toad, <30 words>" are alike, and so are "a cyborg, ..." and "a demon, ...". Of twins, one says all that the
other says: apart from spellings and words without weight ("a", "very", "portrait"), only one of the two may have words of its own, and
these not in its subject (the clauses before the tail).
"""

import re
from collections import defaultdict
from functools import lru_cache

import numpy as np

WORDS = 3  # words a shingle: with 2 lists of artists look alike, with 4 prompts of 10 words have too few
THRESHOLD = 0.7  # on 12,966 real prompts drops 42; 0.6 takes 8 more, half of them other pictures, 0.8 misses half of the true ones
BANDS, ROWS = 21, 6  # finds 0.93 of the pairs at 0.7, 0.998 at 0.8; 126 values a sketch
QUICK, QUICK_SHARE = (
    32,
    0.4,
)  # candidates are first compared by 32 values: at 0.7 fewer than 0.4 of them are equal once in 7,000
BUCKET = 20  # candidates of one band, the latest; so the cost stays linear when a million prompts share a tail
SEED = 42
CHUNK = 5_000  # prompts sketched at a time: their shingles as strings take 2 kB a prompt
WORD = re.compile(r"[^\W_]+|[\u2600-\u27bf\U0001f000-\U0001faff]")
WEIGHTLESS = set(
    """
    a an the of in on at by with and or to for from as is are was its it his her their this that very highly extremely ultra hyper super
    really beautiful stunning gorgeous amazing detailed intricate realistic photorealistic hyperrealistic painting portrait photo
    photograph picture image illustration drawing render art artwork digital concept style styled""".split()
)


def shingles(words):
    """The set of 3-word shingles of a folded prompt's words; shorter prompts are one shingle."""
    if len(words) <= WORDS:
        return {" ".join(words)}
    return {" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}


def sketches(foldeds):
    """Return (band keys: uint64 array (prompts, BANDS), candidates share a key in a column; values: uint32 array (prompts, QUICK))."""
    from rensa import RMinHash

    keys, values = (
        np.empty((len(foldeds), BANDS), np.uint64),
        np.empty((len(foldeds), QUICK), np.uint32),
    )
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, len(foldeds), CHUNK):
        tokens = [sorted(shingles(folded.split())) for folded in foldeds[start : start + CHUNK]]
        sketch = np.array(
            RMinHash.digest_matrix_from_token_sets(tokens, BANDS * ROWS, SEED).to_rows(), np.uint64
        )
        bands = sketch.reshape(len(tokens), BANDS, ROWS)
        key = np.zeros((len(tokens), BANDS), np.uint64)
        for row in range(ROWS):
            key = (key ^ bands[:, :, row]) * multiplier
            key ^= key >> np.uint64(29)
        keys[start : start + CHUNK], values[start : start + CHUNK] = (
            key,
            sketch[:, :QUICK].astype(np.uint32),
        )
    return keys, values


def find(prompts, foldeds):
    """Return {position of a dropped prompt: (position of the one it repeats, Jaccard index)}; the first of twins stays, in the given
    order."""
    keys, values = sketches(foldeds)
    crowded = np.zeros(len(foldeds), bool)  # shares a band with another: only these can have a twin
    for band in range(BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        equal = keys[order[1:], band] == keys[order[:-1], band]
        crowded[order[1:][equal]] = True
        crowded[order[:-1][equal]] = True
    buckets = [defaultdict(list) for _ in range(BANDS)]
    dropped = {}
    for i in np.flatnonzero(crowded).tolist():
        mine = [bucket[key] for bucket, key in zip(buckets, keys[i].tolist())]
        others = np.fromiter({j for bucket in mine for j in bucket[-BUCKET:]}, np.int64)
        near = (
            others[(values[others] == values[i]).mean(axis=1) >= QUICK_SHARE]
            if len(others)
            else others
        )
        twin = None
        if len(near):
            own = shingles(foldeds[i].split())
            for j in sorted(near.tolist()):
                similar = jaccard(own, shingles(foldeds[j].split()))
                if similar >= THRESHOLD and same_subject(prompts[i], prompts[j]):
                    twin = (j, similar)
                    break
        if twin:
            dropped[i] = twin
        else:
            for bucket in mine:
                bucket.append(i)
    return dropped


def jaccard(a, b):
    return len(a & b) / len(a | b)


@lru_cache(10_000)  # the candidates of one tail are compared again and again
def words_of(prompt):
    return frozenset(WORD.findall(prompt.casefold()))


@lru_cache(10_000)
def subject(prompt):
    """The words before the style tail: the first clauses, up to at least 6 words and at most 30."""
    found = []
    for clause in re.split(r"[,;|.!]\s", prompt):
        found += WORD.findall(clause.casefold())
        if len(found) >= 6:
            break
    return tuple(found[:30])


def same_subject(a, b):
    """Whether one of two prompts that are alike says all that the other says, what it adds is not in its subject, and what both name there
    stands in the same order ("a red car beside a blue house" is not "a blue car beside a red house")."""
    words_a, words_b = words_of(a), words_of(b)
    only_a, only_b = new_words(words_a, words_b), new_words(words_b, words_a)
    subject_a, subject_b = subject(a), subject(b)
    if only_a and only_b or only_a & set(subject_a) or only_b & set(subject_b):
        return False
    both = set(subject_a) & set(subject_b) - WEIGHTLESS
    return [word for word in subject_a if word in both] == [
        word for word in subject_b if word in both
    ]


def new_words(words, others):
    """The words of weight that the others lack, in no spelling."""
    return {
        word
        for word in words - others - WEIGHTLESS
        if len(word) < 5 or word.isdigit() or not any(spelling(word, other) for other in others)
    }


def spelling(a, b):
    """The same word written otherwise: a plural, or one typo inside a long word."""
    from rapidfuzz.distance import DamerauLevenshtein

    if a.rstrip("s") == b.rstrip("s"):
        return True
    long_words = a[:2] == b[:2] and len(a) > 6 and a.isalpha() and b.isalpha()
    return long_words and DamerauLevenshtein.distance(a, b, score_cutoff=1) <= 1
