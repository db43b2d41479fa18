"""What a newcomer types, and what it must say: each test is a stumble that somebody met."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

from common.command_line import UserError
from common.screening import Rules, Screen
from generate.client.pixels import pixels_of
from generate.dataset.prompts_file import read_prompts
from generate.llms.whole_file import take_over

ROOT = Path(__file__).resolve().parent.parent


def call(*words):
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )


def test_prompts_in_other_forms(tmp_path):
    text, lines, table = tmp_path / "a.txt", tmp_path / "a.jsonl", tmp_path / "a.csv"
    text.write_text("   a cat\r\n\n  a dog  \n")
    assert [item["prompt"] for item in read_prompts(text)] == ["a cat", "a dog"]
    lines.write_text('{"prompt": "a cat", "source": "mine"}\n\n"a dog"\n')
    assert [item["source"] for item in read_prompts(lines)] == [["mine"], []]
    table.write_text("prompt\na cat\n")
    with pytest.raises(
        UserError, match=r"a\.csv: not JSON: a table; write its prompts, one a line"
    ):
        read_prompts(table)


def test_prompts_of_scripts_without_blanks_are_not_too_short():
    screen = Screen(Rules(language="any"))
    assert screen.judge("夕焼けの海").reason == ""
    assert screen.judge("猫").reason == "too short"
    assert screen.judge("a cat").reason == "too short"


def test_where_no_prompt_is_left_the_table_says_why(tmp_path):
    (tmp_path / "a.json").write_text('["a cat", "a dog"]')
    ended = call("combine_prompts/combine.py", tmp_path / "a.json", "--output", tmp_path / "b.json")
    assert ended.returncode == 1 and "no prompt is left" in ended.stderr
    assert "too short" in ended.stdout and "read" in ended.stdout


@pytest.mark.parametrize(
    "script", ["combine_prompts/combine.py", "postprocess_dataset/verify_dataset.py"]
)
def test_another_python_is_told_how_to_use_the_right_one(script):
    """As a Python without the packages: -S knows no site-packages."""
    ended = subprocess.run(
        [sys.executable, "-S", script, "x"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert "is not installed for" in ended.stderr and ". .venv/bin/activate" in ended.stderr


def test_a_pipeline_of_ones_own_may_give_pil_images():
    (array,), finite = pixels_of([Image.new("L", (4, 2), 7)])
    assert finite == [None] and array.shape == (2, 4, 3) and array.dtype == numpy.uint8


def test_variations_that_were_made_are_not_asked_for_again(tmp_path):
    """A finished command, typed again, asks nobody; a smaller number discards nothing."""
    prompts, output = tmp_path / "p.json", tmp_path / "v.json"
    prompts.write_text('["a cat", "a dog"]')
    detail = {"llm_model_name": "m", "backend": "b", "attributes": {}}
    made = [
        {"prompt": "a cat", "variations": ["a cat at sea"], "variation_details": [detail]},
        {"prompt": "a dog", "variations": ["a dog at sea"], "variation_details": [detail]},
    ]
    output.write_text(json.dumps(made))
    command = ["generate/llm_prompting.py", prompts, "--output", output, "--num_variations=1"]
    ended = call(*command, "--ollama_hosts=127.0.0.1:1")
    assert ended.returncode == 0 and "nobody is asked" in ended.stdout, ended.stderr
    assert json.loads(output.read_text()) == made
    items = read_prompts(prompts)
    assert take_over(items, output) == {0: [detail], 1: [detail]}
    assert items[1]["variations"] == ["a dog at sea"]
    other = read_prompts(prompts)[::-1]
    with pytest.raises(UserError, match="holds other prompts"):
        take_over(other, output)
