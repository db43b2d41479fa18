"""Hate and rude words on a labelled set of 324 phrases: prompts, slogans, harmless neighbours.

Its author wrote it before reading the lists, and then mended them on the half "build". Of the half
"report" only the counts were looked at: found 24 of 40 and 21 of 30, wrong 5 of 92, before; after,
39 of 40 and 29 of 30, wrong 2 of 92. Both halves have one author, so other texts fare worse.
"""

import json
from collections import Counter
from pathlib import Path

from common import safety

LABELLED = Path(__file__).with_name("hate_and_profanity.jsonl")


def counts(half: str) -> Counter[str]:
    """By label: how many there are, and how many were found ("hate found")."""
    counted: Counter[str] = Counter()
    for line in LABELLED.read_text().splitlines():
        case = json.loads(line)
        if case["half"] != half:
            continue
        found = safety.find(case["text"])
        dropped = bool(found.hate or found.sexual or found.minors)
        is_found = {
            "hate": dropped,
            "profane": dropped or bool(found.profanity),
            "innocent": dropped or bool(found.profanity),
        }[case["label"]]
        counted[case["label"]] += 1
        counted[f"{case['label']} found"] += is_found
    return counted


def test_the_half_that_the_lists_were_mended_on():
    counted = counts("build")
    assert counted["hate found"] == counted["hate"] == 40
    assert counted["profane found"] == counted["profane"] == 30
    assert counted["innocent found"] == 0 and counted["innocent"] == 92


def test_the_half_to_report_on():
    counted = counts("report")
    print(dict(counted))
    assert counted["hate found"] >= 39 and counted["hate"] == 40
    assert counted["profane found"] >= 29 and counted["profane"] == 30
    assert counted["innocent found"] <= 2 and counted["innocent"] == 92
