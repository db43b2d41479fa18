"""The judge of every text: what it refuses, what it lets pass, what travels beside a file."""

import pytest

from common.command_line import UserError
from common.screening import RULES_OF_A_RUN, Rules, Screen, find_loop, find_placeholder, path_beside
from common.subjects import find_gibberish, find_no_subject
from common.validation_set import ValidationSet

VALIDATION = [
    "a snowy mountain seen from a train window",
    "dog",
    "two chairs beside a round table",
    "the old clock tower rises slowly over the market square while a man sells oranges",
]


@pytest.mark.parametrize(
    "text, reason, rule",
    [
        ("a quiet lake at dawn", "", ""),
        ("a 15 year old in lingerie", "sexual content and an age word", "15 year old + lingerie"),
        ("a naked woman lying on a bed", "sexual content", "naked"),
        ("a {breed} in a {hat} at night", "placeholder", "a {breed}"),
        ("cat", "too short", "1 words, 3 characters"),
        ("a red circle \x1b[31m on a blue background", "control character", "U+001B"),
        ("a quiet lake at dawn\x00", "control character", "U+0000"),
        ("a quiet lake \x9b31m at dawn", "control character", "U+009B"),
        ("a quiet lake \u202eat dawn", "control character", "U+202E"),
        ("a quiet lake\tat dawn,\r\n in the mist", "", ""),
        ("word " * 30, "loop", "word"),
        ("Zwei Hunde spielen im Garten hinter dem alten Haus", "not English", "de"),
        ("gkp hghdbif thr hfu yjdu ndjthrbptoofjpuf", "gibberish", "gkp"),
        ("artwork by Emi Kuraya, trending on artstation", "no subject", "names and style alone"),
        ("A snowy mountain, seen from a train window.", "validation set: same text", "same text"),
    ],
)
def test_reasons(text, reason, rule):
    verdict = Screen(Rules(), ValidationSet.of(VALIDATION)).judge(text)
    assert (verdict.reason, verdict.rule) == (reason, rule)


@pytest.mark.parametrize("action", ["drop", "flag", "keep"])
def test_minors_are_refused_whatever_the_rules(action):
    rules = Rules("any", 1, 10_000, 1, 100_000, profanity=action, sexual=action, hate=action)
    for screen in (Screen(rules), Screen(), Screen(RULES_OF_A_RUN)):
        for text in ("a nude teenager", "1girl, schoolgirl, nsfw", "l0li in a b1kini"):
            assert screen.judge(text).reason == "sexual content and an age word"
            assert screen.judge_variation(text, "a fox").reason == "sexual content and an age word"


def test_flags():
    rules = Rules(sexual="flag", profanity="flag", hate="flag")
    assert Screen(rules).judge("a naked man on a fucking bed").flags == ("sexual", "profanity")


def test_variations_speak_the_language_of_the_original():
    screen = Screen()
    german = "Zwei Hunde spielen im Garten hinter dem alten Haus"
    assert screen.judge_variation(german, "two dogs in a garden").reason == "not English"
    assert screen.judge_variation(german, "Zwei Katzen spielen im Garten").reason == ""
    assert screen.judge_variation("two dogs", "two cats in the garden").reason == ""


def test_what_was_said_travels_beside_the_file(tmp_path):
    prompts = tmp_path / "combined.json"
    screen = Screen(Rules(sexual="keep", language="any"), ValidationSet.of(VALIDATION), "0" * 64)
    path = screen.save_beside(prompts)
    first = path.read_bytes()
    assert path == path_beside(prompts) and screen.save_beside(prompts).read_bytes() == first
    assert not any(prompt.encode() in first for prompt in VALIDATION)
    again = Screen.beside(prompts)
    assert again.rules == screen.rules and again.covers == "0" * 64
    leak = "a train window, a snowy mountain seen from a"
    assert again.judge(leak) == screen.judge(leak)
    assert again.judge(leak).reason == "validation set: same words"
    assert Screen.beside(tmp_path / "other.json").rules == RULES_OF_A_RUN
    for broken in (first[:100], b"", b"{}"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="combine"):
            Screen.beside(prompts)


@pytest.mark.parametrize(
    "text, found",
    [
        ("a {breed} in a hat", True),
        ("portrait of [subject] at night", True),
        ("null", True),
        ("first rewrite", True),
        ("Variation 3", True),
        ("caption text here", True),
        ("a __animal__ in the snow", True),
        ("{masterpiece}, best quality", False),
        ("{{{detailed}}} eyes", False),
        ("a house with [fog]", False),
        ("nothing but sand", False),
        ("the text 'null' on a sign", False),
        ("a prompt arrival at the station", False),
    ],
)
def test_placeholders(text, found):
    assert bool(find_placeholder(text)) is found


@pytest.mark.parametrize(
    "text, found",
    [
        ("dog " * 9, True),
        ("a cat on a mat " * 4, True),
        ("a cat and a dog and a cat and a dog and a cat and a dog and a cat and a dog", True),
        ("a" * 40, True),
        ("0" * 40, True),
        ("very very very beautiful", False),
        ("a dog beside a dog beside a cat", False),
        ("row, row, row your boat", False),
        ("red, green, blue, red, green, yellow, red, white, black, red", False),
        ("", False),
    ],
)
def test_loops(text, found):
    assert bool(find_loop(text)) is found


@pytest.mark.parametrize(
    "text, found",
    [
        ("by greg rutkowski", True),
        ("a beautiful detailed artwork by pablo carpio, trending on artstation", True),
        ("trending on artstation, 8k, octane render", True),
        ("by Ivan Aivazovsky and Odilon Redon", True),
        ("1 2 3 4 5 6 7", True),
        ("a watercolor in the style of hilma af klint", True),
        ("untitled mixed media, mural, modern art", True),
        ("photo in the style of the moon landing", False),
        ("a painting of \U0001f351\U0001f34a in the style of greg rutkowski", False),
        ("a bamboo artwork in the style of Ogata Korin", False),
        ("artwork by the river", False),
        ("a fox by greg rutkowski", False),
        ("portrait by greg rutkowski", False),
        ("art by hand, a clay bowl", False),
        ("painting by artgerm, a house at night", False),
        ("\U0001f98b, \u2601, by makoto shinkai", False),
        ("art studio, beautiful lighting", False),
        ("rise of the robots, octane render", False),
        ("painting of a queen", False),
        ("1984", False),
        ("", False),
    ],
)
def test_subjects(text, found):
    assert bool(find_no_subject(text)) is found


@pytest.mark.parametrize(
    "text, found",
    [
        ("serddguubbcddddssguy b cdrttffghj vh bhhb", True),
        ("asdfgh jkl qwrtz", True),
        ("a dslr photo, hdr", False),
        ("the rhythm of the borschtsch strengths", False),
        ("NYPD BMW NHL", False),
        ("hmm, brrr, psst", False),
    ],
)
def test_gibberish(text, found):
    assert bool(find_gibberish(text)) is found
