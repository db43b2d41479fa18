"""Which texts of an LLM's answer become variations of a prompt.

kept = VariationFilter("a corgi in a top hat", known=[])
texts, why = kept.accept('{"variations": ["a corgi at sea", "A corgi in a top hat."]}')
# ([(0, "a corgi at sea")], {"copies": 1})

A text must be a text (chatter.py), pass the screen that all texts pass (common/screening.py), be no
copy (copies.py), and keep something of the prompt.
"""

import re
from collections import Counter
from collections.abc import Iterable

from common.screening import HATE, MINORS, PROFANITY, SEXUAL, VALIDATION_SET, Screen
from generate.llms.answers import texts_of
from generate.llms.chatter import fault_of
from generate.llms.copies import CopyIndex, content_words

# Characters of a text: a JPEG comment holds 65 kB with all metadata, and a text may be nothing but
# 4-byte characters.
LONGEST = 2000
MOST_WORDS = 80  # or twice as many as the prompt has
# Cosine below which a text that shares no content word is about something else: of ten pairs
# that are, the nearest has 0.06; "tulips" and "sunflowers" have 0.10.
NEAR = 0.09
SCREENED = (MINORS, SEXUAL, HATE, PROFANITY, VALIDATION_SET)


class VariationFilter:
    """The texts accepted for one prompt so far, and the judge of further ones."""

    def __init__(
        self, prompt: str, known: Iterable[str] = (), screen: Screen | None = None
    ) -> None:
        self.prompt = prompt
        self.screen = screen or Screen()
        self.texts: list[str] = []
        self.copies = CopyIndex([prompt, *known])
        self.words = content_words(prompt)
        self.most_words = max(MOST_WORDS, 2 * len(prompt.split()))

    def accept(
        self, answer: str, most: int | None = None, cut: bool = False, pattern: str | None = None
    ) -> tuple[list[tuple[int, str]], Counter[str]]:
        """([(place in the answer, text)] accepted now, how many were rejected by reason).

        Accepted ones are remembered. cut: the provider says that the answer was cut off. pattern: a
        regular expression that each text must match.
        """
        accepted: list[tuple[int, str]] = []
        why: Counter[str] = Counter()
        for place, text in enumerate(texts_of(answer, cut)):
            reason = self._fault(text, pattern)
            if not reason and most is not None and len(accepted) >= most:
                reason = "more than asked for"
            if reason:
                why[reason] += 1
                continue
            accepted.append((place, text))
            self.texts.append(text)
            self.copies.add(text)
        return accepted, why

    def _fault(self, text: str, pattern: str | None) -> str | None:
        """Why a text is not taken, or None."""
        if len(text) > LONGEST or len(text.split()) > self.most_words:
            return "too long"
        if fault := fault_of(text):
            return fault
        if pattern and not re.fullmatch(pattern, text):
            return "pattern"
        if self.copies.has(text):
            return "copies"
        verdict = self.screen.judge_variation(text, self.prompt)
        if verdict.reason:
            safety = verdict.reason.startswith(SCREENED)
            return "screened" if safety else "unusable"
        return None if self._is_near(text) else "off the subject"

    def _is_near(self, text: str) -> bool:
        if self.words & content_words(text):
            return True
        # numpy, which a client that finds all done does without
        from common.embeddings import embed

        one, other = embed([self.prompt, text])
        return float(one @ other) >= NEAR
