"""The prompts file: a JSON list; `.jsonl` or `.txt` with one prompt a line; or `.parquet`.

    items = read_prompts("HPDv2.json")     # looked for as given, then in prompts/
    list_sha256(items)
    for item in stream_prompts(path): ...  # one by one; a JSON list is read at once

Items are strings or {"prompt", "source", "variations"}, with overrides (overrides.py); the columns
of a parquet file have these names. An item's place is its prompt_index for ever; the sha256 of all
items stands in the data set's definition.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NotRequired, cast

from common.command_line import UserError
from common.console import name_of
from common.files import CHECKOUT
from common.json_text import parse_json
from common.untrusted import refuse_no_text
from generate.dataset.overrides import Overrides, read_overrides

# Bytes of a prompt in UTF-8: the image carries it twice, in a JPEG comment of 65,533.
LONGEST = 20_000
LONGEST_LINE = 16 << 20  # bytes; a .jsonl line holds a prompt and all its variations
READ_AT_ONCE = 8192  # rows of a parquet file


class Item(Overrides):
    """One prompt. If it has variations, no LLM is asked."""

    prompt: str
    source: list[str]
    variations: NotRequired[list[str]]


def find_prompts(path: str | os.PathLike[str]) -> Path:
    """The path as given, else below prompts/ (here, then in the checkout); UserError if none is."""
    for candidate in (Path(path), Path("prompts") / path, CHECKOUT / "prompts" / path):
        if candidate.is_file():
            return candidate
    if Path(path).exists():
        raise UserError(f"{path} is a folder, a device or a pipe; give a file of prompts")
    raise UserError(
        f"{path}: no such file, neither here nor in prompts/; a .txt with one prompt a line is "
        "enough, combine_prompts/combine.py makes one of public sets"
    )


def read_prompts(path: str | os.PathLike[str]) -> list[Item]:
    """The items of a prompts file. UserError, naming the item by position (from 0)."""
    return list(stream_prompts(find_prompts(path)))


def stream_prompts(path: Path) -> Iterator[Item]:
    """The items of a file, one by one. UserError as of read_prompts(), also when there is none."""
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        raise UserError(
            f"{path}: not JSON: a table; write its prompts, one a line, into a .txt file"
        )
    read = {".txt": _lines, ".jsonl": _json_lines, ".parquet": _parquet}.get(kind, _json)
    position = -1
    try:
        for position, item in enumerate(read(path)):
            try:
                checked = read_item(item)
            except ValueError as error:
                raise UserError(f"{path}: item {position} {error}") from None
            yield checked
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if position < 0:
        raise UserError(f"{path}: holds no prompt")


def _json(path: Path) -> list[Any]:
    refuse_no_text(path)
    data = path.read_bytes()
    try:
        items = parse_json(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error.start) from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(items, list):
        kind = type(items).__name__
        raise UserError(f"{path}: holds no list, but {kind}; expected a JSON list of prompts")
    return items


def _lines(path: Path) -> Iterator[str]:
    """Lines, split at newlines only: text mode also splits at U+2028, which prompts can hold."""
    begin = 0
    with open(path, "rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                where = f"{path}: the line that begins at byte {begin:,}"
                raise UserError(f"{where} is longer than {LONGEST_LINE:,} bytes; no prompt is")
            try:
                text = line.removesuffix(b"\n").decode("utf-8-sig" if begin == 0 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, begin + error.start) from None
            begin += len(line)
            if text := text.strip():
                yield text


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(_lines(path)):
        try:
            yield parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}: item {number} is not JSON: {error}") from None


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa  # loaded for such files alone
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in Item.__annotations__ if name in file.schema_arrow.names]
            if "prompt" not in names:
                raise UserError(f'{path}: has no column "prompt"')
            first = 0
            for batch in file.iter_batches(READ_AT_ONCE, columns=names):
                try:
                    items = batch.to_pylist()
                except (ValueError, OverflowError):  # text that is no UTF-8, a date of no year
                    items = [
                        _row(path, first + row, batch.slice(row, 1)) for row in range(len(batch))
                    ]
                yield from items
                first += len(batch)
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a parquet file: {' '.join(str(error).split())}") from None


def _row(path: Path, number: int, batch: Any) -> Any:
    """The one row of a batch."""
    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: item {number} cannot be read: {error}") from None


def _not_utf8(path: Path, byte: int) -> UserError:
    return UserError(f"{path}: not UTF-8 (byte {byte}); convert it with iconv")


def read_item(item: Any) -> Item:
    """One item of the list. ValueError says what is wrong with it."""
    item = {"prompt": item} if isinstance(item, str) else item
    if not isinstance(item, dict) or not isinstance(item.get("prompt"), str):
        shown = json.dumps(item, default=repr)[:80]  # of parquet: bytes, dates
        raise ValueError(f'is {shown}: neither a string nor an object with a "prompt"')
    source = item.get("source") or []
    source = [source] if isinstance(source, str) else source
    if not _are_strings(source):
        raise ValueError('has a "source" that is no list of strings')
    source = [name_of(name) for name in source]
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


def canonical(item: Item) -> bytes:
    """The canonical JSON of an item, one line of what list_sha256() hashes."""
    return (
        json.dumps(item, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
    )


def list_sha256(items: Iterable[Item]) -> str:
    """sha256 (hex) of a list from read_prompts, over its canonical JSON; of a prefix: items[:n]."""
    digest = hashlib.sha256()
    for item in items:  # item by item: a million prompts need no second copy in memory
        digest.update(canonical(item))
    return digest.hexdigest()
