"""What is taken from an answer and what is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generate.llms.asking import messages, schema
from generate.llms.variations import LONGEST, VariationFilter, clean, fold, overlap, parse


@pytest.mark.parametrize(
    "answer",
    [
        '{"variations": ["one red fox", "two grey owls"]}',
        '["one red fox", "two grey owls"]',
        '```json\n{"variations": ["one red fox", "two grey owls"]}\n```',
        'Sure! Here you go:\n{"variations": ["one red fox", "two grey owls"]}\nHope this helps!',
        '{"variations": ["one red fox", "two grey owls", "thr',
        '{"1": "one red fox", "2": "two grey owls"}',
        '{"variations": [{"caption": "one red fox"}, {"caption": "two grey owls"}, 7, null]}',
        "Here are the variations:\n1. one red fox\n2) two grey owls",
        "- one red fox\n- two grey owls",
        "Variation 1: one red fox\nVariation 2: two grey owls",
    ],
)
def test_tolerant(answer):
    texts = [clean(text) for text in parse(answer)]
    assert texts[:2] == ["one red fox", "two grey owls"]
    assert all(text in ("thr",) for text in texts[2:])


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(json.dumps)
)
def test_whatever_a_model_writes_gives_texts_or_nothing(answer):
    accepted, _ = VariationFilter("a corgi").accept(answer)
    assert all(
        isinstance(text, str) and text == text.strip() and len(text) <= LONGEST and "\n" not in text
        for text in accepted
    )
    assert len({fold(text) for text in accepted}) == len(accepted) and "corgi" not in map(
        fold, accepted
    )
    json.dumps(accepted).encode("ascii")


@pytest.mark.parametrize(
    "text,reason",
    [
        ("A Corgi, in a top-hat!", "copies"),
        ("a corgi in the top hat", "copies"),
        ("A córgi in a töp hat", "copies"),
        ("a corgi at sea by night in fog", "copies"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I cannot create content of that kind", "refusal"),
        ("I can’t assist with this request", "refusal"),  # noqa: RUF001
        ("As an AI language model, I do not draw", "refusal"),
        ("Here are the variations:", "unusable"),
        ("Sure! Here are 5 captions:", "unusable"),
        ("", "unusable"),
        ("word " * 500, "too long"),
    ],
)
def test_rejected(text, reason):
    kept = VariationFilter("a corgi in a top hat", known=["a corgi at sea by night, in fog"])
    assert kept.accept(json.dumps([text, "a lighthouse of paper in a storm, woodcut"])) == (
        ["a lighthouse of paper in a storm, woodcut"],
        {reason: 1},
    )


@pytest.mark.parametrize(
    "text",
    [
        "I, Robot: a film poster in a subway station",
        "sure-footed goats on a cliff at dawn",
        "2 owls on a branch in winter",
        "here comes the sun over a harbour, oil painting",
        'a sign that reads "I can\'t swim" beside a pool',
        "1950s diner at night, neon",
    ],
)
def test_not_rejected(text):
    assert VariationFilter("a corgi").accept(json.dumps([text])) == ([text], {})


def test_texts_that_differ_in_place_or_style_are_no_copies():
    texts = [
        f"a corgi in a top hat {place}, {style}"
        for place in ("in Lagos", "on Mars", "at sea")
        for style in ("woodcut", "oil painting", "film still")
    ]
    assert VariationFilter("a corgi in a top hat").accept(json.dumps(texts)) == (texts, {})


def test_longest_text_fits_a_jpeg_comment_with_the_original():
    assert 2 * len(("\U0001f600" * LONGEST).encode()) < 60_000, (
        "the comment is UTF-8; a text of nothing but emoji is the worst case"
    )


def test_overlap_is_recorded():
    assert overlap("a red fox", "a fox, red as rust") == 1.0
    assert overlap("a red fox", "two owls") == 0.0
    far = json.dumps(["two owls in a barn at night", "a red fox in a barn at night"])
    assert len(VariationFilter("a red fox").accept(far)[0]) == 2


def test_the_pattern_of_small_models_takes_only_the_plain_beginning():
    def pattern(prompt):
        return schema(3, prompt)["properties"]["variations"]["items"]["pattern"]

    assert pattern("a corgi (wearing a hat)").startswith("^a corgi,? ")
    assert pattern("\U0001f600 smiley").startswith("^[a-z") and pattern(
        "x" * 300 + " y"
    ).startswith("^" + "x" * 60)
    assert "pattern" not in schema(3)["properties"]["variations"]["items"]


def test_a_replaced_instruction_keeps_braces_and_quotes():
    asked = messages('{n} of "{prompt}" as {"x": []}', 'a "red" {n} fox', 3)
    assert asked == [("user", '3 of "a \\"red\\" {n} fox" as {"x": []}')]
