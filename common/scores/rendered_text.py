"""rendered_text: whether the words that a prompt puts in quotes are to be read in the image."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import rapidocr

from common.scores.interface import Pixels

QUOTED = re.compile(r"\"([^\"]{1,200})\"|“([^”]{1,200})”|«([^»]{1,200})»")


class RenderedText:
    """Share of the quoted words that are read in the image, 0 to 1; NaN without quoted words.

    Read by rapidocr (PP-OCR models, in the package). Upper and lower case, accents and order do
    not count; a word that is asked for twice has to be there twice.
    """

    name = "rendered_text"
    version = f"rapidocr {rapidocr.__version__}" if hasattr(rapidocr, "__version__") else "rapidocr"
    licence = "Apache-2.0"

    def __init__(self) -> None:
        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        self._read = rapidocr.RapidOCR(params={"Global.log_level": "error"})

    def score(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        return [
            self._share(image, wanted) if (wanted := quoted_words(text)) else float("nan")
            for image, text in zip(images, texts, strict=True)
        ]

    def _share(self, image: Pixels, wanted: Counter[str]) -> float:
        found: Any = self._read(image[:, :, ::-1])  # as OpenCV has it: blue first
        there = Counter(word for line in found.txts or () for word in words(line))
        joined = "".join(sorted(there.elements(), key=len, reverse=True))
        hits = sum(
            min(count, max(there[word], joined.count(word) if len(word) > 3 else 0))
            for word, count in wanted.items()
        )
        return hits / wanted.total()


def quoted_words(text: str) -> Counter[str]:
    """The words in double quotes of a prompt, folded, with how often each is asked for."""
    return Counter(word for found in QUOTED.findall(text) for part in found for word in words(part))


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c)))
