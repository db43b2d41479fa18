"""Attributes in which variations differ (a place, a style, a light, …), drawn from lists.

attributes = Attributes.read()                          # attributes.yaml, or a user's file
drawn = attributes.draw("42/a corgi/1", n=10)           # [{"place": "at a country fair", …}, …]
"""

import os
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.files import parse_yaml
from common.texts import fold, word_set
from common.untrusted import read_text
from generate.llms.copies import content_words

FILE = Path(__file__).resolve().parent / "attributes.yaml"
PER_TEXT = 3  # attributes a variation is given
LONGEST = 100  # characters of an attribute
# Categories that clash: only one of them is drawn, so that no text is at noon and by moonlight, or
# in a Tokyo subway and in the Stone Age.
CLASHES = tuple(
    map(
        frozenset,
        (
            ("time", "light"),
            ("era", "light"),
            ("era", "time"),
            ("era", "place"),
            ("era", "culture"),
            ("place", "culture"),
            ("style", "medium"),
        ),
    )
)
# Words by which a prompt itself states a category, which is then not drawn: no "oil painting of a
# king, 35mm photo".
SAID = {
    "medium": word_set(
        """photo photograph photography painting painted watercolor watercolour oil sketch drawing
        pencil charcoal ink render rendering illustration poster sculpture statue mosaic woodcut
        engraving etching mural graffiti tapestry collage anime cartoon comic manga 3d 35mm polaroid
        film movie still screenshot gameplay cgi art artwork vector logo icon figurine claymation
        claymodel lego origami instax kodachrome"""
    ),
    "time": word_set(
        """dawn dusk noon midnight night day morning evening sunset sunrise winter summer spring
        autumn snow snowy storm rain fog foggy"""
    ),
    "light": word_set("light lit sunlight moonlight night sunset sunrise noon neon candle"),
    "era": word_set(
        """century medieval ancient victorian edwardian prehistoric future futuristic futurist
        modern retro vintage cyberpunk steampunk"""
    ),
    "shot": word_set("closeup close-up portrait aerial macro view"),
}
DECADE = re.compile(r"(?:1\d|20)\d\ds?|\d0s")  # 1923, 1980s, 80s: an era
HEAD = "Let each variation take up what its line says, where that fits:"
Drawn = dict[str, str]  # category -> attribute


class Attributes:
    """Lists of attributes by category."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self.lists = {name: tuple(dict.fromkeys(words)) for name, words in lists.items()}
        self._folded = {name: tuple(map(fold, words)) for name, words in self.lists.items()}
        # all of them, folded as the texts are in which they are looked for
        self.phrases = frozenset(word for words in self._folded.values() for word in words)

    @classmethod
    def read(cls, path: str | os.PathLike[str] | None = None) -> "Attributes":
        """The lists of a YAML file {category: [attribute, …]}. Raises UserError."""
        path = Path(path) if path else FILE
        try:
            text = read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the attributes {path}: {error}") from None
        try:
            document = parse_yaml(text)
        except ValueError as error:
            raise UserError(f"{path} is not YAML: {error}") from None
        if not isinstance(document, dict) or not document:
            raise UserError(f"{path} must hold categories, each a list of attributes")
        return cls({str(name): _checked(path, name, words) for name, words in document.items()})

    def clashing(self, text: str) -> str:
        """Two attributes of one category that a text names together; empty if there are none.

        Only of the categories of which a picture has one.
        """
        folded = f" {fold(text)} "
        for name in ("time", "era", "place"):
            found = [word for word in self._folded.get(name, ()) if f" {word} " in folded]
            if len(found) > 1 and found[0] not in found[1] and found[1] not in found[0]:
                return f"{found[0]} + {found[1]}"
        return ""

    def most_bytes(self, n: int) -> int:
        """Of lines_of() for n texts, at most."""
        longest = max(len(word.encode()) for words in self.lists.values() for word in words)
        return 100 + n * (PER_TEXT * (longest + 2) + 8)

    def draw(self, seed: str, n: int, prompt: str = "") -> list[Drawn]:
        """Attributes for n texts: of three categories each; the same seed draws the same.

        Within a call an attribute comes again only when its list is used up. What the prompt says
        before its first comma is not drawn, nor are two categories that clash.
        """
        random_source = random.Random(seed)
        said = set(fold(prompt.partition(",")[0]).split())
        said |= {"century" for word in said if DECADE.fullmatch(word)}
        names = [name for name in sorted(self.lists) if said.isdisjoint(_says(name))]
        names = names or sorted(self.lists)
        piles: dict[str, list[str]] = {name: [] for name in names}
        drawn: list[Drawn] = []
        for _ in range(n):
            chosen = _without_clashes(random_source.sample(names, len(names)))
            for name in chosen:
                if not piles[name]:
                    piles[name] = random_source.sample(self.lists[name], len(self.lists[name]))
            drawn.append({name: piles[name].pop() for name in chosen})
        return drawn


def _says(name: str) -> frozenset[str]:
    """The words by which a prompt says itself what a category would."""
    return SAID["medium"] if name == "style" else SAID.get(name, frozenset())


def _without_clashes(names: Sequence[str]) -> list[str]:
    """The first PER_TEXT categories of which no two clash."""
    chosen: list[str] = []
    for name in names:
        if len(chosen) < PER_TEXT and not any({name, other} in CLASHES for other in chosen):
            chosen.append(name)
    return chosen


def _checked(path: Path, name: Any, words: Any) -> list[str]:
    """The attributes of a category, each a short text."""
    if not isinstance(words, list) or not words:
        raise UserError(f"{path}: {name} must be a list of attributes")
    texts = [str(word).strip() for word in words if not isinstance(word, dict | list)]
    if len(texts) < len(words) or not all(0 < len(text) <= LONGEST for text in texts):
        raise UserError(f"{path}: each attribute of {name} is a text of 1 to {LONGEST} characters")
    return texts


def lines_of(drawn: Sequence[Drawn]) -> str:
    """The lines of the instruction: one for each variation."""
    lines = [f"{k}. {', '.join(each.values())}" for k, each in enumerate(drawn, 1)]
    return "\n".join(["", HEAD, *lines, ""])


def drawn_for(text: str, place: int, drawn: Sequence[Drawn]) -> Drawn:
    """The line that a text followed: that with most words in it, else the line of its number."""
    words = content_words(text)
    shared = [len(words & content_words(" ".join(each.values()))) for each in drawn]
    best = max(shared, default=0)
    if best and (place >= len(drawn) or shared[place] < best):
        return drawn[shared.index(best)]
    return drawn[place] if place < len(drawn) else {}
