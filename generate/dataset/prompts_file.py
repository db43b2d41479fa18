"""The prompts file: a JSON list, a .jsonl with one item a line, or a .txt with one prompt a line.

    items = read_prompts("HPDv2.json")     # looked for as given, then in prompts/
    list_sha256(items)

Items of the list are strings or {"prompt", "source", "variations"}, with overrides (overrides.py).
An item's place in the list is its prompt_index for ever; the list's sha256 stands in the data set's
definition.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NotRequired, cast

from common.command_line import UserError
from common.files import CHECKOUT
from generate.dataset.overrides import Overrides, read_overrides

# Bytes of a prompt in UTF-8: the image carries it twice, in a JPEG comment of 65,533.
LONGEST = 20_000


class Item(Overrides):
    """One prompt; with variations no LLM is asked for any."""

    prompt: str
    source: list[str]
    variations: NotRequired[list[str]]


def find_prompts(path: str | os.PathLike[str]) -> Path:
    """The path as given, else below prompts/ (here, then in the checkout); UserError if none is."""
    for candidate in (Path(path), Path("prompts") / path, CHECKOUT / "prompts" / path):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"{path}: no such file, neither here nor in prompts/; combine_prompts/combine.py makes one"
    )


def read_prompts(path: str | os.PathLike[str]) -> list[Item]:
    """The items of a prompts file. UserError, naming the item by position (from 0)."""
    path = find_prompts(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        items = _parsed(text, path.suffix.lower())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); convert it with iconv") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(items, list):
        kind = type(items).__name__
        raise UserError(f"{path}: holds no list, but {kind}; expected a JSON list of prompts")
    if not items:
        raise UserError(f"{path}: holds no prompt")
    prompts = []
    for position, item in enumerate(items):
        try:
            prompts.append(read_item(item))
        except ValueError as error:
            raise UserError(f"{path}: item {position} {error}") from None
    return prompts


def _parsed(text: str, suffix: str) -> Any:
    """The list in a .txt, a .jsonl (one item a line) or a JSON file. ValueError for another."""
    # Not splitlines(): it also cuts at form feeds and U+2028, which pasted prompts have inside.
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if suffix == ".txt":
        return lines
    if suffix == ".jsonl":
        return [json.loads(line) for line in lines]
    if suffix in (".csv", ".tsv"):
        raise ValueError("a table; write its prompts, one a line, into a .txt file")
    return json.loads(text)


def read_item(item: Any) -> Item:
    """One item of the list. ValueError says what is wrong with it."""
    item = {"prompt": item} if isinstance(item, str) else item
    if not isinstance(item, dict) or not isinstance(item.get("prompt"), str):
        shown = json.dumps(item)[:80]
        raise ValueError(f'is {shown}: neither a string nor an object with a "prompt"')
    source = item.get("source") or []
    source = [source] if isinstance(source, str) else source
    if not _are_strings(source):
        raise ValueError('has a "source" that is no list of strings')
    variations = item.get("variations")
    if variations is not None and not _are_strings(variations):
        raise ValueError('has "variations" that are no list of strings')
    prompt, *others = [fix(text) for text in [item["prompt"], *(variations or [])]]
    if not prompt.strip():
        raise ValueError("is blank")
    if not all(text.strip() for text in others):
        raise ValueError("has a blank variation")
    if max(len(text.encode()) for text in [prompt, *others]) > LONGEST:
        raise ValueError(f"is longer than {LONGEST:,} bytes")
    record = cast(Item, {"prompt": prompt, "source": source, **read_overrides(item)})
    if variations is not None:
        record["variations"] = others
    return record


def _are_strings(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def fix(text: str) -> str:
    """A text that UTF-8 can hold: surrogate pairs are joined, lone ones become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def list_sha256(items: Iterable[Item]) -> str:
    """sha256 (hex) of a list from read_prompts, over its canonical JSON; of a prefix: items[:n]."""
    digest = hashlib.sha256()
    for item in items:  # item by item: a million prompts need no second copy in memory
        text = json.dumps(item, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()
