"""Read the inputs of combine.py: sources and validation sets, exact duplicates joined."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from combine_prompts.prompt_files import one_line, read_items, why_no_prompt
from combine_prompts.report import Counts
from common.command_line import UserError
from common.console import name_of, visible
from common.files import refuse_special
from common.texts import fold

Item = dict[str, Any]  # as in the prompts file: "prompt", "source", and whatever else it holds
Entry = tuple[str, Item]  # the file that had it first, and the item
Hashes = dict[Path, str]  # sha256 of the bytes that were read


def refuse_folder(output: Path) -> None:
    """UserError if --output names a folder (`.`, `/`, an empty text), a device or a pipe."""
    if not output.name or output.is_dir():
        raise UserError(f"--output {str(output)!r} is a folder; give the name of a file in it")
    if output.exists() and not output.is_file():
        raise UserError(f"--output {output} is a device or a pipe; give the name of a file")


def refuse_overwriting(
    inputs: Sequence[Path], exclude: Sequence[Path], outputs: Sequence[Path]
) -> None:
    """UserError if an output would replace an input, or two inputs have the same name.

    OSError: an output is a link, a device or a pipe, which is not replaced.
    """
    for path in outputs:
        refuse_special(path)
    written = {os.path.realpath(path) for path in outputs}
    for path in [*inputs, *exclude]:
        if os.path.realpath(path) in written:
            raise UserError(
                f"{path} is an input, and the output would overwrite it; choose another --output"
            )
        if not str(path).isprintable() or str(path) != visible(path):
            raise UserError(
                f"{visible(path)}: the name has characters that no JSON can hold; rename the file"
            )
    names = Counter(path.stem for path in inputs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(
            f"two inputs are called {twice[0]}; a file's name is its source, so rename one"
        )


def read_inputs(
    inputs: Sequence[Path], problems: list[str], hashes: Hashes
) -> tuple[list[Entry], Counts]:
    """The items of all files, and the counts so far. A broken file is named and left out."""
    entries: list[Entry] = []
    counts: Counts = {}
    invalid: Counter[str] = Counter()
    for path in inputs:
        try:
            found, hashes[path] = read_items(path)
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


def read_excluded(paths: Sequence[Path], hashes: Hashes) -> list[str]:
    """The validation prompts. UserError for a broken or empty file: the set would leak."""
    prompts: list[str] = []
    for path in paths:
        try:
            items, hashes[path] = read_items(path)
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


def exact(entries: Sequence[Entry], remove: Callable[..., None]) -> list[Entry]:
    """One entry for each folded text: the first spelling, and all sources that have it.

    `remove(entry, reason, **about)` is called for each entry that repeats an earlier one.
    """
    unique: dict[str, Entry] = {}
    for name, item in entries:
        key = fold(item["prompt"]) or item["prompt"]
        own = {**item, "source": sources_of(item, name)}
        if key not in unique:
            unique[key] = (name, own)
            continue
        first = unique[key][1]
        remove((name, own), "exact duplicate", rule="same folded text", match=first["prompt"])
        first["source"] += [source for source in own["source"] if source not in first["source"]]
    return list(unique.values())


def sources_of(item: Item, name: str) -> list[str]:
    """An item's own list of sources; without one its file's name."""
    given = item.get("source")
    if isinstance(given, list) and given and all(isinstance(source, str) for source in given):
        return [name_of(source) for source in given]
    return [name]
