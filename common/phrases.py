"""Word lists looked up in a text's words: no regular expressions, so no text makes it slow.

table = PhraseTable({"explicit": read_phrases("explicit")})
table.find(["a", "half", "naked", "man"])                    # [Hit("explicit", "half naked", 1, 3)]

A list's lines are phrases; `a/b` is either word, `(x)` may be missing, `*` is any ending.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "word_lists"
OPTIONAL = re.compile(r"\((\w+)\)")


@dataclass(frozen=True)
class Hit:
    """A phrase of a list, and the words (from, to) that are it."""

    name: str
    phrase: str
    start: int
    end: int


def read_phrases(name: str) -> list[str]:
    """The phrases of common/word_lists/NAME.txt, alternatives written out."""
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    phrases = (line.partition("#")[0].split() for line in lines)
    return [phrase for words in phrases if words for phrase in written_out(words)]


def list_versions() -> dict[str, str]:
    """sha256 (12 hex digits) of each word list, for reports."""
    return {
        path.stem: hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in sorted(FOLDER.glob("*.txt"))
    }


def written_out(words: Sequence[str]) -> list[str]:
    """All phrases that a line means: `boob(s) out/bare` is four."""
    choices = [[form for word in each.split("/") for form in _forms(word)] for each in words]
    return [" ".join(phrase) for phrase in itertools.product(*choices)]


def _forms(word: str) -> list[str]:
    if not OPTIONAL.search(word):
        return [word]
    return [OPTIONAL.sub("", word), OPTIONAL.sub(r"\1", word)]


class PhraseTable:
    """Several lists, each under a name, looked up together."""

    def __init__(self, lists: Mapping[str, Iterable[str]]) -> None:
        self._whole: dict[str, list[str]] = {}
        self._beginnings: dict[str, list[str]] = {}  # of phrases that end in *
        self._first_words: set[str] = set()
        self._first_letters: set[str] = set()  # of one-word phrases that end in *
        self.longest = 1
        for name, phrases in lists.items():
            for phrase in phrases:
                self._add(name, phrase)
        self._sizes = sorted({len(beginning) for beginning in self._beginnings})

    def _add(self, name: str, phrase: str) -> None:
        words = phrase.split()
        self.longest = max(self.longest, len(words))
        table = self._beginnings if phrase.endswith("*") else self._whole
        names = table.setdefault(phrase.rstrip("*"), [])
        if name not in names:
            names.append(name)
        if len(words) == 1 and phrase.endswith("*"):
            self._first_letters.add(phrase[:2])
        else:
            self._first_words.add(words[0])

    def single_words(self, name: str) -> list[str]:
        """The one-word phrases of a list, without the * of those with any ending."""
        both = itertools.chain(self._whole.items(), self._beginnings.items())
        return [phrase for phrase, names in both if name in names and " " not in phrase]

    def find(self, words: Sequence[str]) -> list[Hit]:
        """All phrases among the words; the longest at each place for each list."""
        hits: list[Hit] = []
        for start, word in enumerate(words):
            if word in self._first_words or word[:2] in self._first_letters:
                hits += self._find_at(words, start)
        return hits

    def _find_at(self, words: Sequence[str], start: int) -> list[Hit]:
        best: dict[str, Hit] = {}
        for end in range(start + 1, min(start + self.longest, len(words)) + 1):
            phrase = " ".join(words[start:end])
            names = self._whole.get(phrase, ())
            for size in self._sizes:
                if size > len(phrase):
                    break
                names = (*names, *self._beginnings.get(phrase[:size], ()))
            for name in names:
                # `porn*` begins "porn star and cat" too: only the last word may go on
                if end - start == 1 or _ends_here(phrase, self._beginnings, self._whole, name):
                    best[name] = Hit(name, phrase, start, end)
        return list(best.values())


def _ends_here(
    phrase: str,
    beginnings: Mapping[str, Sequence[str]],
    whole: Mapping[str, Sequence[str]],
    name: str,
) -> bool:
    """Whether the phrase's last word belongs to the list's phrase, not only its first ones."""
    if name in whole.get(phrase, ()):
        return True
    last = phrase.rindex(" ") + 1
    return any(
        name in beginnings.get(phrase[:size], ()) for size in range(last + 1, len(phrase) + 1)
    )
