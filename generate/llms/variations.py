"""Decide which texts of an LLM's answer become variations of a prompt.

kept = VariationFilter("a corgi in a top hat", known=[])
texts, why = kept.accept('{"variations": ["a corgi at sea", "A corgi in a top hat."]}')
# ([(0, "a corgi at sea")], {"copies": 1})

A text must be a text (chatter.py), whole (torn.py), pass the screen that all texts pass
(common/screening.py), be no copy (copies.py), and keep something of the prompt.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from common.screening import HATE, MINORS, PROFANITY, SEXUAL, VALIDATION_SET, Screen
from common.texts import fold
from generate.llms.answers import texts_of
from generate.llms.attributes import Attributes
from generate.llms.chatter import fault_of
from generate.llms.copies import CopyIndex, content_words
from generate.llms.torn import fault_of_form

# Characters of a text: a JPEG comment holds 65 kB with all metadata, and a text may be nothing but
# 4-byte characters.
LONGEST = 2000
MOST_WORDS = 80  # or twice as many as the prompt has
# Cosine below which a text that shares no content word is about something else: of ten pairs
# that are, the nearest has 0.06; "tulips" and "sunflowers" have 0.10.
NEAR = 0.09
MOST_OF_A_CORE = 2  # texts that differ in the attributes behind their commas alone
ECHO = 6  # words of the instruction in a row: the model repeats it
SCREENED = (MINORS, SEXUAL, HATE, PROFANITY, VALIDATION_SET)


@dataclass(frozen=True)
class Given:
    """What the model was given beside the prompt: the instruction, and lists of attributes."""

    instruction: str = ""
    attributes: Attributes | None = None


class VariationFilter:
    """The texts accepted for one prompt so far, and the judge of further ones."""

    def __init__(
        self,
        prompt: str,
        known: Iterable[str] = (),
        screen: Screen | None = None,
        given: Given | None = None,
    ) -> None:
        known = list(known)
        self.prompt = prompt
        self.screen = screen or Screen()
        self.texts: list[str] = []
        self.copies = CopyIndex([prompt, *known])
        self.attributes = given.attributes if given else None
        self.phrases = self.attributes.phrases if self.attributes else frozenset()
        self.echoes = _runs(given.instruction if given else "") - _runs(prompt)
        self.cores = Counter([self._core(text) for text in known])
        self.cores[self._core(prompt)] = MOST_OF_A_CORE
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
            self.cores[self._core(text)] += 1
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
        if self.cores[self._core(text)] >= MOST_OF_A_CORE:
            return "copies"
        if fault_of_form(text, self.prompt) or self._contradicts(text) or self._echoes(text):
            return "unusable"
        verdict = self.screen.judge_variation(text, self.prompt)
        if verdict.reason:
            safety = verdict.reason.startswith(SCREENED)
            return "screened" if safety else "unusable"
        return None if self._is_near(text) else "off the subject"

    def _core(self, text: str) -> frozenset[str]:
        """The content words of a text without the attributes that stand behind its commas."""
        clauses = [clause for clause in text.split(",") if fold(clause) not in self.phrases]
        return content_words(",".join(clauses))

    def _contradicts(self, text: str) -> bool:
        return bool(self.attributes and self.attributes.clashing(text))

    def _echoes(self, text: str) -> bool:
        return not self.echoes.isdisjoint(_runs(text))

    def _is_near(self, text: str) -> bool:
        if self.words & content_words(text):
            return True
        # numpy, which a client that finds all done does without
        from common.embeddings import embed

        one, other = embed([self.prompt, text])
        return float(one @ other) >= NEAR


def _runs(text: str) -> frozenset[str]:
    """The runs of ECHO words of a text."""
    words = fold(text).split()
    return frozenset(
        " ".join(words[start : start + ECHO]) for start in range(len(words) - ECHO + 1)
    )
