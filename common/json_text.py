"""JSON that others wrote: a value, or ValueError, whatever the text is.

    answer = parse_json(b'{"epoch": 3}')        # ValueError

json.loads itself raises RecursionError for many levels, which no `except ValueError` catches; and
a value of a few levels less breaks whoever writes or shows it later. orjson.loads needs no help.
"""

import json
from typing import Any

MOST_LEVELS = 100  # of lists and objects in each other; the project's own files have up to 6


def parse_json(text: str | bytes, unique: bool = False) -> Any:
    """The value of a JSON text. ValueError: not JSON, not UTF-8, nested too deep.

    unique: ValueError, too, for an object with the same name twice: readers would differ about it.
    """
    try:
        value = json.loads(text, object_pairs_hook=_each_once if unique else None)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if _opened(text) > MOST_LEVELS and _deeper_than(MOST_LEVELS, value):
        raise ValueError("nested too deep")
    return value


def _opened(text: str | bytes) -> int:
    """At least the levels of the value: most texts need not be looked through."""
    if isinstance(text, bytes):
        return text.count(b"[") + text.count(b"{")
    return text.count("[") + text.count("{")


def _deeper_than(most: int, value: object) -> bool:
    level: list[Any] = [[value]]
    for _ in range(most + 1):
        level = [
            below
            for one in level
            for below in (one.values() if isinstance(one, dict) else one)
            if isinstance(below, list | dict)
        ]
    return bool(level)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found
