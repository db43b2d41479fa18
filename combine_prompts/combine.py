"""Combine the sources' prompts into one file: unique, filtered, without the validation set, in a seeded order.

    python combine_prompts/combine.py prompts/image_reward.json prompts/sac.json prompts/pickscore.json prompts/HPDv2.json \\
        --exclude prompts/gecko.json --output prompts/combined.json

Writes a list of {"prompt", "source": [every source that has it]} (--plain: strings), beside it combined.report.json (counts per source and
reason, licences, citations) and combined.removed.json (what was too near to the validation set or to another prompt, with its match).
The order is shuffled, so that any prefix of the file is a fair sample of all sources. The same inputs and options give the same bytes.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names

import hashlib
import json
import os
import random
from collections import Counter

from combine_prompts.processor import FOLDER, fold, json_list, one_line, publish
from combine_prompts.sources import TERMS
from combine_prompts.verdicts import judge
from common.command_line import Options

to_json = json.JSONEncoder(
    ensure_ascii=False
).encode  # json.dumps(…, ensure_ascii=False) makes an encoder a call: 5 us instead of 3


def main():
    options = Options(__doc__)
    add, three = options.add_argument, ("drop", "flag", "keep")
    add(
        "inputs",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="prompts files (JSON lists, or .txt, a prompt a line); the name is the source",
    )
    add(
        "--exclude",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="validation sets: nothing like a prompt of these gets in",
    )
    add("--output", type=Path, default=FOLDER / "combined.json", help="default: %(default)s")
    options.flag("--plain", "write strings instead of objects")
    add("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    add(
        "--language",
        choices=("en", "any"),
        default="en",
        help="keep English prompts, or any (default: %(default)s)",
    )
    add("--min_words", type=int, default=3, help="default: %(default)s")
    add("--max_words", type=int, default=200, help="default: %(default)s")
    add("--min_chars", type=int, default=8, help="default: %(default)s")
    add("--max_chars", type=int, default=1000, help="default: %(default)s")
    add(
        "--profanity",
        choices=three,
        default="drop",
        help="alt-profanity-check above 0.8: drop, flag ({'flags': ['profanity']}) or keep (default: %(default)s)",
    )
    add(
        "--sexual",
        choices=three,
        default="drop",
        help="sexual content by a short list: drop, flag or keep (default: %(default)s); with an age word for minors it is always dropped",
    )
    options.flag(
        "--near_duplicates", "drop near duplicates (MinHash LSH, 0.7, same subject)", default=True
    )
    add(
        "--num_workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes (default: the cores, %(default)s)",
    )
    args = options.parse_args()

    refuse_overwriting(args)
    problems = []
    items, sources, invalid = read_inputs(args, problems)
    excluded = read_excluded(args)
    report = {
        name: Counter(read=count, **({"not a prompt": invalid[name]} if invalid[name] else {}))
        for name, count in sources.items()
    }
    unique = exact(items, report)
    verdicts = judge([item["prompt"] for _, item in unique], excluded, args)
    kept, removed = sort_out(unique, verdicts, args, report)
    random.Random(args.seed).shuffle(kept)
    for name, count in Counter(name for name, _ in kept).items():
        report[name]["kept"] = count
    kept = [item for _, item in kept]
    if not kept:
        raise SystemExit(
            "combine: no prompt is left" + "".join(f"; {problem}" for problem in problems)
        )

    text = (
        "[\n"
        + ",\n".join(to_json(item["prompt"] if args.plain else item) for item in kept)
        + "\n]\n"
    )
    beside = args.output.with_suffix("")
    publish(f"{beside}.removed.json", json.dumps(removed, ensure_ascii=False, indent=1) + "\n")
    publish(
        f"{beside}.report.json",
        json.dumps(summary(args, report, kept, text), ensure_ascii=False, indent=1) + "\n",
    )
    publish(args.output, text)
    print_table(report)
    print(f"wrote {args.output}, {beside}.report.json, {beside}.removed.json")
    for problem in problems:
        print(f"combine: {problem}", file=sys.stderr)
    return 3 if problems else 0


def refuse_overwriting(args):
    beside = args.output.with_suffix("")
    written = {
        path.resolve()
        for path in (args.output, Path(f"{beside}.report.json"), Path(f"{beside}.removed.json"))
    }
    for path in args.inputs + args.exclude:
        if path.resolve() in written:
            raise SystemExit(
                f"combine: {path} is an input, and the output would overwrite it; choose another --output"
            )
    names = [path.stem for path in args.inputs]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SystemExit(
            f"combine: two inputs are called {twice[0]}; a file's name is its source, so rename one"
        )


# ----------------------------------------------------------------------------- reading


def read_inputs(args, problems):
    """Return (list of (source, item), prompts read per source, items per source that are no prompts). A broken file is named; the others
    go on."""
    items, sources, invalid = [], {}, Counter()
    for path in args.inputs:
        try:
            found = read_file(path)
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {one_line(error)}")
            continue
        sources[path.stem] = len(found)
        for position, item in enumerate(found):
            if why := no_prompt(item):
                if not invalid[path.stem]:
                    problems.append(f"{path}: item {position}: not a prompt ({why})")
                invalid[path.stem] += 1
            else:
                items.append((path.stem, item))
    problems += [
        f"{name}: {count - 1:,} more items that are no prompts"
        for name, count in invalid.items()
        if count > 1
    ]
    if not items:
        raise SystemExit(
            "combine: nothing to combine: " + "; ".join(problems or ["the inputs are empty"])
        )
    return items, sources, invalid


def no_prompt(item):
    """What is wrong with an item ("" if nothing). JSON can spell half a surrogate pair, which no file of UTF-8 can hold."""
    if (
        not isinstance(item, dict)
        or not isinstance(item.get("prompt"), str)
        or not item["prompt"].strip()
    ):
        return 'a string, or an object with "prompt"'
    try:
        to_json(item).encode()
    except UnicodeEncodeError:
        return "it holds half a surrogate pair"
    return ""


def read_excluded(args):
    """The validation prompts. A broken or empty file ends the run: without it the validation set would leak."""
    prompts = []
    for path in args.exclude:
        try:
            items = read_file(path)
            if not items:
                raise ValueError("holds no prompt")
            for position, item in enumerate(items):
                if why := no_prompt(item):
                    raise ValueError(f"item {position} is not a prompt ({why})")
                prompts.append(item["prompt"])
        except (OSError, ValueError) as error:
            raise SystemExit(
                f"combine: --exclude {path}: {one_line(error)}; the validation set would leak, so nothing was written"
            )
    return prompts


def read_file(path):
    """The items of a prompts file, strings as {"prompt": …}. Raises OSError, or ValueError saying where it is broken."""
    if not path.exists():
        raise OSError("no such file")
    data = path.read_bytes()
    if path.suffix == ".txt":
        lines = data.removeprefix(b"\xef\xbb\xbf").split(
            b"\n"
        )  # the mark that Windows editors put in front
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                raise ValueError(f"line {number} is not UTF-8")
        return [{"prompt": line.decode().strip()} for line in lines if line.strip()]
    return [{"prompt": item} if isinstance(item, str) else item for item in json_list(data)]


# ----------------------------------------------------------------------------- sorting out


def exact(items, report):
    """One (file, item) a folded text: the first one's spelling, all sources that have it (an item's own list, else its file's name)."""
    unique = {}
    for name, item in items:
        key = fold(item["prompt"]) or item["prompt"]
        given = item.get("source")
        sources = (
            list(given)
            if isinstance(given, list)
            and given
            and all(isinstance(source, str) for source in given)
            else [name]
        )
        if key in unique:
            report[name]["exact duplicate"] += 1
            first = unique[key][1]["source"]
            first += [source for source in sources if source not in first]
        else:
            unique[key] = name, {**item, "source": sources}
    return list(unique.values())


def sort_out(unique, verdicts, args, report):
    """Return (kept (file, item)s, removed items with their matches), and count every reason under the item's first file."""
    kept, foldeds, removed = [], [], []

    def remove(name, item, reason, match, similarity):
        report[name][reason] += 1
        if match is not None:
            about = {"reason": reason, "match": match, "similarity": round(similarity, 3)}
            removed.append({"prompt": item["prompt"], "source": item["source"], **about})

    for (name, item), (reason, match, similarity, flags, folded) in zip(unique, verdicts):
        if reason:
            remove(name, item, reason, match, similarity)
        else:
            kept.append((name, {**item, "flags": flags} if flags else item))
            foldeds.append(folded)
    if args.near_duplicates and kept:
        from combine_prompts import near_duplicates

        twins = near_duplicates.find([item["prompt"] for _, item in kept], foldeds)
        for position, (first, similarity) in twins.items():
            remove(*kept[position], "near duplicate", kept[first][1]["prompt"], similarity)
        kept = [entry for position, entry in enumerate(kept) if position not in twins]
    return kept, removed


# ----------------------------------------------------------------------------- telling


def summary(args, report, kept, text):
    """The report: deterministic (no time, no path), so that two runs can be compared."""
    terms = lambda name: TERMS.get(
        name, {"name": name, "licence": "not known to this program: state it on the data set card"}
    )
    return {
        "output": args.output.name,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "kept": len(kept),
        "in several sources": sum(len(item["source"]) > 1 for item in kept),
        "options": {
            name: value
            for name, value in vars(args).items()
            if name not in ("inputs", "exclude", "output", "num_workers")
        },
        "sources": {
            path.stem: {
                "sha256": sha256(path),
                "counts": dict(report[path.stem]),
                "terms": terms(path.stem),
            }
            for path in args.inputs
            if path.stem in report
        },
        "excluded": {
            path.stem: {"sha256": sha256(path), "terms": terms(path.stem)} for path in args.exclude
        },
    }


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def print_table(report):
    """Counts per source; an item that several sources have counts under the first."""
    reasons = list(
        dict.fromkeys(
            reason
            for counts in report.values()
            for reason in counts
            if reason not in ("read", "kept")
        )
    )
    rows = ["read", *reasons, "kept"]
    width = max(map(len, rows))
    names = list(report)
    print(f"  {'':<{width}}" + "".join(f"  {name:>12}" for name in names) + f"  {'all':>12}")
    for row in rows:
        counts = [report[name][row] for name in names]
        print(
            f"  {row:<{width}}"
            + "".join(f"  {count:>12,}" for count in counts)
            + f"  {sum(counts):>12,}"
        )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("combine: interrupted; nothing was written")
