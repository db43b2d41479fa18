"""A tolerant JSON reader: finds the values that stand anywhere in a model's answer.

values("Sure! {'a': ['one', 'two', 'thr")      # [Found({"a": ["one", "two"]}, 6, 31, cut=True)]

Tolerated: single and typographic quotes, bare keys, quotes and line breaks within strings, missing
and trailing commas, comments, `...`, an end that is missing (a string that was cut off is dropped).
Linear time: each character is read a bounded number of times.
"""

import re
from dataclasses import dataclass
from typing import Any

DEEPEST = 30
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}  # noqa: RUF001
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
# What may stand between values; `.` and `…` for those left out.
BETWEEN = re.compile(r"(?:[\s,.…]+|//[^\n]*|#[^\n]*)*")
WORD = re.compile(r"[^\W\d][\w$-]*|[-+]?\d[\w.+-]*")
WORDS = {"true": True, "false": False, "null": None, "none": None}
BLANKS = re.compile(r"\s*")
# In a string: what may be its end, or an escape.
SPECIAL = {end: re.compile(f"[\\\\{end}]") for end in QUOTES.values()}


@dataclass(frozen=True)
class Found:
    """A value, where it stands (from, to), and whether the text ended before it did."""

    value: Any
    start: int
    end: int
    cut: bool


class _NoValue(Exception):
    """What stands here is no JSON; place: how far it was read."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place


class _Cut(Exception):
    """The text ends within a value."""


def values(text: str) -> list[Found]:
    """All objects and lists, in their order; those within another are not listed again."""
    found: list[Found] = []
    reader = _Reader(text)
    place = 0
    while match := reader.opening.search(text, place):
        start = match.start()
        reader.cut = False
        try:
            value, place = reader.value(start, 0)
        except _NoValue as error:
            place = max(error.place, start + 1)
            continue
        found.append(Found(value, start, place, reader.cut))
    return found


class _Reader:
    opening = re.compile(r"[{\[]")

    def __init__(self, text: str) -> None:
        self.text = text
        self.cut = False

    def value(self, place: int, depth: int) -> tuple[Any, int]:
        """The value at a place and where it ends."""
        if place >= len(self.text):
            raise _Cut
        character = self.text[place]
        if depth > DEEPEST:
            raise _NoValue(place)
        if character == "[":
            return self._list(place + 1, depth)
        if character == "{":
            return self._object(place + 1, depth)
        if character in QUOTES:
            return self._string(place + 1, QUOTES[character])
        word = WORD.match(self.text, place)
        if not word or (word[0][0].isalpha() and word[0].lower() not in WORDS):
            raise _NoValue(place)
        return WORDS.get(word[0].lower()), word.end()  # a number is no text: None will do

    def _list(self, place: int, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        while True:
            place = self._between(place)
            if self._ends(place, "]"):
                return items, place + 1
            try:
                item, place = self.value(place, depth + 1)
            except _Cut:
                self.cut = True
                return items, len(self.text)
            items.append(item)

    def _object(self, place: int, depth: int) -> tuple[dict[str, Any], int]:
        fields: dict[str, Any] = {}
        while True:
            place = self._between(place)
            if self._ends(place, "}"):
                return fields, place + 1
            try:
                key, place = self._key(place)
                value, place = self.value(place, depth + 1)
            except _Cut:
                self.cut = True
                return fields, len(self.text)
            fields.setdefault(key, value)

    def _key(self, place: int) -> tuple[str, int]:
        if place >= len(self.text):
            raise _Cut
        character = self.text[place]
        if character in QUOTES:
            key, end = self._string(place + 1, QUOTES[character])
        else:
            word = WORD.match(self.text, place)
            if not word:
                raise _NoValue(place)
            key, end = word[0], word.end()
        end = self._blanks(end)
        if end >= len(self.text):
            raise _Cut
        if self.text[end] != ":":
            raise _NoValue(end)
        return key, self._blanks(end + 1)

    def _string(self, place: int, quote: str) -> tuple[str, int]:
        """A string ends at a quote behind which a comma, a bracket, a colon or nothing stands."""
        parts: list[str] = []
        while match := SPECIAL[quote].search(self.text, place):
            parts.append(self.text[place : match.start()])
            place = match.end()
            if match[0] == "\\":
                piece, place = self._escape(place)
                parts.append(piece)
            elif self._closes(place):
                return "".join(parts), place
            else:
                parts.append(quote)
        raise _Cut

    def _closes(self, place: int) -> bool:
        after = self._blanks(place)
        if after >= len(self.text) or self.text[after] in ",]}:":
            return True
        return self.text[after] in QUOTES and "\n" in self.text[place:after]

    def _escape(self, place: int) -> tuple[str, int]:
        letter = self.text[place : place + 1]
        code = self.text[place + 1 : place + 5]
        if letter == "u" and re.fullmatch("[0-9a-fA-F]{4}", code):
            return chr(int(code, 16)), place + 5
        return ESCAPES.get(letter, letter), place + 1

    def _ends(self, place: int, bracket: str) -> bool:
        """Whether a list or object ends here; a wrong bracket is taken for the right one."""
        return self.text[place : place + 1] == bracket

    def _between(self, place: int) -> int:
        match = BETWEEN.match(self.text, place)
        return match.end() if match else place

    def _blanks(self, place: int) -> int:
        match = BLANKS.match(self.text, place)
        return match.end() if match else place
