"""Does cleaning damage real prompts? Compares raw and cleaned prompts and prints every difference, with the rule that made it.

    python benchmarks/cleaning.py --input FILE …

FILE: a JSON list of strings or of objects with "text" or "prompt", a CSV with "prompt", a parquet. --hpdv2 also undoes HPDv2's chat debris.

It knows nothing of the cleaner's patterns. Both sides are brought to NFC, case-folded, after ftfy and HTML entities, and then compared
    by letters and digits: what is lost or new is printed line by line, with its neighbourhood and the names of the rules that struck;
    by words: what was joined or split without losing a letter is printed once a kind, with its count;
    by signs: brackets, dashes and other punctuation lost or new, once a kind.
"""

import argparse
import csv
import html
import json
import sys
import textwrap
import time
import unicodedata
from collections import Counter, defaultdict
from difflib import SequenceMatcher
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ftfy

from combine_prompts import process_hpdv2
from combine_prompts.processor import clean_row

QUICK = [
    f"{style}, ( ( {subject} ) ), 8 k, f 1. 4, sci - fi --ar 16:9 "
    for style in ("oil", "ink")
    for subject in ("a dog", "a caf&eacute;", "4 knights")
]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        default=[],
        help="files with raw prompts (default: six prompts of ours)",
    )
    parser.add_argument(
        "--hpdv2",
        action="store_true",
        help="also undo HPDv2's chat debris, as process_hpdv2.py does",
    )
    parser.add_argument("--quick", action="store_true", help="six prompts of ours")
    args = parser.parse_args()
    print(
        f"{'file':<28} {'prompts':>8} {'changed':>8} {'dropped':>8} {'letters or digits differ':>25} {'prompts/s':>10}"
    )
    details = []
    for path in args.input if args.input and not args.quick else [None]:
        prompts = list(dict.fromkeys(read(path) if path else QUICK))
        start = time.perf_counter()
        cleaned = [
            clean_row(prompt, repair=process_hpdv2.repair if args.hpdv2 else None)
            for prompt in prompts
        ]
        rate = len(prompts) / (time.perf_counter() - start)
        letters, kinds, rules = compare(prompts, cleaned)
        changed = sum(raw != new for raw, (new, _, _) in zip(prompts, cleaned))
        dropped = [(raw, reason) for raw, (_, reason, _) in zip(prompts, cleaned) if reason]
        print(
            f"{path.name if path else 'ours':<28} {len(prompts):>8,} {changed:>8,} {len(dropped):>8,} {len(letters):>25,} {rate:>10,.0f}"
        )
        details.append((path, letters, kinds, rules, dropped))
    for path, letters, kinds, rules, dropped in details:
        print(
            f"\n===== {path or 'ours'}\n\nrules: "
            + ", ".join(f"{name} {count:,}" for name, count in rules.most_common())
        )
        print(f"\n--- dropped ({len(dropped)})")
        for raw, reason in dropped:
            print(f"  {reason}: {raw!r}")
        print(f"\n--- letters or digits lost [-…-] or new {{+…+}} ({len(letters)})")
        print("\n".join(letters))
        for (kind, rule), counts in sorted(kinds.items()):
            print(f"\n--- {kind} by {rule} ({sum(counts.values()):,} times, {len(counts):,} kinds)")
            print(
                textwrap.fill(
                    "   ".join(
                        f"{what} ×{count}" if count > 1 else what
                        for what, count in sorted(
                            counts.items(), key=lambda item: (-item[1], item[0])
                        )
                    ),
                    200,
                )
            )


def read(path):
    """Yield the raw prompts of a file."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield row["prompt"]
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        for batch in file.iter_batches(
            columns=["caption" if "caption" in file.schema_arrow.names else "prompt"]
        ):
            yield from batch.column(0).to_pylist()
    else:
        for item in json.loads(path.read_text()):
            yield item if isinstance(item, str) else item.get("text") or item["prompt"]


def compare(prompts, cleaned):
    letters, kinds, rules = [], defaultdict(Counter), Counter()
    for raw, (new, reason, struck) in zip(prompts, cleaned):
        if reason:
            continue
        rules.update(struck)
        a, b = neutral(raw), neutral(new)
        by = " + ".join(
            rule for rule in struck if rule not in ("blanks", "mojibake", "entities")
        ) or " + ".join(struck)
        a_signs, b_signs = ["".join(c for c in text if not c.isspace()) for text in (a, b)]
        a_letters, b_letters = [
            "".join(c for c in text if c.isalnum()) for text in (a_signs, b_signs)
        ]
        if a_letters != b_letters:
            letters.append(f"  [{by}] {marked(a_letters, b_letters, a)}")
            continue
        if a_signs != b_signs:
            for kind, i1, i2, j1, j2 in SequenceMatcher(
                None, a_signs, b_signs, autojunk=False
            ).get_opcodes():
                if kind != "equal":
                    kinds["signs lost or new", by][
                        f"{a_signs[max(0, i1 - 6) : i1]}[-{a_signs[i1:i2]}-]{{+{b_signs[j1:j2]}+}}{a_signs[i2 : i2 + 6]}"
                    ] += 1
        if a.split() != b.split():
            x, y = a.split(), b.split()
            for kind, i1, i2, j1, j2 in SequenceMatcher(None, x, y, autojunk=False).get_opcodes():
                if kind != "equal":
                    kinds["words joined or split", by][
                        f"{' '.join(x[i1:i2])} → {' '.join(y[j1:j2])}"
                    ] += 1
    return letters, kinds, rules


def neutral(text):
    while (plain := html.unescape(ftfy.fix_text(text))) != text:
        text = plain
    return unicodedata.normalize("NFC", text).casefold()


def marked(a, b, raw):
    """The lost and new letters in their neighbourhood, then the raw prompt."""
    parts = []
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind != "equal":
            parts.append(
                f"…{a[max(0, i1 - 12) : i1]}[-{a[i1:i2]}-]{{+{b[j1:j2]}+}}{a[i2 : i2 + 8]}…".replace(
                    "{++}", ""
                )
            )
    return "  ".join(parts) + f"\n        raw: {raw[:400]!r}"


if __name__ == "__main__":
    main()
