"""What is taken from an LLM's answer: a tolerant parser, and the rejection of what is no variation.

kept = VariationFilter("a corgi in a top hat", known=[])
texts, why = kept.accept('{"variations": ["a corgi at sea", "A corgi in a top hat."]}')
# (["a corgi at sea"], {"copies": 1})
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from rapidfuzz import fuzz, process

# Characters of a text: a JPEG comment holds 65 kB with all metadata, and a text may be nothing but
# 4-byte characters.
LONGEST = 2000
# rapidfuzz ratio of folded texts from which on one is a copy: "… in snow" / "… in the snow" are,
# another place or style is not.
ALIKE = 92
REFUSAL = re.compile(
    r"^(i(['’]?m| am)? (sorry|unable|afraid)|sorry\b"  # noqa: RUF001
    r"|i (can['’]?t|cannot|can not|won['’]?t|must decline|apologi[sz]e)"  # noqa: RUF001
    r"|as an ai\b|unfortunately, i)",
    re.I,
)
REFUSAL_ANYWHERE = re.compile(
    r"\b(can['’]?t|cannot|unable to) (help|assist|comply|create|generate|fulfil|provide)\b"  # noqa: RUF001
    r".*\b(request|content|that|this)\b",
    re.I,
)
PREAMBLE = re.compile(
    r"^(sure|certainly|of course|okay|here (are|is|'s)|here’s|below are|the following|these are"  # noqa: RUF001
    r"|hope (this|these|you)|let me know)\b.*([:!.]|variations?|captions?|rewrites?)$",
    re.I,
)
NUMBER = re.compile(
    r"^\s*(?:[-*•]\s+|\(?\d{1,3}[.):]\s+|(?:variation|caption|rewrite|prompt)\s*#?\d{1,3}\s*[:.)-]\s*)",
    re.I,
)
QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("«", "»"))


def parse(text: str) -> list[str]:
    """Texts of an answer: JSON wherever it stands in it, cut off or not; else a list of lines.

    [] if there is neither.
    """
    # Deferred: langchain takes seconds to import.
    from langchain_core.utils.json import parse_json_markdown

    found = None
    start = min((k for k in (text.find("{"), text.find("[")) if k >= 0), default=-1)
    if start >= 0:
        try:
            found = parse_json_markdown(text if "```" in text else text[start:])
        except ValueError:  # json.JSONDecodeError is one
            found = None
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if lists else list(found.values())
    if isinstance(found, list):
        texts = [
            next((v for v in item.values() if isinstance(v, str)), None)
            if isinstance(item, dict)
            else item
            for item in found
        ]
        return [item for item in texts if isinstance(item, str)]
    lines = text.splitlines()
    listed = [line for line in lines if NUMBER.match(line)]
    return listed if len(listed) > 1 else [line for line in lines if REFUSAL.match(line.strip())]


def fold(text: str) -> str:
    """Letters and digits alone, lower case, without accents and articles: what copies share."""
    text = unicodedata.normalize("NFKD", text).casefold()
    letters = [c if c.isalnum() else " " for c in text if not unicodedata.combining(c)]
    words = "".join(letters).split()
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def overlap(original: str, text: str) -> float:
    """Share of the original's words that the text has too, 0 … 1."""
    words = set(fold(original).split())
    return round(len(words & set(fold(text).split())) / len(words), 3) if words else 0.0


def clean(text: str) -> str:
    """The text without numbering, quotes around it, control characters and lone surrogates."""
    text = NUMBER.sub("", text.encode("utf-8", "ignore").decode("utf-8"))
    text = unicodedata.normalize("NFC", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(text) > 1 and (text[0], text[-1]) in QUOTES:
        text = text[1:-1].strip()
    return text


class VariationFilter:
    """The texts accepted for one prompt so far, and the judge of further ones."""

    def __init__(self, prompt: str, known: Iterable[str] = ()) -> None:
        self.texts: list[str] = []
        self.folded = [fold(prompt), *(fold(text) for text in known)]

    def accept(self, answer: str, most: int | None = None) -> tuple[list[str], Counter[str]]:
        """(texts accepted now, how many were rejected by reason). Accepted ones are remembered."""
        accepted: list[str] = []
        why: Counter[str] = Counter()
        for text in (clean(item) for item in parse(answer)):
            reason = self._fault(text)
            if not reason and most is not None and len(accepted) >= most:
                reason = "more than asked for"
            if reason:
                why[reason] += 1
                continue
            accepted.append(text)
            self.texts.append(text)
            self.folded.append(fold(text))
        return accepted, why

    def _fault(self, text: str) -> str | None:
        """Why a text is not taken, or None."""
        folded = fold(text)
        if len(folded) < 3:
            return "unusable"
        if REFUSAL.match(text) or (len(text) < 200 and REFUSAL_ANYWHERE.search(text)):
            return "refusal"
        if PREAMBLE.match(text):
            return "unusable"
        if len(text) > LONGEST:
            return "too long"
        if process.extractOne(folded, self.folded, scorer=fuzz.ratio, score_cutoff=ALIKE):
            return "copies"
        return None
