"""What a newcomer types, and what it must say: each test is a stumble that somebody met."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

from common.command_line import UserError
from common.console import near_path
from common.screening import Rules, Screen
from common.terms import Licences
from generate.dataset.prompts_file import read_prompts
from generate.launch import progress, tiny_prompts
from generate.launch.finished import what_next
from generate.llms.spend_limit import OwnAccounts
from generate.llms.whole_file import read_part, take_over, write
from generate.pipelines.pixels import pixels_of

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
    assert ended.returncode == 0 and "no LLM is asked" in ended.stdout, ended.stderr
    assert json.loads(output.read_text()) == made
    items = read_prompts(prompts)
    assert take_over(items, output) == {0: [detail], 1: [detail]}
    assert items[1]["variations"] == ["a dog at sea"]
    other = read_prompts(prompts)[::-1]
    with pytest.raises(UserError, match="holds other prompts"):
        take_over(other, output)


PART = '{"index": 0, "texts": ["a cat at sea"], "details": [null], "short": null}\n'


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        "5",
        "[" * 99_999,
        '{"index": 7, "texts": []}',
        '{"index": 1, "texts": [5], "short": null}',
        '{"index": 1, "texts": ["a", "b"], "short": null}',
        '{"index": 1, "texts": ["a"], "details": [NaN], "short": null}',
        '{"index": 1, "texts": ["a"], "details": [null, null], "short": null}',
    ],
)
def test_a_damaged_part_file_is_one_line(tmp_path, line):
    part = tmp_path / "v.json.part"
    about = {"prompts_sha256": "x", "num_variations": 1}
    part.write_text(json.dumps(about) + "\n" + PART + line + "\n" + PART + '{"half')
    with pytest.raises(UserError, match="line 3 is damaged; remove that line"):
        read_part(part, about, 2)
    part.write_text(json.dumps(about) + "\n" + PART + '{"half')
    assert read_part(part, about, 2) == {0: json.loads(PART)}
    assert part.read_text().endswith(PART)


def test_a_sparse_part_is_not_read_into_memory(tmp_path):
    part = tmp_path / "v.json.part"
    with open(part, "wb") as sparse:
        sparse.truncate(60 << 30)
    with pytest.raises(UserError, match="zero bytes in it; move it away"):
        read_part(part, {"prompts_sha256": "x", "num_variations": 1}, 2)


def test_half_a_character_of_an_llm_is_written_as_a_question_mark(tmp_path):
    done = {0: {"index": 0, "texts": ["a cat \ud83d"], "details": [None], "short": None}}
    write(tmp_path / "v.json", [{"prompt": "a cat"}], done, {})
    assert json.loads((tmp_path / "v.json").read_text())[0]["variations"] == ["a cat ?"]


@pytest.mark.parametrize("kind", ["text", "pipe", "folder", "link", "other"])
def test_accounts_that_are_none_are_one_line(tmp_path, kind):
    """They say what was spent: another file in their place is not written, and not believed."""
    path = tmp_path / "o.json.accounts"
    if kind == "text":
        path.write_text("hello")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "victim").touch()
        path.symlink_to("victim")
    else:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE VIEW llm_facts AS SELECT 1 AS x")
    with pytest.raises(UserError, match=r"should say what was spent.*move it away"):
        OwnAccounts(str(path), {"budget_usd": 1.0, "backends": {}})
    assert kind != "link" or (tmp_path / "victim").stat().st_size == 0


def test_variations_are_not_written_into_a_text_file(tmp_path):
    prompts = tmp_path / "q.txt"
    prompts.write_text("a red fox\n")
    for output in (prompts, tmp_path / "s.jsonl"):
        ended = call("generate/llm_prompting.py", prompts, "--output", output)
        assert ended.returncode == 1 and "name a .json file" in ended.stderr, ended.stderr
    assert prompts.read_text() == "a red fox\n"


def test_prompts_that_the_tiny_model_does_not_know_are_named_in_the_plan(tmp_path):
    """They became wrong images without a word."""
    prompts = tmp_path / "my_prompts.txt"
    known = ["two red circles on a blue background", "A small green square on a white background."]
    prompts.write_text("\n".join([*known, "a yellow triangle on a purple background", "a cat"]))
    command = ["generate/generate_images.py", prompts, "--config", "examples/shapes.yaml"]
    said = call(*command, "--dry_run", "--output_root", tmp_path / "out")
    assert said.returncode == 0, said.stderr
    (line,) = [line for line in said.stdout.splitlines() if line.startswith("prompts ")]
    assert "the tiny model does not know 2 of 4" in line
    assert '"a yellow triangle on a purple background"' in line
    assert "each on a background of one of these colours" in line
    assert "40 images: 4 prompts x 10" in said.stdout and "can be asked: embedded" in said.stdout
    assert "how long is not known yet: --preview 8" in said.stdout
    assert tiny_prompts.lines_of([{"prompt": text} for text in known]) == []


def test_a_run_of_ones_own_prompts_ends_with_the_command_of_its_release(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", str(tmp_path))

    def said(name):
        definition = {"name": name.partition(".")[0], "prompts_file": name}
        return what_next(ROOT / "outputs", definition)

    folder = "outputs/generated_images/mine"
    release = f"{near_path(sys.executable)} postprocess_dataset/release.py {folder} release/mine"
    lines = said("mine.txt").splitlines()
    assert lines[:2] == [f"images: {folder}", f"next:   {release} --licence mine=LICENCE"]
    assert "like CC0-1.0" in lines[2]
    assert said("mine.json").splitlines()[1] == f"next:   {release}"
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert "next:   python postprocess_dataset/release.py" in said("mine.json")
    monkeypatch.chdir(tmp_path)
    assert f"images: {ROOT}/{folder}" in said("mine.json")


def test_a_log_has_lines_from_the_beginning(monkeypatch, tmp_path, capsys):
    """After 2, 6, 14, 30 and 62 s, then each minute; the last one tells of texts that were cut."""
    now = [0.0]
    counts = {"name": "a", "done": 0, "total": 3, "images": 1, "images_expected": 30, "short": 0}
    workers = {"by_state": {}, "rows": []}
    document = {"datasets": [counts | {"truncated": 2}], "workers": workers, "time": 0}
    answer = progress.Answer(document | {"weather": {"state": "fair"}})
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "fetch", lambda root: answer)
    monkeypatch.setattr(progress, "LAST_LOOK_S", 0)
    shown = progress.Progress("a", tmp_path)
    lines = []
    for second in range(200):
        now[0] = float(second)
        shown.show()
        lines += [second] * bool(capsys.readouterr().out)
    assert lines == [2, 6, 14, 30, 62, 122, 182]
    shown.show(last=True)
    assert "; 2 texts are longer than the model reads (truncated)" in capsys.readouterr().out


def test_the_licence_itself_is_to_be_stated():
    with pytest.raises(UserError, match=r"put the licence itself there, like CC0-1\.0"):
        Licences.of(["my_prompts=LICENCE"])
    for name in ("my_prompts", "my_prompts.txt", "my_prompts.json"):
        assert Licences.of([f"{name}=CC0-1.0"]).terms_of("my_prompts")["licence"] == "CC0-1.0"
