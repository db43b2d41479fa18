"""Which texts become variations, and which do not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.screening import Rules, Screen
from generate.llms.asking import Wording, begin_with, messages, schema
from generate.llms.attributes import Attributes
from generate.llms.copies import CopyIndex, fold, overlap
from generate.llms.torn import fault_of_form
from generate.llms.variations import LONGEST, Given, VariationFilter


def accepted(prompt, texts, **kwargs):
    """(texts taken, {reason: rejected}) of an answer that holds those texts."""
    taken, why = VariationFilter(prompt).accept(json.dumps(texts), **kwargs)
    return [text for _, text in taken], dict(why)


@settings(deadline=None)  # the first text loads the language model
@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(json.dumps)
)
def test_whatever_a_model_writes_gives_texts_or_nothing(answer):
    taken, _ = VariationFilter("a corgi").accept(answer)
    texts = [text for _, text in taken]
    assert all(
        isinstance(text, str) and text == text.strip() and len(text) <= LONGEST and "\n" not in text
        for text in texts
    )
    assert len({fold(text) for text in texts}) == len(texts) and "corgi" not in map(fold, texts)
    json.dumps(texts).encode("ascii")


@pytest.mark.parametrize(
    "text,reason",
    [
        ("A Corgi, in a top-hat!", "copies"),
        ("a corgi in the top hat", "copies"),
        ("A córgi in a töp hat", "copies"),
        ("a corgi at sea by night in fog", "copies"),
        ("by night a corgi, at sea in fog", "copies"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I cannot create content of that kind", "refusal"),
        ("I can’t assist with this request", "refusal"),  # noqa: RUF001
        ("As an AI language model, I do not draw", "refusal"),
        ("Here are the variations:", "unusable"),
        ("Sure! Here are 5 captions:", "unusable"),
        ("ein Corgi mit Zylinder auf dem Dach", "unusable"),
        ("a corgi in a {hat}", "unusable"),
        ("a corgi in a top hat --ar 16:9", "unusable"),
        ("a corgi at sea; place: Rome; mood: calm", "unusable"),
        ("change the corgi to a walrus at sea", "unusable"),
        ("a corgi in Rome. Keep the hat", "unusable"),
        ("a corgi in a cap (same as original)", "unusable"),
        ("a corgi in a cap, option B", "unusable"),
        ("a corgi in a cap #dogsofrome", "unusable"),
        ("a corgi at a fair, and so on", "unusable"),
        ("a corgi in a top hat, ultra HD, 8k", "copies"),
        ("a naked woman with a corgi, pornographic", "screened"),
        ("a spaceship landing on Mars", "off the subject"),
        ("corgi word " * 500, "too long"),
        ("a corgi " + "and a cat and another dog " * 20, "too long"),
    ],
)
def test_rejected(text, reason):
    kept = VariationFilter("a corgi in a top hat", known=["a corgi at sea by night, in fog"])
    good = "a lighthouse and a corgi of paper, woodcut"
    assert kept.accept(json.dumps([text, good])) == ([(1, good)], {reason: 1})


@pytest.mark.parametrize(
    "text",
    [
        "I, Robot: a film poster in a subway station",
        "sure-footed goats on a cliff at dawn",
        "2 owls on a branch in winter",
        "here comes the sun over a harbour, oil painting",
        'a sign that reads "I can\'t swim" beside a pool',
        "1950s diner at night, neon",
        "changing of the guard outside a diner, by daylight",
        "goats waiting for the ferry...",
        "issue #1 of a comic about goats",
    ],
)
def test_not_rejected(text):
    prompt = "a film poster with goats, owls, a harbour, a pool and a diner"
    assert accepted(prompt, [text]) == ([text], {})


def test_texts_that_differ_in_place_or_style_are_no_copies():
    texts = [
        f"a corgi in a top hat {place}, {style}"
        for place in ("in Lagos", "on Mars", "at sea")
        for style in ("woodcut", "oil painting", "film still")
    ]
    assert accepted("a corgi in a top hat", texts) == (texts, {})


def test_one_word_makes_a_long_text_another_one():
    """A ratio of whole texts took a replaced subject for a copy in a third of long prompts."""
    tail = "matte painting, trending on artstation, golden hour, highly detailed, wide angle"
    copies = CopyIndex([f"portrait of a corgi, {tail}"])
    assert not copies.has(f"portrait of a walrus, {tail}")
    assert copies.has(f"{tail}; portrait of the corgis")
    assert copies.has(f"portrait of a corgi, {tail.replace('artstation', 'artstatoin')}")


def test_a_validation_set_and_rules_come_with_the_screen():
    screen = Screen(Rules(sexual="keep"))
    kept = VariationFilter("a woman on a beach", screen=screen)
    assert kept.accept('["a naked woman on a beach, pornographic"]')[0]
    assert kept.accept('["a 12 year old naked girl on a beach"]')[1] == {"screened": 1}


def test_each_text_matches_the_pattern_of_its_backend():
    texts = ["a red circle", "a huge red circle", "a blue square"]
    found = accepted("a red square", texts, pattern="an? (red|blue) (circle|square)")
    assert found == (["a red circle", "a blue square"], {"pattern": 1})


def test_longest_text_fits_a_jpeg_comment_with_the_original():
    assert 2 * len(("\U0001f600" * LONGEST).encode()) < 60_000, (
        "the comment is UTF-8; a text of nothing but emoji is the worst case"
    )


def test_overlap_is_recorded():
    assert overlap("a red fox", "a fox, red as rust") == 1.0
    assert overlap("a red fox", "two owls") == 0.0


@pytest.mark.parametrize(
    "text, torn",
    [
        ("a corgi on the, lamplight", True),
        ("a corgi at the gate of, woodcut", True),
        ("a walrus with a", True),
        ("a corgi in, tin toy", True),
        ("a corgi in the hat on thec, lamplight", True),
        ("a corgi in a strngthd hat", True),
        ("a corgi in the lnd f res, lamplight", True),
        ("a corgi in ucr ia izi zu", True),
        ("a corgi on on a hill", True),
        ("a corgi beside a red s, lamplight", True),
        ("a corgi in a hat \u5728\u5df4\u9ece\u7684", True),
        ('a corgi under a sign that says "\u5728\u5df4\u9ece\u7684"', False),
        ("borscht on a lightship", False),
        ("a corgi beside a car of type r, lamplight", False),
        ("a corgi in the rain in the rain, etching", True),
        ("a corgi in the rain in the street", False),
        ("a corgi on vhs, vfx by h. r. giger", False),
        ("a very very big corgi in bora bora, 35 mm f 1.4", False),
        ("a street with the lights on, rain", False),
        ("the house that the cat lives in, woodcut", False),
        ("a corgi, then a walrus, and andy warhol", False),
        ("a dslr photo, rhythms of the night", False),
    ],
)
def test_torn_texts(text, torn):
    assert bool(fault_of_form(text, "a corgi")) is torn


def test_what_the_prompt_has_itself_is_not_torn():
    assert fault_of_form("a walrus of, andc", "the rain of, andc") == ""


def given(**lists):
    return Given(Wording.read().given().instruction, Attributes(lists))


def taken(prompt, texts):
    kept = VariationFilter(
        prompt,
        given=given(time=["at noon", "at midnight"], medium=["woodcut", "tin toy", "etching"]),
    )
    return [text for _, text in kept.accept(json.dumps(texts))[0]]


def test_copies_but_for_the_attributes():
    assert taken("a corgi in a hat", ["a corgi in a hat, woodcut, at noon"]) == []
    texts = [f"a walrus in a hat, {medium}" for medium in ("woodcut", "tin toy", "etching")]
    assert taken("a corgi in a hat", texts) == texts[:2]
    other = ["a corgi in a woodcut shop", "a corgi asleep, woodcut", "a corgi at sea, woodcut"]
    assert taken("a corgi in a hat", other) == other


def test_texts_that_contradict_themselves_or_repeat_the_instruction():
    assert taken("a corgi in a hat", ["a corgi at noon in a street, at midnight"]) == []
    assert taken("a corgi", ["a corgi, names of people places and artists may be replaced"]) == []
    assert taken("a corgi", ["a red bicycle against a brick wall in Havana with a corgi"]) == []
    assert taken("a corgi", ["a corgi on a bicycle against a wall"]) != []


def test_the_pattern_of_small_models_takes_only_the_plain_beginning():
    assert begin_with("a corgi (wearing a hat)", {}).startswith("^a corgi,? ")
    assert begin_with("\U0001f600 smiley", {}).startswith("^[a-z")
    assert begin_with("x" * 300 + " y", {}).startswith("^" + "x" * 60)
    assert begin_with("a techno-spirit, 8k", {}).startswith("^a techno-spirit")
    assert begin_with("the big caf\u00e9 of Rome", {}).startswith("^the big,? ")
    drawn = {"place": "in St. Ives", "medium": "oil"}
    assert begin_with("a king, oil painting, Rembrandt", drawn) == (
        r"^a king,?( [a-zA-Z']{1,13}){1,8}, in St\. Ives, oil$"
    )
    assert "pattern" not in json.dumps(schema(3))
    one = schema(3, ["a+"])["properties"]["variations"]
    assert one["items"] == {"type": "string", "pattern": "a+"}
    each = schema(2, ["a+", "b+"])["properties"]["variations"]
    assert [item["pattern"] for item in each["prefixItems"]] == ["a+", "b+"]


def test_a_replaced_instruction_keeps_braces_and_quotes():
    asked = messages('{n} of "{prompt}" as {"x": []}', 'a "red" {n} fox', 3)
    assert asked == [("user", '3 of "a \\"red\\" {n} fox" as {"x": []}')]
