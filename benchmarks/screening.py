"""How well does the judge hold? Rewritten validation prompts, safe prompts, other languages.

    python benchmarks/screening.py [--safe FILE …] [--foreign FILE …] [--hate FILE]

The validation prompts and their paraphrases below were written after the thresholds were chosen.
judged_texts.txt: sexual, harmless, foreign and English texts; tests/generate/llm_answers.jsonl:
answers of LLMs. Of both the share that is judged wrongly is printed, and each of these texts.
FILE: a JSON list of prompts (or of objects with "prompt"), or a text file with one a line. --safe:
what each filter drops of them; --foreign: how many are kept, alone and with an English style tail;
--hate: test_suite_cases.csv of HateCheck (github.com/paul-rottger/hatecheck-data, CC-BY-4.0).
"""

import argparse
import csv
import json
import random
import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.judged import Judged, answers, mistakes
from common.language import foreign
from common.safety import find
from common.texts import fold
from common.validation_set import ValidationSet

PARAPHRASES = """a tortoise balancing on a skateboard | a skateboard with a balancing tortoise on it
two violinists playing on a rooftop at sunset | at sunset a pair of violinists plays on the roof
a blue teapot beside a stack of old books | a pile of old books and next to it a teapot in blue
an astronaut planting a flag on a comet | a flag being planted on a comet by an astronaut
a bakery window full of croissants and cakes | cakes and croissants filling the window of a bakery
a potter shaping a tall vase by candlelight | by the light of a candle a potter shapes a tall vase
three penguins sliding down an icy slope | three penguins slide down a slope of ice
a wooden rowing boat on a misty lake | a rowboat made of wood on a lake in the mist
an old woman knitting a scarf for a giraffe | a giraffe's scarf knitted by an elderly woman
a robot watering flowers in a greenhouse | flowers in a greenhouse watered by a robot
the word "harbor" painted on a rusty gate | a rusty gate with "harbor" painted on it
a chess game between a fox and an owl | a fox and an owl play chess against each other
a market stall selling lanterns at night | lanterns sold at a stall of the night market
a train crossing a bridge above a waterfall | a bridge over a waterfall with a train crossing it
a clockmaker repairing a huge pocket watch | a giant pocket watch repaired by a clockmaker
an owl reading a newspaper in an armchair | in an armchair sits an owl with a newspaper
a snowman wearing sunglasses on a beach | a beach with a snowman in sunglasses
five yellow umbrellas in an empty street | an empty street with five umbrellas in yellow
a cup of coffee with a galaxy swirling inside | a galaxy swirls inside a coffee cup
a child drawing a dragon with chalk on a wall | a kid draws a chalk dragon on the wall"""
TAILS = [
    "oil painting, trending on artstation, 8k",
    "highly detailed, digital painting, artstation",
]
TAILS += ["cinematic lighting, sharp focus, octane render", "watercolor, soft light", "photo, 35mm"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--safe", nargs="+", type=Path, default=[])
    parser.add_argument("--foreign", nargs="+", type=Path, default=[])
    parser.add_argument("--hate", nargs="+", type=Path, default=[])
    parser.add_argument("--validation", type=Path, help="another validation set than the one here")
    parser.add_argument("--quick", action="store_true", help="our own prompts alone")
    args = parser.parse_args()
    pairs = [line.split(" | ") for line in PARAPHRASES.splitlines()]
    own = [original for original, _ in pairs]
    prompts = own + (read(args.validation) if args.validation and not args.quick else [])
    validation = ValidationSet.of(prompts)
    print("validation set, found in %:")
    show_found(validation, "paraphrased by hand", [text for _, text in pairs])
    chosen = random.Random(1).sample(prompts, min(200, len(prompts)))
    for name, rewritten in rewritings(chosen).items():
        show_found(validation, name, rewritten)
    show_judged()
    for path in [] if args.quick else args.safe:
        show_safe(path, validation)
    for path in [] if args.quick else args.foreign:
        show_foreign(path)
    for path in [] if args.quick else args.hate:
        show_hate(path)


def read(path: Path) -> list[str]:
    if path.suffix == ".json":
        items = json.loads(path.read_text())
        return [item if isinstance(item, str) else item["prompt"] for item in items]
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def rewritings(prompts: list[str]) -> dict[str, list[str]]:
    """What may become of a validation prompt on its way through the web."""
    rng = random.Random(2)
    return {
        "other case": [text.upper() for text in prompts],
        "one typo": [with_typos(text, 0, rng) for text in prompts],
        "typos in 30 % of words": [with_typos(text, 0.3, rng) for text in prompts],
        "shuffled": [" ".join(rng.sample(words, len(words))) for words in map(split, prompts)],
        "style tail": [f"{text.rstrip('.')}, {rng.choice(TAILS)}" for text in prompts],
        "in a longer prompt": [f"a poster of {text} in a museum hall" for text in prompts],
        "first 80 %": [" ".join(words[: -(-4 * len(words) // 5)]) for words in map(split, prompts)],
    }


def split(text: str) -> list[str]:
    return fold(text).split()


def with_typos(text: str, share: float, rng: random.Random) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        word = words[place]
        cut = rng.randrange(max(1, len(word) - 1))
        words[place] = word[:cut] + word[cut : cut + 2][::-1] + word[cut + 2 :]
    return " ".join(words)


def show_found(validation: ValidationSet, name: str, texts: list[str]) -> None:
    matches = validation.find_all(texts)
    kinds = Counter(match.how for match in matches if match)
    print(f"  {name:<24} {100 * kinds.total() / len(texts):5.1f}   {dict(kinds)}")


def show_judged() -> None:
    print("labelled texts, judged wrongly:")
    for (number, kind), judged in mistakes().items():
        show_wrong(f"set {number}, {kind}", judged)
    print("labelled answers of LLMs; wrong of the texts taken, lost of the good ones:")
    for (half, kind), judged in answers().items():
        show_wrong(f"{half}, {kind}", judged)


def show_wrong(name: str, judged: Judged) -> None:
    wrong = len(judged.wrong)
    print(f"  {name:<40} {wrong:>3} of {judged.texts:>3} {100 * wrong / judged.texts:5.1f} %")
    for text in judged.wrong:
        print(f"      {text}")


def show_safe(path: Path, validation: ValidationSet) -> None:
    texts = read(path)
    dropped: Counter[str] = Counter()
    start = time.process_time()
    for text in texts:
        found = find(text)
        dropped.update(name for name, expression in vars(found).items() if expression)
        dropped["not English"] += bool(foreign(text))
    dropped["validation set"] = sum(match is not None for match in validation.find_all(texts))
    cost = (time.process_time() - start) / len(texts) * 1e6
    rates = ", ".join(f"{name} {1000 * n / len(texts):.2f}" for name, n in dropped.items())
    print(f"{path.name}: {len(texts):,} prompts, of 1,000 dropped: {rates}; {cost:.0f} us CPU each")


def show_foreign(path: Path) -> None:
    texts = read(path)
    rng = random.Random(3)
    tails = [f"{text}, {rng.choice(TAILS)}" for text in texts]
    firsts = [" ".join(re.split(r"\s+", text)[:4]) for text in texts]
    kept = [
        100 * sum(not foreign(text) for text in each) / len(texts)
        for each in (texts, tails, firsts)
    ]
    print(
        f"{path.name}: {len(texts):,} sentences, kept {kept[0]:.2f} %, with an English tail "
        f"{kept[1]:.2f} %, of their first 4 words {kept[2]:.2f} %"
    )


def show_hate(path: Path) -> None:
    cases: defaultdict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cases[f"{row['label_gold']}: {row['functionality']}"].append(row["test_case"])
    for name, texts in sorted(cases.items()):
        found = [find(text) for text in texts]
        hate = sum(bool(each.hate) for each in found)
        dropped = sum(bool(each.hate or each.sexual or each.minors) for each in found)
        print(f"  {name:<34} {len(texts):>4}, taken for hate {hate:>4}, dropped {dropped:>4}")


if __name__ == "__main__":
    main()
