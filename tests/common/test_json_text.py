"""JSON that others wrote: a value, or ValueError."""

import json

import pytest

from common.json_text import MOST_LEVELS, parse_json

OPEN = ["[", '{"a": ', "[1, "]


def nested(levels: int, opened: str) -> str:
    return opened * levels + "1" + "".join("]" if opened[0] == "[" else "}" for _ in range(levels))


@pytest.mark.parametrize("opened", OPEN)
def test_a_value_of_many_levels_is_refused(opened: str) -> None:
    for levels in (MOST_LEVELS + 1, 500, 990, 1100, 99_999):
        with pytest.raises(ValueError, match="nested too deep"):
            parse_json(nested(levels, opened))
    text = nested(MOST_LEVELS, opened)
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


def test_many_small_lists_are_not_deep() -> None:
    text = json.dumps([[{"a": [number]}] for number in range(1000)])
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"9" * 5000, b"[" * 5000, '"\n"', "[NaN"])
def test_nonsense_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_a_name_that_stands_twice() -> None:
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="a name stands twice"):
        parse_json('[{"a": 1, "a": 2}]', unique=True)
