"""Which prompts are, or quote, a prompt of the validation set.

Three looks, each for what the others miss: the same folded text; 8 words in a row in common; and
for short prompts (958 of Gecko's 1,546 have fewer than 13 words, so the usual 13-grams are blind)
the share of equal letters of the whole texts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from rapidfuzz import fuzz, process

WORDS = 8  # in a row; 6 hits 16-110 innocent prompts of a real set, 8 hits 3 of 12,966
# of 100, by rapidfuzz; "a large jet flying through a cloudy blue sky" and Gecko's "a airplane is
# flying through ..." are 87
RATIO = 85
SHORT = 16  # words up to which the ratio is asked; longer ones that are alike share 8 words
# letters: a folded text shorter than this must be the same: "6 sandwiches" and "10 sandwiches" are
# 88 alike
LETTERS = 16

Found = tuple[str, str, float]  # how, which prompt, similarity 0-1


class Excluded:
    """The validation prompts, indexed."""

    def __init__(self, prompts: Iterable[str], fold: Callable[[str], str]) -> None:
        self.exact: dict[str, str] = {}
        self.runs: dict[str, str] = {}
        self.by_length: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        self.windows: dict[int, tuple[list[str], list[str]]] = {}
        for prompt in prompts:
            folded = fold(prompt)
            words = folded.split()
            self.exact.setdefault(folded, prompt)
            for i in range(len(words) - WORDS + 1):
                self.runs.setdefault(" ".join(words[i : i + WORDS]), prompt)
            if len(folded) >= LETTERS and len(words) <= SHORT:
                self.by_length[len(folded)].append((folded, prompt))

    def find(self, folded: str) -> Found | None:
        """How a folded text is like which prompt of the set; None if it is not."""
        if folded in self.exact:
            return "same text", self.exact[folded], 1.0
        words = folded.split()
        for i in range(len(words) - WORDS + 1):
            run = " ".join(words[i : i + WORDS])
            if run in self.runs:
                return f"{WORDS} words in common", self.runs[run], WORDS / len(words)
        if len(folded) >= LETTERS and len(words) <= SHORT:
            return self._alike(folded)
        return None

    def _alike(self, folded: str) -> Found | None:
        n = len(folded)
        if n not in self.windows:
            # of the other's length: a ratio of 85 cannot be had below 0.74
            shortest = RATIO / (200 - RATIO)
            near = [
                pair
                for length in range(int(n * shortest), int(n / shortest) + 2)
                for pair in self.by_length.get(length, ())
            ]
            self.windows[n] = ([text for text, _ in near], [prompt for _, prompt in near])
        texts, prompts = self.windows[n]
        best = process.extractOne(
            folded, texts, scorer=fuzz.ratio, processor=None, score_cutoff=RATIO
        )
        return ("alike", prompts[best[2]], best[1] / 100) if best else None
