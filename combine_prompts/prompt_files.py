"""Read prompts files (JSON lists, .jsonl and text files) and write outputs; each problem is named.

items, sha256 = read_items(Path("prompts/sac.json"))        # [{"prompt": …, …}, …], "9c1f…"
write_output(Path("prompts/combined.json"), text)
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.command_line import DONE, LEFT_OUT, UserError, script_name
from common.console import visible
from common.files import write_whole
from common.json_text import parse_json
from common.untrusted import Refused, refuse_no_text

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Windows editors put it in front of a text file

# json.dumps(…, ensure_ascii=False) makes an encoder a call: 5 us an item instead of 3
to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
LONGEST = 20_000  # characters; the longest real prompt has 1,951: a longer one is a broken file
LONGEST_LINE = 1 << 20  # bytes of a prompt


def read_items(path: Path) -> tuple[list[Any], str]:
    """(items of a prompts file, sha256 of these very bytes); strings become {"prompt": …}.

    `.txt`: one prompt a line; `.jsonl`: one item a line. Raises OSError, or ValueError saying where
    the file is broken.
    """
    if path.suffix.lower() == ".parquet":
        raise ValueError("a parquet file; .json, .jsonl and .txt are read here")
    data = read_regular(path)
    if path.suffix == ".txt":
        items: list[Any] = [line for _, line in _text_lines(data)]
    else:
        items = _json_lines(data) if path.suffix == ".jsonl" else json_list(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return [{"prompt": item} if isinstance(item, str) else item for item in items], sha256


def _json_lines(data: bytes) -> list[Any]:
    items = []
    for number, line in _text_lines(data):
        try:
            items.append(parse_json(line))
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {one_line(error)}") from None
    return items


def _text_lines(data: bytes) -> list[tuple[int, str]]:
    """(number from 1, text) of each line that is not blank."""
    lines = data.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            raise ValueError(f"line {number} is longer than {LONGEST_LINE:,} bytes")
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise ValueError(f"line {number} is not UTF-8") from None
        if text:
            found.append((number, text))
    return found


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file. OSError: there is none, or it is a folder, device or pipe."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise OSError("no such file") from None
    except OSError as error:
        raise OSError(error.strerror) from None
    if not stat.S_ISREG(mode):
        raise OSError("not a regular file")
    try:
        refuse_no_text(path)
    except Refused as error:
        raise OSError(error.strerror) from None
    return path.read_bytes()


def why_no_prompt(item: Any) -> str:
    """What is wrong with an item of a prompts file; empty if nothing.

    JSON can spell half a surrogate pair, which no file of UTF-8 can hold.
    """
    text = item.get("prompt") if isinstance(item, dict) else None
    if not isinstance(text, str) or not text.strip():
        return 'a string, or an object with "prompt"'
    variations = item.get("variations") or []
    if not isinstance(variations, list) or not all(isinstance(each, str) for each in variations):
        return '"variations" that are no list of strings'
    if any(len(each) > LONGEST for each in (text, *variations)):
        return f"longer than {LONGEST:,} characters"
    try:
        to_json(item).encode()
    except UnicodeEncodeError:
        return "it holds half a surrogate pair"
    except ValueError:
        return "it holds NaN or an infinite number, which no JSON can"
    return ""


def json_list(data: bytes) -> list[Any]:
    """The items of a JSON list. Raises ValueError saying what it is instead."""
    try:
        found = parse_json(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"not UTF-8 (line {line}, byte {error.start:,})") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {one_line(error)}") from None
    if not isinstance(found, list):
        raise ValueError(f"not a JSON list of prompts but a {type(found).__name__}")
    return found


def write_output(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, all of it or nothing. UserError: it cannot be written.

    Only a regular file is replaced: run by root, a rename would replace even /dev/null or a pipe.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is no regular file; give another --output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {one_line(error)}") from None


def name_problems(problems: Iterable[str]) -> int:
    """Name each problem on one line of stderr; the exit status: LEFT_OUT if there is one."""
    status = DONE
    for problem in problems:
        print(f"{script_name()}: {visible(problem)}", file=sys.stderr)
        status = LEFT_OUT
    return status


def one_line(error: object) -> str:
    """An error's text on one line, of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
