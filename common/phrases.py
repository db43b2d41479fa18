"""Look up the phrases of word lists in a text, without regular expressions: no text is slow.

table = PhraseTable({"explicit": read_phrases("explicit")})
table.find(["a", "half", "naked", "man"])                    # [Hit("explicit", "half naked", 1, 3)]

A list's lines are phrases; `a/b` is either word, `(x)` may be missing, `*` is any ending,
`<people>` is any line of people.txt.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "word_lists"
LETTERS = 3  # of a word by which phrases with open endings are found
BEFORE_LAST, LAST = 1, 2
OPTIONAL = re.compile(r"\((\w+)\)")
OTHER_LIST = re.compile(r"<(\w+)>")


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
        for path in sorted(FOLDER.glob("*.txt*"))
    }


def written_out(words: Sequence[str]) -> list[str]:
    """All phrases that a line means: `boob(s) out/bare` is four."""
    choices = [[form for word in each.split("/") for form in _forms(word)] for each in words]
    # a word that may be missing leaves a double blank
    return [" ".join(" ".join(phrase).split()) for phrase in itertools.product(*choices)]


def _forms(word: str) -> list[str]:
    if other := OTHER_LIST.fullmatch(word):
        return read_phrases(other[1])
    if not OPTIONAL.search(word):
        return [word]
    return [OPTIONAL.sub("", word), OPTIONAL.sub(r"\1", word)]


class PhraseTable:
    """Several lists, each under a name, looked up together."""

    def __init__(self, lists: Mapping[str, Iterable[str]]) -> None:
        self._whole: dict[str, list[str]] = {}  # phrase: the lists that have it
        # of phrases that end in *: up to the third letter of the last word -> (its letters, lists)
        self._open: dict[str, dict[str, list[str]]] = {}
        self._longest: dict[str, int] = {}  # by first word: words of its longest phrase
        self._beginnings: set[str] = set()  # the first letters of one-word phrases that end in *
        # of phrases of several words the last two, the last one up to its third letter
        self._ends: set[str] = set()
        self._before_last: set[str] = set()
        self._last: set[str] = set()
        for name, phrases in lists.items():
            for phrase in phrases:
                self._add(name, phrase)

    def _add(self, name: str, phrase: str) -> None:
        words = phrase.split()
        head = phrase[: len(phrase) - len(words[-1])]
        if phrase.endswith("*"):
            letters = words[-1].rstrip("*")
            forms = self._open.setdefault(head + letters[:LETTERS], {})
            names = forms.setdefault(letters, [])
        else:
            names = self._whole.setdefault(phrase, [])
        if name not in names:
            names.append(name)
        if len(words) > 1:
            last = words[-1].rstrip("*")[:LETTERS]
            self._before_last.add(words[-2])
            self._last.add(last)
            self._ends.add(f"{words[-2]} {last}")
        if phrase.endswith("*") and not head:
            self._beginnings.add(phrase[:LETTERS])
        else:
            self._longest[words[0]] = max(self._longest.get(words[0], 1), len(words))

    def may_hold(self, words: Sequence[str]) -> bool:
        """A fast test: False if no phrase can be among the words."""
        return any(map(self._is_phrase, words)) or any(
            f"{word} {last[:LETTERS]}" in self._ends for word, last in pairwise(words)
        )

    def part(self, word: str) -> int:
        """What a word may be in a phrase of several: BEFORE_LAST | LAST, or 0."""
        return BEFORE_LAST * (word in self._before_last) | LAST * (word[:LETTERS] in self._last)

    def _is_phrase(self, word: str) -> bool:
        return word in self._whole or (
            word[:LETTERS] in self._beginnings
            and any(map(word.startswith, self._open[word[:LETTERS]]))
        )

    def single_words(self, name: str) -> list[str]:
        """The one-word phrases of a list, without the * of those with any ending."""
        whole = [phrase for phrase, names in self._whole.items() if name in names]
        forms = itertools.chain.from_iterable(self._open[each].items() for each in self._beginnings)
        return [word for word in whole if " " not in word] + [
            letters for letters, names in forms if name in names
        ]

    def find(self, words: Sequence[str]) -> list[Hit]:
        """All phrases among the words; the longest at each place for each list."""
        hits: list[Hit] = []
        for start, word in enumerate(words):
            if word in self._longest or word[:LETTERS] in self._beginnings:
                hits += self._find_at(words, start)
        return hits

    def _find_at(self, words: Sequence[str], start: int) -> list[Hit]:
        best: dict[str, Hit] = {}
        head = ""
        longest = self._longest.get(words[start], 1)
        for end in range(start + 1, min(start + longest, len(words)) + 1):
            last = words[end - 1]
            phrase = head + last
            names = list(self._whole.get(phrase, ()))
            for letters, of_form in self._open.get(head + last[:LETTERS], {}).items():
                if last.startswith(letters):
                    names += of_form
            for name in names:
                best[name] = Hit(name, phrase, start, end)
            head = phrase + " "
        return list(best.values())
