"""How many prompts would a similarity index alone drop, and how many does combine.py?

    python benchmarks/near_duplicates.py prompts/image_reward.json prompts/HPDv2.json

FILE: outputs of the processors. The Jaccard index of the 3-word shingles of every pair is computed,
not estimated; a prompt counts when it is alike an earlier one that stays. A minute for 13,000.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from combine_prompts import near_duplicates
from common.texts import fold

THRESHOLDS = (0.5, 0.6, 0.7, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args()
    items = [item for path in args.files for item in json.loads(path.read_text())]
    texts = [item if isinstance(item, str) else item["prompt"] for item in items]
    prompts = {fold(text): text for text in reversed(texts)}  # the first of equal ones
    folded = list(dict.fromkeys(map(fold, texts)))
    print(f"{len(texts):,} prompts, {len(folded):,} different")
    shingles = [near_duplicates.shingles(each.split()) for each in folded]
    for threshold in THRESHOLDS:
        print(f"index alone, {threshold}: {alike(shingles, threshold):,}", flush=True)
    found = near_duplicates.find([prompts[each] for each in folded], folded)
    print(f"combine.py, {near_duplicates.THRESHOLD} and the same subject: {len(found):,}")


def alike(shingles: list[set[str]], threshold: float) -> int:
    """How many sets have an index of `threshold` and more with one before them that stays."""
    holders: defaultdict[str, list[int]] = defaultdict(list)
    dropped = 0
    for place, own in enumerate(shingles):
        common = Counter(other for shingle in own for other in holders.get(shingle, ()))
        if any(
            both >= threshold * (len(own) + len(shingles[other]) - both)
            for other, both in common.items()
        ):
            dropped += 1
            continue
        for shingle in own:
            holders[shingle].append(place)
    return dropped


if __name__ == "__main__":
    main()
