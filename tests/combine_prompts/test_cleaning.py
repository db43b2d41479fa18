"""Cleaning: each quirk of the real files both ways, and what holds for any string."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from combine_prompts import spacing, syntax
from combine_prompts.cleaning import clean, clean_row
from common.texts import fold
from tests.combine_prompts.cleaning_cases import CHANGED, UNCHANGED


@pytest.mark.parametrize("raw", CHANGED)
def test_changes(raw):
    cleaned, rules = clean(raw)
    assert cleaned == CHANGED[raw] and rules


@pytest.mark.parametrize("text", UNCHANGED)
def test_stays(text):
    assert clean(text) == (text, [])


def test_ascii_transliterates():
    assert (
        clean("Stålenhag, Velázquez, 東京 \U0001f309!", ascii=True)[0]
        == "Stalenhag, Velazquez, DongJing !"
    )
    assert clean("plain", ascii=True) == ("plain", [])


def test_undecodable_characters_drop_the_prompt():
    assert clean_row("St\ufffdlenhag")[1] == "undecodable character"
    assert clean_row("lone \ud800 surrogate")[1] == "undecodable character"
    assert clean_row(" \u200b ")[1] == clean_row("--ar 16:9")[1] == "empty after cleaning"
    assert clean_row("  ")[1] == "empty" and clean_row("\U0001f98a")[1] is None


PIECES = st.sampled_from(
    [
        *CHANGED,
        *UNCHANGED,
        " ",
        ",",
        "(",
        ")",
        ":",
        "::",
        " - ",
        "--",
        "\u2014",
        "ar",
        "&",
        "&amp;",
        "amp;",
        "#",
        "lt;",
        ";",
        "<",
        ">",
        "lora",
        "1",
        " 2",
        "k",
        "s",
        ".",
        "/",
        "f",
        "\u200d",
        "\ufe0f",
        "\U0001f468",
        "\u0301",
        "\u00c3\u00a9",
        "BREAK",
        "http://",
        "Steps: 1,",
        "Sampler",
        "\n",
        "\n\n",
        "\x85",
        "\x00",
    ]
)
ANY = st.one_of(
    st.text(),
    st.text(st.characters()),
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=8).map(" ".join),
)


@settings(max_examples=500, deadline=None)
@given(ANY, st.booleans())
def test_cleaning_twice_changes_nothing_more(text, ascii):
    holds(text, ascii)


@pytest.mark.soak
@settings(max_examples=100_000, deadline=None)
@given(ANY, st.booleans())
def test_cleaning_twice_changes_nothing_more_soak(text, ascii):
    holds(text, ascii)


def holds(text, ascii):
    once = clean(text, ascii)[0]
    assert clean(once, ascii) == (once, [])
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in once)
    assert once == " ".join(once.split()) and unicodedata.is_normalized("NFC", once)
    assert not ascii or once.isascii() or "\ufffd" in once


@settings(max_examples=300, deadline=None)
@given(ANY)
def test_spacing_moves_blanks_only(text):
    def signs(text):
        return "".join(text.split())

    folded = " ".join(text.split())
    assert (
        signs(spacing.ENTITY.sub("", spacing.join(folded))) == signs(spacing.ENTITY.sub("", folded))
        or "& #" in folded
    )


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *("a", "fox", "4", "knights", "1980s", "(dark)", "café", "16:9", "sci-fi"),
                *("wood,", "painting,", "#sea"),
            ]
        ),
        max_size=9,
    ).map(" ".join)
)
def test_plain_prompts_lose_nothing(text):
    said = text.rstrip(",").replace(" ", "")
    assert clean(text) == (text, []) or clean(text)[0].replace(" ", "") == said
    assert syntax.strip(text)[0].strip(",") == text.strip().strip(",")


@given(ANY)
def test_fold_is_a_key(text):
    assert fold(fold(text)) == fold(text)


def test_fold():
    assert fold("A Red  fox, (8K)!") == fold("a red fox 8k") != fold("a red fox 4k")
    assert fold("\U0001f34e, octane") != fold(
        "\U0001f6a2, octane"
    )  # emoji are what such prompts are about
