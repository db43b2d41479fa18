"""Every kind of damage to every field of a JSON file that this project wrote."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = "@here@"
VALUES = {  # as they stand in the file
    "null": "null",
    "text": '"x/../\\u0000"',
    "list": "[[]]",
    "object": '{"a": []}',
    "infinite": "1e999",
    "negative": "-1",
    "huge": "1" + 30 * "0",
    "deep": 600 * "[" + 600 * "]",
}


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all fields and items of a document; () is the document itself."""
    yield above
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for name, one in inside:
        yield from places(one, (*above, name))


def damages(path: Path, every: bool) -> Iterator[tuple[str, str]]:
    """(what was done, the file's text then): one place at a time; every: in each way, else in 3."""
    document = json.loads(path.read_text())
    values = list(VALUES.items())
    for number, place in enumerate(places(document)):
        if place:
            without = copy.deepcopy(document)
            del _at(without, place[:-1])[place[-1]]
            yield f"{place}: missing", json.dumps(without)
        marked = copy.deepcopy(document)
        if place:
            _at(marked, place[:-1])[place[-1]] = HERE
        some = values if every else [values[(number + n) % len(values)] for n in (0, 3)]
        for name, value in some:
            text = json.dumps(marked if place else HERE)
            yield f"{place}: {name}", text.replace(f'"{HERE}"', value)


def _at(document: Any, place: tuple[Any, ...]) -> Any:
    for name in place:
        document = document[name]
    return document
