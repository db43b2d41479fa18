"""Does cleaning damage real prompts? Prints every difference, with the rule that made it.

    python benchmarks/cleaning.py --input FILE …

FILE: a JSON list of strings or of objects with "text" or "prompt", a CSV with "prompt", a parquet.
--hpdv2 also undoes HPDv2's chat debris.

It knows nothing of the cleaner's patterns. Raw and cleaned prompts are brought to NFC, case-folded,
after ftfy and HTML entities, and then compared
    by letters and digits: what is lost or new is printed line by line, with its neighbourhood and
        the names of the rules that changed it;
    by words: what was joined or split without losing a letter is printed once a kind, with its
        count;
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
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ftfy

from combine_prompts.chat_debris import repair
from combine_prompts.cleaning import clean_row

Cleaned = tuple[str, str | None, list[str]]  # cleaned, reason to drop, rules
Kinds = defaultdict[tuple[str, str], Counter[str]]  # by (kind of difference, rules): counts

QUICK = [
    f"{style}, ( ( {subject} ) ), 8 k, f 1. 4, sci - fi --ar 16:9 "
    for style in ("oil", "ink")
    for subject in ("a dog", "a caf&eacute;", "4 knights")
]


def main() -> None:
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
        f"{'file':<28} {'prompts':>8} {'changed':>8} {'dropped':>8} "
        f"{'letters or digits differ':>25} {'prompts/s':>10}"
    )
    details = []
    for path in args.input if args.input and not args.quick else [None]:
        prompts = list(dict.fromkeys(read(path) if path else QUICK))
        start = time.perf_counter()
        cleaned = [clean_row(prompt, repair=repair if args.hpdv2 else None) for prompt in prompts]
        rate = len(prompts) / (time.perf_counter() - start)
        letters, kinds, rules = compare(prompts, cleaned)
        pairs = list(zip(prompts, cleaned, strict=True))
        changed = sum(raw != new for raw, (new, _, _) in pairs)
        dropped = [(raw, reason) for raw, (_, reason, _) in pairs if reason]
        print(
            f"{path.name if path else 'ours':<28} {len(prompts):>8,} {changed:>8,} "
            f"{len(dropped):>8,} {len(letters):>25,} {rate:>10,.0f}"
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
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            shown = [f"{what} x{count}" if count > 1 else what for what, count in ordered]
            print(textwrap.fill("   ".join(shown), 200))


def read(path: Path) -> Iterator[str]:
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


def compare(prompts: list[str], cleaned: list[Cleaned]) -> tuple[list[str], Kinds, Counter[str]]:
    """(prompts whose letters or digits differ, other differences by kind, rules applied)."""
    letters: list[str] = []
    kinds: Kinds = defaultdict(Counter)
    rules: Counter[str] = Counter()
    for raw, (new, reason, applied) in zip(prompts, cleaned, strict=True):
        if reason:
            continue
        rules.update(applied)
        telling = [rule for rule in applied if rule not in ("blanks", "mojibake", "entities")]
        by = " + ".join(telling or applied)
        a = neutral(raw)
        b = neutral(new)
        a_signs = "".join(a.split())
        b_signs = "".join(b.split())
        a_letters = "".join(filter(str.isalnum, a_signs))
        b_letters = "".join(filter(str.isalnum, b_signs))
        if a_letters != b_letters:
            letters.append(f"  [{by}] {marked(a_letters, b_letters, a)}")
            continue
        for i1, i2, j1, j2 in differences(a_signs, b_signs):
            here = f"[-{a_signs[i1:i2]}-]{{+{b_signs[j1:j2]}+}}"
            around = f"{a_signs[max(0, i1 - 6) : i1]}{here}{a_signs[i2 : i2 + 6]}"
            kinds["signs lost or new", by][around] += 1
        x = a.split()
        y = b.split()
        for i1, i2, j1, j2 in differences(x, y):
            joined = f"{' '.join(x[i1:i2])} → {' '.join(y[j1:j2])}"
            kinds["words joined or split", by][joined] += 1
    return letters, kinds, rules


def differences(a: str | list[str], b: str | list[str]) -> list[tuple[int, int, int, int]]:
    """Where `a` and `b` differ: (from, to) in `a`, (from, to) in `b`."""
    if a == b:
        return []
    codes = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return [places for kind, *places in codes if kind != "equal"]


def neutral(text: str) -> str:
    while (plain := html.unescape(ftfy.fix_text(text))) != text:
        text = plain
    return unicodedata.normalize("NFC", text).casefold()


def marked(a: str, b: str, raw: str) -> str:
    """The lost and new letters in their neighbourhood, then the raw prompt."""
    parts = []
    for i1, i2, j1, j2 in differences(a, b):
        new = f"{{+{b[j1:j2]}+}}" if j1 < j2 else ""
        parts.append(f"…{a[max(0, i1 - 12) : i1]}[-{a[i1:i2]}-]{new}{a[i2 : i2 + 8]}…")
    return "  ".join(parts) + f"\n        raw: {raw[:400]!r}"


if __name__ == "__main__":
    main()
