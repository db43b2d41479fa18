"""What variations are given to differ in: lists, draws, and what is recorded of them."""

import pytest

from common.command_line import UserError
from generate.llms.asking import Wording
from generate.llms.attributes import CLASHES, PER_TEXT, Attributes, drawn_for
from tests.fakes.fake_llm import FakeOllama
from tests.fakes.prompters import entry, prompter_for

pytestmark = pytest.mark.timeout(120)


def test_calls_for_one_prompt_draw_different_ones_and_a_seed_the_same():
    attributes = Attributes.read()
    assert sorted(attributes.lists) == sorted(
        ["place", "time", "era", "culture", "style", "medium", "light", "shot", "mood"]
    )
    drawn = attributes.draw("1/a corgi/1/1", 10)
    assert drawn == attributes.draw("1/a corgi/1/1", 10)
    assert drawn != attributes.draw("1/a corgi/2/1", 10)
    assert all(len(each) == PER_TEXT for each in drawn)
    words = [word for each in drawn for word in each.values()]
    assert len(set(words)) == len(words), "no attribute twice in a call"


def test_what_is_drawn_together_does_not_clash_with_itself_or_the_prompt():
    attributes = Attributes.read()
    seen = set()
    for seed in range(300):
        for drawn in attributes.draw(str(seed), 3):
            assert not any({one, other} in CLASHES for one in drawn for other in drawn)
        for drawn in attributes.draw(str(seed), 3, "oil painting of a king at night, 8k"):
            assert not {"medium", "style", "time", "light"} & set(drawn)
            seen |= set(drawn)
    assert seen == {"place", "era", "culture", "shot", "mood"}
    for prompt in ("film still of a robot in the 80s", "concept art of a robot, 1923"):
        drawn = [each for seed in range(50) for each in attributes.draw(str(seed), 3, prompt)]
        kinds = set().union(*drawn)
        assert not {"medium", "style"} & kinds and ("era" in kinds) == ("80s" not in prompt)
    assert Attributes({"medium": ["etching"]}).draw("s", 1, "a photo") == [{"medium": "etching"}]


def test_short_lists_are_drawn_again():
    drawn = Attributes({"colour": ["red", "blue"]}).draw("s", 5)
    assert [set(each) for each in drawn] == [{"colour"}] * 5
    assert {each["colour"] for each in drawn} == {"red", "blue"}


def test_a_text_is_put_down_to_the_line_that_it_took_up():
    drawn = [{"place": "in Havana", "medium": "etching"}, {"place": "on Mars", "mood": "weary"}]
    assert drawn_for("a weary corgi on Mars", 0, drawn) == drawn[1]
    assert drawn_for("a corgi somewhere", 1, drawn) == drawn[1]
    assert drawn_for("a corgi somewhere", 7, drawn) == {}


def test_a_users_lists_reach_the_model_and_are_recorded_with_each_text(tmp_path):
    file = tmp_path / "attributes.yaml"
    file.write_text("metal: [in copper, in pewter, in brass]\nweather: [in sleet, in dew]\n")
    with FakeOllama() as fake:
        prompter = prompter_for(tmp_path, [entry(fake)], attributes=file)
        texts = prompter.submit("a corgi in a top hat", 4).result(60).texts
        prompter.close()
    asked = fake.calls[0]["messages"][-1]["content"]
    for number, text in enumerate(texts, 1):
        assert set(text["attributes"]) == {"metal", "weather"}
        assert f"\n{number}. {', '.join(text['attributes'].values())}\n" in asked


def test_an_instruction_without_a_place_draws_none(tmp_path):
    instruction = tmp_path / "instruction.txt"
    instruction.write_text("{n} of {prompt}")
    with FakeOllama() as fake:
        prompter = prompter_for(tmp_path, [entry(fake)], instruction=instruction)
        texts = prompter.submit("a corgi in a top hat", 2).result(60).texts
        prompter.close()
    assert [text["attributes"] for text in texts] == [{}, {}]
    with pytest.raises(UserError, match="has no place"):
        Wording.read(instruction, tmp_path / "attributes.yaml")


@pytest.mark.parametrize(
    "text,words",
    [
        ("a: [", "is not YAML"),
        ("- a", "must hold categories"),
        ("", "must hold categories"),
        ("place: Kyoto", "place must be a list"),
        ("place: []", "place must be a list"),
        ("place: [{a: b}]", "each attribute of place"),
        ("place: ['']", "each attribute of place"),
    ],
)
def test_bad_attribute_files(tmp_path, text, words):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        Attributes.read(path)
    with pytest.raises(UserError, match="cannot read the attributes"):
        Attributes.read(tmp_path / "none.yaml")
