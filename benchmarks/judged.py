"""Texts and LLM answers labelled by hand, and how many of each kind the rules get wrong.

wrong = mistakes()[2, "minors"]       # Judged(texts=55, wrong=["jailbait selfie"])
wrong = answers()["report", "taken"]  # Judged(texts=311, wrong=["a herd of elephants & …"])
"""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from common.language import foreign
from common.safety import NOTHING, find
from generate.llms.variations import VariationFilter

LABELLED = Path(__file__).with_name("judged_texts.txt")
ANSWERS = LABELLED.parent.parent / "tests" / "generate" / "llm_answers.jsonl"
TAIL = ", highly detailed, digital painting, artstation"
RIGHT: dict[str, Callable[[str], bool]] = {
    "minors": lambda text: bool(find(text).minors),
    "sexual": lambda text: bool(find(text).sexual or find(text).minors),
    "harmless": lambda text: find(text) == NOTHING,
    "foreign": lambda text: bool(foreign(text)),
    "foreign with an English tail": lambda text: bool(foreign(text + TAIL)),
    "tailed, foreign with an English tail of its own": lambda text: bool(foreign(text)),
    "sentences, foreign": lambda text: bool(foreign(text)),
    "sentences with a tail of their own, foreign": lambda text: bool(foreign(text)),
    "english": lambda text: not foreign(text),
}


@dataclass
class Judged:
    """How many texts a kind has, and which of them are judged wrongly."""

    texts: int = 0
    wrong: list[str] = field(default_factory=list)


def mistakes() -> dict[tuple[int, str], Judged]:
    """By (number of the set, kind)."""
    judged: defaultdict[tuple[int, str], Judged] = defaultdict(Judged)
    number = 0
    kinds: list[str] = []
    for line in LABELLED.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            number = int(line[3:])
        elif line.startswith("# "):
            kinds = [kind for kind in RIGHT if kind.startswith(line[2:])]
        else:
            for kind in kinds:
                judged[number, kind].texts += 1
                if not RIGHT[kind](line):
                    judged[number, kind].wrong.append(line)
    return judged


def answers() -> dict[tuple[str, str], Judged]:
    """By (half, "taken"): texts taken of LLM answers; by (half, "good"): texts to be taken."""
    judged: defaultdict[tuple[str, str], Judged] = defaultdict(Judged)
    for line in ANSWERS.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        found, _ = VariationFilter(entry["prompt"]).accept(
            entry["answer"], cut=entry["finish"] != "stop"
        )
        taken = [text for _, text in found]
        for kind, texts, others in (
            ("taken", taken, entry["good"]),
            ("good", entry["good"], taken),
        ):
            judged[entry["half"], kind].texts += len(texts)
            judged[entry["half"], kind].wrong += [text for text in texts if text not in others]
    return judged
