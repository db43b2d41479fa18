"""From the sources' files to the combined one: read, join exact duplicates, filter, shuffle, write.

combine(Settings(inputs=[Path("prompts/sac.json")], …))    # what combine.py does after its options
"""

import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from combine_prompts import near_duplicates
from combine_prompts.prompt_files import (
    name_problems,
    one_line,
    read_items,
    to_json,
    why_no_prompt,
    write_output,
)
from combine_prompts.report import Counts, print_table, summary
from combine_prompts.verdicts import Rules, judge
from common.command_line import UserError
from common.texts import fold

Item = dict[str, Any]  # as in the prompts file: "prompt", "source", and whatever else it holds
Entry = tuple[str, Item]  # the file that had it first, and the item


@dataclass(frozen=True)
class Settings:
    """The options of combine.py."""

    inputs: list[Path]
    exclude: list[Path]
    output: Path
    plain: bool
    seed: int
    language: str
    min_words: int
    max_words: int
    min_chars: int
    max_chars: int
    profanity: str
    sexual: str
    near_duplicates: bool
    num_workers: int

    def beside(self, ending: str) -> Path:
        """The path of a file that is written beside the output: combined.report.json."""
        return Path(f"{self.output.with_suffix('')}.{ending}.json")

    def rules(self) -> Rules:
        """What the filters need of the options."""
        return Rules(
            language=self.language,
            min_words=self.min_words,
            max_words=self.max_words,
            min_chars=self.min_chars,
            max_chars=self.max_chars,
            profanity=self.profanity,
            sexual=self.sexual,
        )


def combine(settings: Settings) -> int:
    """Write the combined file, its report and what was removed; returns the exit status."""
    refuse_overwriting(settings)
    problems: list[str] = []
    entries, counts = read_inputs(settings.inputs, problems)
    excluded = read_excluded(settings.exclude)
    kept, removed = sort_out(exact(entries, counts), excluded, settings, counts)
    random.Random(settings.seed).shuffle(kept)
    for name, count in Counter(name for name, _ in kept).items():
        counts[name]["kept"] = count
    items = [item for _, item in kept]
    if not items:
        raise UserError("; ".join(["no prompt is left", *problems]))
    lines = [to_json(item["prompt"] if settings.plain else item) for item in items]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    write_output(settings.beside("removed"), _indented(removed))
    write_output(settings.beside("report"), _indented(summary(settings, counts, items, text)))
    write_output(settings.output, text)
    print_table(counts)
    written = (settings.output, settings.beside("report"), settings.beside("removed"))
    print("wrote " + ", ".join(map(str, written)))
    return name_problems(problems)


def _indented(found: Any) -> str:
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def refuse_overwriting(settings: Settings) -> None:
    """UserError when an output would replace an input, or two inputs have one name."""
    outputs = (settings.output, settings.beside("report"), settings.beside("removed"))
    written = {path.resolve() for path in outputs}
    for path in settings.inputs + settings.exclude:
        if path.resolve() in written:
            raise UserError(
                f"{path} is an input, and the output would overwrite it; choose another --output"
            )
    names = Counter(path.stem for path in settings.inputs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(
            f"two inputs are called {twice[0]}; a file's name is its source, so rename one"
        )


# ----------------------------------------------------------------------------- reading


def read_inputs(inputs: list[Path], problems: list[str]) -> tuple[list[Entry], Counts]:
    """The items of all files, and the counts so far; a broken file is named, the others go on."""
    entries: list[Entry] = []
    counts: Counts = {}
    invalid: Counter[str] = Counter()
    for path in inputs:
        try:
            found = read_items(path)
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {one_line(error)}")
            continue
        counts[path.stem] = Counter(read=len(found))
        for position, item in enumerate(found):
            if why := why_no_prompt(item):
                if not invalid[path.stem]:
                    problems.append(f"{path}: item {position}: not a prompt ({why})")
                invalid[path.stem] += 1
            else:
                entries.append((path.stem, item))
    for name, count in invalid.items():
        counts[name]["not a prompt"] = count
        if count > 1:
            problems.append(f"{name}: {count - 1:,} more items that are no prompts")
    if not entries:
        found_nothing = problems or ["the inputs are empty"]
        raise UserError("nothing to combine: " + "; ".join(found_nothing))
    return entries, counts


def read_excluded(paths: list[Path]) -> list[str]:
    """The validation prompts. UserError for a broken or empty file: the set would leak."""
    prompts: list[str] = []
    for path in paths:
        try:
            items = read_items(path)
            if not items:
                raise ValueError("holds no prompt")
            for position, item in enumerate(items):
                if why := why_no_prompt(item):
                    raise ValueError(f"item {position} is not a prompt ({why})")
                prompts.append(item["prompt"])
        except (OSError, ValueError) as error:
            raise UserError(
                f"--exclude {path}: {one_line(error)}; "
                "the validation set would leak, so nothing was written"
            ) from None
    return prompts


# ----------------------------------------------------------------------------- sorting out


def exact(entries: list[Entry], counts: Counts) -> list[Entry]:
    """One entry a folded text: the first one's spelling, all sources that have it."""
    unique: dict[str, Entry] = {}
    for name, item in entries:
        key = fold(item["prompt"]) or item["prompt"]
        sources = sources_of(item, name)
        if key in unique:
            counts[name]["exact duplicate"] += 1
            first = unique[key][1]["source"]
            first += [source for source in sources if source not in first]
        else:
            unique[key] = (name, {**item, "source": sources})
    return list(unique.values())


def sources_of(item: Item, name: str) -> list[str]:
    """An item's own list of sources; without one its file's name."""
    given = item.get("source")
    if isinstance(given, list) and given and all(isinstance(source, str) for source in given):
        return list(given)
    return [name]


def sort_out(
    unique: list[Entry], excluded: list[str], settings: Settings, counts: Counts
) -> tuple[list[Entry], list[Item]]:
    """(kept, removed with their matches); every reason is counted under the item's first file."""
    kept: list[Entry] = []
    folded: list[str] = []
    removed: list[Item] = []

    def remove(entry: Entry, reason: str, match: str | None, similarity: float) -> None:
        name, item = entry
        counts[name][reason] += 1
        if match is not None:
            about = {"reason": reason, "match": match, "similarity": round(similarity, 3)}
            removed.append({"prompt": item["prompt"], "source": item["source"], **about})

    prompts = [item["prompt"] for _, item in unique]
    verdicts = judge(prompts, excluded, settings.rules(), settings.num_workers)
    for entry, verdict in zip(unique, verdicts, strict=True):
        if verdict.reason:
            remove(entry, verdict.reason, verdict.match, verdict.similarity)
            continue
        name, item = entry
        kept.append((name, {**item, "flags": verdict.flags} if verdict.flags else item))
        folded.append(verdict.folded)
    if not settings.near_duplicates or not kept:
        return kept, removed
    twins = near_duplicates.find([item["prompt"] for _, item in kept], folded)
    for position, (first, similarity) in twins.items():
        remove(kept[position], "near duplicate", kept[first][1]["prompt"], similarity)
    return [entry for position, entry in enumerate(kept) if position not in twins], removed
