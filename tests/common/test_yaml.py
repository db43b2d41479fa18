"""YAML of others is read in a time that grows with its length, whatever it holds."""

from collections.abc import Callable

import pytest

from common.files import parse_yaml
from tests.growth import MOST, growth


def parse(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError:
        return


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda n: "x: 1" + ":59" * (n // 3), id="a number to the base of 60"),
        pytest.param(lambda n: "x: 1" + ":59" * (n // 3) + ".5", id="the same with a fraction"),
        pytest.param(lambda n: f'x: !!int "1{":59" * (n // 3)}"', id="with its type"),
        pytest.param(lambda n: "x: " + "9" * n, id="digits"),
        pytest.param(lambda n: "\n".join(f"k{i}: 1" for i in range(n // 8)), id="many keys"),
        pytest.param(lambda n: "a: &a 1\nb: [" + "*a, " * (n // 4) + "]", id="many aliases"),
        pytest.param(lambda n: "? " * n, id="many levels"),
    ],
)
def test_the_time_grows_with_the_length(made: Callable[[int], str]) -> None:
    assert growth(parse, made) <= MOST


def test_mappings_that_double_are_refused() -> None:
    levels = ["a0: &a0 {x: 1}"]
    levels += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], y{i}: 1}}" for i in range(1, 22)]
    with pytest.raises(ValueError, match="more than 1,000,000 pairs"):
        parse_yaml("\n".join(levels))


def test_what_people_write_is_read_as_before() -> None:
    text = "a: 12\nb: 1.5\nc: 0x1f\nd: {<<: {e: 1, f: 1}, f: 2}\ng: 2026-11-30\nh: yes\ni: 6:00:00"
    values = parse_yaml(text)
    assert values.pop("g").isoformat() == "2026-11-30"
    expected = {"a": 12, "b": 1.5, "c": 31, "d": {"e": 1, "f": 2}, "h": True, "i": "6:00:00"}
    assert values == expected
