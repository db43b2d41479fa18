"""No text makes cleaning or judging slow: ten times as long costs about ten times as much."""

import string

import pytest

from combine_prompts.chat_debris import repair
from combine_prompts.cleaning import clean
from combine_prompts.spacing import join
from common.screening import Rules, Screen, find_loop, find_placeholder
from common.texts import fold
from tests.growth import MOST, growth

PIECES = """::1
::  | (a:1.1 | (a:1.1) | ( | ((a:1.2) | --no  | --ar 16:9  | --sref 1 2  | --p a1b2c
<a: | <lora:x:1> | https://a | - n 4  | , | , , | &amp; | &#38; | #38; | & # 3 9 ;  | a - b  | a-a-
1  | 1 0 , 0 0 0 | f 1. 4  | 4 k  | " a "  | ' a  | ( (  | ) )  | [--w 512] | BREAK, | Steps: 1,
negative prompts | {a} | {a | __a | $A | a | ab | a b  | 1a | *a | n.u.d.e.  | @ | 12 years  | under
\u00e9 | \u0430 | \U0001f468\u200d | \ufe0f | - @b (fast)  | 1 st  | \u2014ar 1:1  | http
<photo | < photo >  | w 512  | - w 9 | a:2 by  | a:2, | :2 | | |  | \\ | \\' | by a  | by A, | !?
'" | (' | '( | ['1 | " ' | \u201c | \u2019 | \u201d\u2019"""


def pieces():
    return [
        *(each for line in PIECES.splitlines() for each in line.split(" | ") if each),
        *string.punctuation,
    ]


WORKS = {
    "clean": clean,
    "repair": repair,
    "loop": find_loop,
    "placeholder": find_placeholder,
    "fold": fold,
    "screen": Screen(Rules("any", 1, 10**6, 1, 10**6)).judge,
}


@pytest.mark.parametrize("name", WORKS)
def test_the_cost_grows_with_the_length(name):
    slow = {}
    for piece in pieces():
        ratio = growth(WORKS[name], lambda size, piece=piece: piece * (size // len(piece)))
        if ratio > MOST:
            slow[piece] = round(ratio)
    assert not slow


def test_a_run_of_signs_behind_a_blank():
    """A tenth of the length: a quadratic rule would take minutes."""
    for signs in [*string.punctuation, "''", "('", "'\""]:
        ratio = growth(join, lambda size, signs=signs: "a " + signs * (size // 10 // len(signs)))
        assert ratio <= MOST, signs


@pytest.mark.parametrize("end", ["x Steps: q", "x negative prompt", ",", "::", ")", "x", ": 1"])
def test_a_long_run_before_an_end_that_does_not_match(end):
    for sign in (" ", ",", "(", "\n", "-", ":"):
        ratio = growth(clean, lambda size, sign=sign: "a" + sign * size + end)
        assert ratio <= MOST, (sign, end)
