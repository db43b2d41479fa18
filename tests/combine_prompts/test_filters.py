"""Which prompts may stay: language, sexual content, minors, the validation set."""

import pytest

from combine_prompts import decontamination, filters
from common.texts import fold


@pytest.mark.parametrize(
    "text, english",
    [
        ("a corgi wearing a top hat", True),
        ("A bicycle chained to a pole on a snowy day", True),
        ("a red potato", True),
        ("зимний лес ночью", False),
        ("涼宮ハルヒの憂鬱、アニメ", False),
        ("Zwei Hunde spielen im Garten hinter dem alten Haus", False),
        ("un perro grande corriendo por la playa al atardecer", False),
        ("mini dinosaur skeleton inside a crystal geode", True),
        ("portrait by Greg Rutkowski, artstation", True),
    ],
)
def test_language(text, english):
    assert filters.language_is_english(text) is english


@pytest.mark.parametrize(
    "text, explicit",
    [
        ("a naked woman on a bed", True),
        ("hentai style", True),
        ("a naked mole rat", False),
        ("seen by the naked eye", False),
        ("a pussy willow branch", False),
        ("roman gladiator, bare chest", False),
        ("a sexton in Essex at the sextant", False),
        ("document folder", False),
        ("a cockerel and a titmouse", False),
        ("breastplate armor", False),
        ("nude sculpture", True),
    ],
)
def test_sexual_content(text, explicit):
    assert filters.explicit(text) is explicit


@pytest.mark.parametrize(
    "text, dropped",
    [
        ("a nude teenager", True),
        ("sexy schoolgirl", True),
        ("a 16 year old in lingerie", True),
        ("a 16-year-old in lingerie", True),
        ("sensual fifteen year old", True),
        ("loli in a bikini", True),
        ("erotic, aged 12", True),
        ("a naked 9yo", True),
        ("children bathing", True),
        ("young girl in a bikini", True),
        ("a schoolgirl reading a book", False),
        ("a 16 year old violinist", False),
        ("a 35 year old woman in lingerie", False),
        ("a 116 year old in a bikini", False),
        ("a kid flying a kite", False),
        ("a sexy woman of 30", False),
    ],
)
def test_minors(text, dropped):
    assert filters.sexualises_minors(text) is dropped


def test_decontamination_guards_the_short():
    excluded = decontamination.Excluded(
        ["a circle", "6 sandwiches", "two chairs beside a round table"], fold
    )
    assert (
        excluded.find("a circles") is None
        and excluded.find("10 sandwiches") is None
        and excluded.find("a") is None
        and excluded.find("") is None
    )
    assert excluded.find("two chair beside a round table")[0] == "alike"
    assert (
        excluded.find(
            "two chairs beside a round table in the garden of a castle with many towers and a moat"
        )
        is None
    )
