"""Find texts that copy, contain or paraphrase a prompt of the validation set.

    validation = ValidationSet.of(["a snowy mountain seen from a train window", …])
    validation.find_all(["a train window with a view of a snowy mountain"])    # [Match(…)]

The set is kept as a compact index of hashes and vectors, without its texts, so that it can lie
beside a prompts file. Five comparisons, each for what the others miss:
    same text             the folded texts are equal, up to a style tail (", oil painting, 8k")
    same words            in another order
    inside it             a whole prompt of 4-7 words stands in the text
    8 words in common     in a row: 958 of Gecko's 1,546 prompts are shorter than the usual 13
    alike, same meaning   letters (typos) or embeddings (paraphrases) are near

Measured against Gecko's 1,545 prompts (benchmarks/screening.py prints such figures).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from common.command_line import UserError
from common.embeddings import embed
from common.texts import fold, word_set

RUN = 8  # words; 6 hit 16-110 innocent prompts of a real set, 8 hit 3 of 12,966
WHOLE = range(4, RUN)  # words: shorter prompts ("two chairs") are parts of unrelated ones
LETTERS = 16  # a shorter folded text must be the same: "6 sandwiches" is not "10 sandwiches"
CONTENT_WORDS = 3  # a text with fewer is not compared by meaning, and by all words, in order or not
# cosines: at 0.84 72 % of 55 paraphrases by hand are found, and 0.1-0.4 of 1,000 unrelated prompts
MEANING = 0.84
# of letter triples, too: "a dog dressed like a cat" is near "A dog is to the right of the cat." in
# meaning (0.873), not in letters (0.22). In 40,773 prompts three hits are below 0.34, all wrong;
# the others are above 0.39
LEAST_SPELLING = 0.37
SPELLING = 0.75  # of letter triples; with it a meaning of 0.6 is enough: a typo spoils its word's
MEANING_WHEN_SPELT_ALIKE = 0.6
TRIPLES = 256  # numbers of a vector of letter triples
AT_ONCE = 2_000  # texts compared at a time
MOST_BYTES = 1 << 30  # of an index: 800,000 prompts; with more, one comparison takes 20 GB

STOP_WORDS = word_set(
    """a an the of with and in on at to by is are from it its his her their this that as for there
    was were be been being has have"""
)
CLAUSE_END = re.compile(r"[,.;:|!]+(?:\s|$)")
STEP = 0x9E3779B97F4A7C15  # odd: the hash of a run is the sum of its words' hashes x STEP^place
MODULUS = 1 << 64


@dataclass(frozen=True)
class Match:
    """How a text is like a prompt of the set, that prompt's row, and the similarity, 0-1."""

    how: str
    row: int
    similarity: float


class ValidationSet:
    """The index of a validation set."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = dict(arrays)
        self._meanings = self.arrays["meanings"].astype(np.float32)
        self._spellings = self.arrays["spellings"].astype(np.float32)
        self._comparable = self.arrays["comparable"]

    @classmethod
    def of(cls, prompts: Sequence[str]) -> "ValidationSet":
        """The index of `prompts`; a match's row is the place in this list."""
        words = _Words(prompts)
        foldeds = words.foldeds
        contents = list(map(content, foldeds))
        arrays: dict[str, Any] = {
            "meanings": embed(contents).astype(np.float16),
            "spellings": triples(foldeds).astype(np.float16),
            "comparable": np.array(list(map(is_comparable, foldeds, contents)), bool),
        }
        rows = np.arange(len(prompts))
        arrays |= _table("text", words.whole(), rows)
        arrays |= _table("bag", words.bags(), rows)
        for size in [*WHOLE, RUN]:
            hashes, owners = words.runs(size)
            chosen = words.counts[owners] == size if size in WHOLE else owners >= 0
            arrays |= _table(f"run{size}", hashes[chosen], owners[chosen])
        if sum(array.nbytes for array in arrays.values()) > MOST_BYTES - (1 << 20):  # and its rules
            raise UserError(f"the validation set is too large: {len(prompts):,} prompts")
        return cls(arrays)

    def find_all(self, texts: Sequence[str]) -> list[Match | None]:
        """One match, or None, a text."""
        found: list[Match | None] = []
        for start in range(0, len(texts), AT_ONCE):
            found += self._find(texts[start : start + AT_ONCE])
        return found

    def _find(self, texts: Sequence[str]) -> list[Match | None]:
        words = _Words(texts)
        found: list[Match | None] = [None] * len(texts)
        everyone = np.arange(len(texts))
        self._note("text", "same text", words.whole(), everyone, found)
        self._note("text", "same text", *words.heads(), found)
        self._note("bag", "same words", words.bags(), everyone, found)
        for size in WHOLE:
            self._note(f"run{size}", "inside it", *words.runs(size), found)
        self._note(f"run{RUN}", f"{RUN} words in common", *words.runs(RUN), found)
        self._compare(words.foldeds, found)
        return found

    def _note(
        self, table: str, how: str, hashes: Any, owners: Any, found: list[Match | None]
    ) -> None:
        """Note a match for each owner of a hash that the table has, unless it has one already."""
        known = self.arrays[f"{table}_hashes"]
        if not len(known) or not len(hashes):
            return
        places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        for hit in np.flatnonzero(known[places] == hashes).tolist():
            owner = int(owners[hit])
            if found[owner] is None:
                row = int(self.arrays[f"{table}_rows"][places[hit]])
                found[owner] = Match(how, row, 1.0)

    def _compare(self, foldeds: Sequence[str], found: list[Match | None]) -> None:
        """Compare what was not found by letters and by meaning."""
        contents = {row: content(folded) for row, folded in enumerate(foldeds) if not found[row]}
        open_rows = np.array(
            [row for row, said in contents.items() if is_comparable(foldeds[row], said)], np.int64
        )
        if not len(open_rows) or not self._comparable.any():
            return
        meanings = embed([contents[row] for row in open_rows.tolist()]) @ self._meanings.T
        near = np.flatnonzero((meanings >= MEANING_WHEN_SPELT_ALIKE).any(axis=1))
        open_rows = open_rows[near]
        meanings = meanings[near]
        spellings = triples([foldeds[row] for row in open_rows.tolist()]) @ self._spellings.T
        spelt_alike = (spellings >= SPELLING) & (meanings >= MEANING_WHEN_SPELT_ALIKE)
        same_meaning = (meanings >= MEANING) & (spellings >= LEAST_SPELLING)
        hits = (same_meaning | spelt_alike) & self._comparable
        for place in np.flatnonzero(hits.any(axis=1)).tolist():
            best = int(np.argmax(np.where(hits[place], meanings[place] + spellings[place], -9)))
            alike = bool(spelt_alike[place, best])
            similarity = float((spellings if alike else meanings)[place, best])
            how = "alike" if alike else "same meaning"
            found[int(open_rows[place])] = Match(how, best, round(min(similarity, 1.0), 3))


def content(folded: str) -> str:
    """The words of a folded text that carry meaning; all, if there are no others."""
    return " ".join(word for word in folded.split() if word not in STOP_WORDS) or folded


def is_comparable(folded: str, said: str) -> bool:
    """Whether a text, whose content is `said`, says enough to be compared by meaning."""
    return len(folded) >= LETTERS and said.count(" ") + 1 >= CONTENT_WORDS


def triples(foldeds: Sequence[str]) -> Any:
    """How texts are spelt: float32 array (texts, TRIPLES) of length 1, by their letter triples."""
    vectors: Any = np.zeros((len(foldeds), TRIPLES), np.float32)
    letters = [np.frombuffer(f" {folded} ".encode(), np.uint8) for folded in foldeds]
    sizes = np.array([max(len(each) - 2, 0) for each in letters])
    if not sizes.sum():
        return vectors
    flat = np.concatenate(letters).astype(np.uint64)
    place_in_text = np.concatenate([np.arange(len(each)) for each in letters])
    lengths: Any = np.repeat([len(each) for each in letters], [len(each) for each in letters])
    whole = np.flatnonzero(place_in_text[: len(flat) - 2] < lengths[: len(flat) - 2] - 2)
    mixed = flat[whole] << np.uint64(16) | flat[whole + 1] << np.uint64(8) | flat[whole + 2]
    mixed = mixed * np.uint64(STEP)
    mixed ^= mixed >> np.uint64(29)
    signs = 1.0 - 2.0 * ((mixed >> np.uint64(40)) & np.uint64(1)).astype(np.float32)
    cells: Any = np.repeat(np.arange(len(foldeds)), sizes) * TRIPLES
    cells += (mixed % np.uint64(TRIPLES)).astype(np.int64)
    counted = np.bincount(cells, signs, len(foldeds) * TRIPLES)
    vectors[:] = counted.reshape(vectors.shape)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class _Words:
    """The hashes of the words of many texts, and of what is built of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        clauses = [[fold(clause) for clause in CLAUSE_END.split(text)] for text in texts]
        self.foldeds = [" ".join(filter(None, each)) for each in clauses]
        words = [folded.split() for folded in self.foldeds]
        self.counts = np.array([len(each) for each in words], np.int64)
        self.owners: Any = np.repeat(np.arange(len(words)), self.counts)
        self.ends = np.cumsum(self.counts)
        self.starts = self.ends - self.counts
        flat = [word for each in words for word in each]
        self.hashes = np.fromiter(map(_hash, flat), np.uint64, len(flat))
        self._carries = np.array([word not in STOP_WORDS for word in flat], np.uint64)
        self._clause_lengths = [
            [clause.count(" ") + 1 for clause in each if clause] for each in clauses
        ]

    def whole(self) -> Any:
        """A hash of each text: uint64 array (texts,)."""
        return self._sums(self._placed())

    def heads(self) -> tuple[Any, Any]:
        """(hashes, whose they are) of what stands before each comma or full stop of a text."""
        before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(self._placed())])
        owners: Any = np.repeat(
            np.arange(len(self.counts)), [len(each) for each in self._clause_lengths]
        )
        ends = np.array(
            [end for each in self._clause_lengths for end in accumulate(each)], np.int64
        )
        starts = self.starts[owners]
        return before[starts + ends] - before[starts], owners

    def bags(self) -> Any:
        """A hash of each text's words in any order, without stop words where enough are left."""
        few = self._sums(self._carries) < CONTENT_WORDS
        weights = np.where(few[self.owners], np.uint64(1), self._carries)
        mixed = self.hashes ^ (self.hashes >> np.uint64(31))
        return self._sums(mixed * np.uint64(STEP) * weights)

    def _placed(self) -> Any:
        """The words' hashes by their places in the texts."""
        places = np.arange(len(self.hashes)) - self.starts[self.owners]
        return self.hashes * _powers(places)

    def runs(self, size: int) -> tuple[Any, Any]:
        """(hashes, whose they are) of all runs of `size` words."""
        if len(self.hashes) < size:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        last = len(self.hashes) - size + 1
        total: Any = np.zeros(last, np.uint64)
        power = 1
        for place in range(size):
            total += self.hashes[place : place + last] * np.uint64(power)
            power = power * STEP % MODULUS
        inside = np.flatnonzero(np.arange(last) + size <= self.ends[self.owners[:last]])
        return total[inside], self.owners[inside]

    def _sums(self, values: Any) -> Any:
        """The sum of each text's words: uint64 array (texts,)."""
        before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
        return before[self.ends] - before[self.starts]


@lru_cache(maxsize=50_000)
def _hash(word: str) -> int:
    """64 bits of a word, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def _powers(places: Any) -> Any:
    """STEP^place modulo 2^64."""
    longest = int(places.max()) + 1 if len(places) else 0
    powers: Any = np.ones(longest, np.uint64)
    power = 1
    for place in range(longest):
        powers[place] = power
        power = power * STEP % MODULUS
    return powers[places] if longest else powers


def _table(name: str, hashes: Any, rows: Any) -> dict[str, Any]:
    """Two arrays: the sorted hashes, and the first row that has each."""
    known, first = np.unique(hashes, return_index=True)
    return {f"{name}_hashes": known, f"{name}_rows": rows[first].astype(np.int32)}
