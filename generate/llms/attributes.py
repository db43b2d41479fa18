"""What each variation is given to differ in: a place, a style, a light …, drawn from lists.

attributes = Attributes.read()                          # attributes.yaml, or a user's file
drawn = attributes.draw("42/a corgi/1", n=10)           # [{"place": "at a country fair", …}, …]
"""

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from common.command_line import UserError
from common.untrusted import read_text
from generate.llms.copies import content_words

FILE = Path(__file__).resolve().parent / "attributes.yaml"
PER_TEXT = 3  # attributes a variation is given
LONGEST = 100  # characters of an attribute
HEAD = "Let each variation take up what its line says, where that fits:"
Drawn = dict[str, str]  # category -> attribute


class Attributes:
    """Lists of attributes by category."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self.lists = {name: tuple(dict.fromkeys(words)) for name, words in lists.items()}

    @classmethod
    def read(cls, path: str | os.PathLike[str] | None = None) -> "Attributes":
        """The lists of a YAML file {category: [attribute, …]}. Raises UserError."""
        path = Path(path) if path else FILE
        try:
            document = yaml.safe_load(read_text(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the attributes {path}: {error}") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from None
        if not isinstance(document, dict) or not document:
            raise UserError(f"{path} must hold categories, each a list of attributes")
        return cls({str(name): _checked(path, name, words) for name, words in document.items()})

    def most_bytes(self, n: int) -> int:
        """Of lines_of() for n texts, at most."""
        longest = max(len(word.encode()) for words in self.lists.values() for word in words)
        return 100 + n * (PER_TEXT * (longest + 2) + 8)

    def draw(self, seed: str, n: int) -> list[Drawn]:
        """Attributes for n texts: of three categories each; the same seed draws the same.

        Within a call an attribute comes again only when its list is used up.
        """
        random_source = random.Random(seed)
        names = sorted(self.lists)
        piles: dict[str, list[str]] = {name: [] for name in names}
        drawn: list[Drawn] = []
        for _ in range(n):
            chosen = random_source.sample(names, min(PER_TEXT, len(names)))
            for name in chosen:
                if not piles[name]:
                    piles[name] = random_source.sample(self.lists[name], len(self.lists[name]))
            drawn.append({name: piles[name].pop() for name in chosen})
        return drawn


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
    """Which line a text took up: the one with most words in it, else the one of its place."""
    words = content_words(text)
    shared = [len(words & content_words(" ".join(each.values()))) for each in drawn]
    best = max(shared, default=0)
    if best and (place >= len(drawn) or shared[place] < best):
        return drawn[shared.index(best)]
    return drawn[place] if place < len(drawn) else {}
