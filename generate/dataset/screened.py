"""Screen a prompts file as a run begins: which prompts and variations are generated.

    screen = screen_of("combined.json")             # the rules that combine.py wrote beside it
    print(refused_line("combined.json", items, screen))
    screened(screen, item)                          # a client asks for each prompt it generates

A refused prompt keeps its place in the list, so that no other index moves: its `.prompts` holds no
caption and says why, and it counts as done. Refused variations are left out in the same way.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from common.screening import Screen, summary
from generate.dataset.prompts_file import Item, find_prompts

AT_ONCE = 1_000  # prompts


@dataclass(frozen=True)
class Screened:
    """The result for an item: why it is refused ("": it is not), and its remaining variations."""

    refusal: str = ""
    variations: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)  # variations, by reason


def screen_of(data_path: str | os.PathLike[str]) -> Screen:
    """The screen that a prompts file was combined with, or the default one."""
    return Screen.beside(find_prompts(data_path))


def screened(screen: Screen, item: Item) -> Screened:
    """Judge a prompt, and the variations that the prompts file gives it."""
    verdict = screen.judge(item["prompt"])
    if verdict.reason:
        return Screened(f"refused: {verdict.reason} ({verdict.rule})")
    given = item.get("variations", [])
    verdicts = screen.judge_variations(given, [item["prompt"]] * len(given)) if given else []
    pairs = list(zip(given, verdicts, strict=True))
    kept = [text for text, each in pairs if not each.reason]
    return Screened("", kept, dict(Counter(each.reason for each in verdicts if each.reason)))


def refused_line(data_path: str | os.PathLike[str], items: Sequence[Item], screen: Screen) -> str:
    """How many prompts and variations are not generated, and why; empty if all are."""
    path = find_prompts(data_path)
    if screen.covers and screen.covers == _sha256(path):
        return ""  # combine.py has judged these very bytes
    prompts: Counter[str] = Counter()
    variations: Counter[str] = Counter()
    first = ""
    for start in tqdm(
        range(0, len(items), AT_ONCE), desc="judging prompts", unit="k", disable=None, leave=False
    ):
        chunk = items[start : start + AT_ONCE]
        for place, verdict in enumerate(screen.judge_all([item["prompt"] for item in chunk])):
            if verdict.reason:
                prompts[verdict.reason] += 1
                first = first or f"first item {start + place}: {verdict.rule}"
        pairs = [(text, item["prompt"]) for item in chunk for text in item.get("variations", [])]
        texts = [text for text, _ in pairs]
        for verdict in screen.judge_variations(texts, [prompt for _, prompt in pairs]):
            if verdict.reason:
                variations[verdict.reason] += 1
                first = first or f"first variation: {verdict.rule}"
    parts = []
    if prompts:
        parts.append(f"{prompts.total():,} of {len(items):,} prompts ({summary(prompts)})")
    if variations:
        parts.append(f"{variations.total():,} variations ({summary(variations)})")
    if not parts:
        return ""
    return f"not generated: {' and '.join(parts)}; {first}; each .prompts file says why"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
