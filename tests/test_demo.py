"""The demo's parts that need no models: the grammar of its LLM, its steps on the terminal."""

import json
import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from common.command_line import UserError
from common.files import CHECKOUT
from examples.demo_steps import Steps
from examples.shape_score import things_of
from generate.launch.tiny_prompts import KNOWN
from generate.llms.asking import VariationRequest, Wording
from generate.llms.backend import Backend, Reply
from generate.llms.backends_file import LONGEST_PATTERN, BackendsFile
from generate.llms.chat import ChatClient
from generate.llms.variations import VariationFilter

BACKENDS = yaml.safe_load((CHECKOUT / "examples" / "shapes_backends.yaml").read_text())
TOKENIZER = Tokenizer.from_file(
    str(CHECKOUT / "examples" / "tiny_model" / "tokenizer_3" / "tokenizer.json")
)
SHAPES = ("circle", "square", "triangle")
PATTERN = BACKENDS["tiers"][0]["backends"][0]["pattern"]


@settings(max_examples=200)
@given(st.from_regex(PATTERN, fullmatch=True))
def test_what_the_llm_may_write_is_what_the_tiny_model_draws(text):
    things, background = things_of(text)
    colours = [background, *dict.fromkeys(thing.colour for thing in things)]
    assert things and None not in colours, text
    assert len(set(colours)) == len(colours), "a shape would have the colour of what is behind it"
    assert len(things) in (1, 2, 3, 4) and not re.search(r"(small|large).*\b(at|above)\b", text)


def test_the_pattern_is_short_enough_and_names_what_the_prompts_are_like():
    assert len(PATTERN) <= LONGEST_PATTERN
    for text in (
        "a large yellow triangle on a blue background",
        "a white circle to the left of a black square on a blue background",
        "four red squares on a white background",
    ):
        assert re.fullmatch(PATTERN, text)


@pytest.mark.parametrize(
    "prompt, shapes",
    [
        ("a large yellow Triangle on a black background", {"triangle"}),
        ("a red circle above a blue square on a green background", {"circle", "square"}),
        ("two white things on a black background", {"circle", "square", "triangle"}),
    ],
)
def test_the_variations_of_a_prompt_have_its_shapes(prompt, shapes):
    (config,) = BackendsFile(CHECKOUT / "examples" / "shapes_backends.yaml").configs(start=False)
    texts = {shape: f"two red {shape}s on a white background" for shape in SHAPES}
    taken = {shape for shape in SHAPES if re.fullmatch(config.pattern_for(prompt), texts[shape])}
    assert taken == shapes
    wording = Wording.read(CHECKOUT / "examples" / "shapes_instruction.txt")
    request = VariationRequest(prompt, 9, VariationFilter(prompt), wording, "seed")
    config = replace(config, json="schema")  # as the embedded one takes it
    backend = Backend(config, ChatClient(config))
    asked = request.make(backend).schema["properties"]["variations"]["items"]["pattern"]
    assert {shape for shape in SHAPES if re.search(asked, texts[shape])} == shapes
    answer = json.dumps({"variations": list(texts.values())})
    judged = {text["text"] for text in request.judge(backend, Reply(answer))}
    assert judged == {texts[shape] for shape in shapes}


@settings(max_examples=200)
@given(st.from_regex(KNOWN, fullmatch=True, alphabet=st.characters(codec="ascii")))
def test_the_tiny_model_reads_each_prompt_that_it_knows(text):
    tokens = TOKENIZER.encode(text.lower().rstrip(".")).ids
    assert len(tokens) <= 16


def test_a_step_is_one_line_and_its_commands_are_in_the_log(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("VERBOSE", raising=False)
    steps = Steps(tmp_path / "demo.log")
    with steps.step("a look at the options", lambda: ": 7"):
        steps.run("generate/image_server.py", "--version")
    shown = capsys.readouterr().out
    assert re.fullmatch(r"a look at the options: 7 +\d+ s\n", shown)
    log = (tmp_path / "demo.log").read_text()
    assert "$ python generate/image_server.py --version\nimage_server.py " in log


def test_a_command_that_fails_shows_its_last_words(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("VERBOSE", raising=False)
    steps = Steps(tmp_path / "demo.log")
    with pytest.raises(UserError, match=r"status 2; .*demo\.log"), steps.step("a step"):
        steps.run("generate/image_server.py", "--no_such_option")
    assert "unknown argument" in capsys.readouterr().out


def test_verbose_shows_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VERBOSE", "1")
    Steps(tmp_path / "demo.log").run("generate/image_server.py", "--version")
    assert (
        "$ python generate/image_server.py --version\nimage_server.py " in capsys.readouterr().out
    )
