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


@pytest.mark.parametrize("level", ["{{<<: [*a{0}, *a{0}], y{0}: 1}}", "[*a{0}, *a{0}]"])
def test_aliases_that_double_are_refused(level: str) -> None:
    levels = ["a0: &a0 {x: 1, y: 2}"]
    levels += [f"a{i}: &a{i} {level.format(i - 1)}" for i in range(1, 20)]
    with pytest.raises(ValueError, match="aliases repeat more than 1,000,000"):
        parse_yaml("\n".join(levels))


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}"])
def test_a_value_that_holds_itself_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="holds itself"):
        parse_yaml(text)


@pytest.mark.parametrize("text", ['a: "\\ud800"', '"\\udfff": 1', '- [!!str "x\\ud83d"]'])
def test_half_a_character_is_no_text(text: str) -> None:
    """Whoever writes it into a file would fail."""
    with pytest.raises(ValueError, match="half a surrogate pair"):
        parse_yaml(text)


def test_what_people_write_is_read_as_before() -> None:
    text = "a: &n 12\nb: 1.5\nc: 0x1f\nd: {<<: {e: 1, f: 1}, f: 2}\ng: 2026-11-30\nh: yes\n"
    text += "i: 6:00:00\nj: [*n, *n]"
    values = parse_yaml(text)
    assert values.pop("g").isoformat() == "2026-11-30"
    expected = {
        "a": 12,
        "b": 1.5,
        "c": 31,
        "d": {"e": 1, "f": 2},
        "h": True,
        "i": "6:00:00",
        "j": [12, 12],
    }
    assert values == expected
