"""Whose prompts they are, what may be published, what was removed and why, and hostile input."""

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from combine_prompts import combination, verdicts
from combine_prompts.combine import main
from combine_prompts.verdicts import judge
from common.screening import Screen
from tests.combine_prompts.running import COMBINE, combine
from tests.fakes.forked_script import forked

FILES = {
    "pickscore.json": ["a fox in the snow", "a hare in the field"],
    "sac.json": ["A fox in the snow", "an owl in the barn"],
    "HPDv2.json": [{"prompt": "a man on a bench", "source": ["HPDv2", "COCO"]}],
    "mine.json": ["a goose on the pond"],
}


def test_terms_come_from_the_items_sources_also_of_a_combined_file(tmp_path):
    ended, combined, _, report = combine(tmp_path, FILES)
    assert "pickscore: 1 prompts under no stated licence" in ended.stdout
    sources = report["sources"]
    assert sources["COCO"]["terms"]["licence"] == "CC-BY-4.0"
    assert sources["pickscore"]["prompts"] == 2 and sources["sac"]["prompts"] == 2
    attribution = (tmp_path / "out" / "combined.ATTRIBUTION.md").read_text()
    assert "CC-BY-4.0" in attribution and "Microsoft COCO captions" in attribution
    assert report["versions"]["embeddings"].startswith("wordllama") and report["versions"]["code"]
    (tmp_path / "again").mkdir()
    _, _, _, again = combine(tmp_path / "again", {"combined.json": combined})
    terms = {name: about.get("terms") for name, about in again["sources"].items()}
    assert terms["sac"]["licence"] == "CC0-1.0" and terms["combined"] is None


def test_the_report_hashes_the_bytes_that_were_read(tmp_path, monkeypatch):
    """A colleague replaces the files while their prompts are judged."""
    mine, held_out = tmp_path / "mine.json", tmp_path / "gecko.json"
    read = {mine: b'["a goose on the pond"]', held_out: b'["an owl in the barn"]'}
    for path, data in read.items():
        path.write_bytes(data)

    def replaced_meanwhile(*asked):
        for path in read:
            path.write_bytes(b'["a hare in the field"]')
        return judge(*asked)

    monkeypatch.setattr(combination, "judge", replaced_meanwhile)
    options = [f"--exclude={held_out}", f"--output={tmp_path / 'combined.json'}"]
    monkeypatch.setattr(sys, "argv", ["combine.py", str(mine), *options])
    assert main() == 0
    report = json.loads((tmp_path / "combined.report.json").read_text())
    said = report["sources"]["mine"]["sha256"], report["excluded"]["gecko"]["sha256"]
    assert said == tuple(sha256(data).hexdigest() for data in read.values())


def test_publishable_leaves_out_what_states_no_licence(tmp_path):
    _, combined, removed, report = combine(
        tmp_path, FILES, "--publishable", "--licence", "mine=CC0-1.0"
    )
    assert {item["prompt"] for item in combined} == {
        "a fox in the snow",  # sac has it too
        "an owl in the barn",
        "a man on a bench",
        "a goose on the pond",
    }
    assert report["sources"]["pickscore"]["counts"]["no licence stated"] == 1
    assert [each["prompt"] for each in removed if each["reason"] == "no licence stated"] == [
        "a hare in the field"
    ]
    (tmp_path / "wrong").mkdir()
    ended, *_ = combine(tmp_path / "wrong", FILES, "--licence", "mine", status=1)
    assert "write NAME=LICENCE" in ended.stderr


def test_variations_are_judged_and_the_validation_set_travels(tmp_path):
    item = {
        "prompt": "a quiet harbor at dawn",
        "variations": [
            "a quiet harbor at night",
            "a naked woman in a harbor",
            "ein stiller Hafen in der Nacht",
            "seen from a train window, a snowy mountain",
        ],
    }
    files = {"sac.json": [item], "exclude.json": ["a snowy mountain seen from a train window"]}
    _, combined, removed, report = combine(tmp_path, files, filtered=True)
    assert combined[0]["variations"] == ["a quiet harbor at night"]
    assert {each["prompt"]: each["reason"] for each in removed} == {
        item["variations"][1]: "variation: sexual content",
        item["variations"][2]: "variation: not English",
        item["variations"][3]: "variation: validation set: same words",
    }
    assert all(each["variation of"] == item["prompt"] and each["rule"] for each in removed)
    output = tmp_path / "out" / "combined.json"
    screen = Screen.beside(output)
    assert screen.covers == report["sha256"]
    assert screen.judge("a snowy mountain, seen from a train window").reason.startswith("valid")
    assert b"snowy" not in (output.parent / "combined.screening.npz").read_bytes()


# ------------------------------------------------------------------- hostile input


@pytest.mark.parametrize("option", ["input", "exclude"])
@pytest.mark.parametrize("kind", ["deep", "loop", "device", "pipe", "folder"])
def test_what_is_no_prompts_file_is_one_line(tmp_path, option, kind):
    path = tmp_path / "odd.json"
    if kind == "deep":
        path.write_text("[" * 100_000)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/urandom")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    (tmp_path / "sac.json").write_text('["a fox in the snow"]')
    words = ["sac.json", "odd.json"] if option == "input" else ["sac.json", "--exclude", "odd.json"]
    ended = run(tmp_path, *words, "--output", "out/combined.json")
    assert ended.returncode == (3 if option == "input" else 1), ended.stderr
    assert len(ended.stderr.splitlines()) == 1 and "odd.json" in ended.stderr


@pytest.mark.parametrize("output", [".", "/", "folder"])
def test_an_output_that_is_a_folder(tmp_path, output):
    (tmp_path / "folder").mkdir()
    (tmp_path / "sac.json").write_text('["a fox in the snow"]')
    ended = run(tmp_path, "sac.json", "--output", output)
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "is a folder" in ended.stderr


def test_an_output_that_is_a_pipe_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sac.json").write_text('["a fox in the snow"]')
    ended = run(tmp_path, "sac.json", "--output", "pipe")
    assert ended.returncode == 1 and "is a device or a pipe" in ended.stderr
    assert (tmp_path / "pipe").is_fifo()


def test_names_and_numbers_that_json_cannot_hold(tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff.json"
    with open(odd, "w") as file:
        file.write('["a fox in the snow"]')
    ended = run(tmp_path, odd)
    assert (
        ended.returncode == 1 and len(ended.stderr.splitlines()) == 1 and "rename" in ended.stderr
    )
    items = b'[{"prompt": "a fox", "x": NaN}, {"prompt": "a hare", "x": 1e400}, "an owl in a barn"]'
    ended, combined, _, report = combine(tmp_path, {"sac.json": items}, status=3)
    assert [item["prompt"] for item in combined] == ["an owl in a barn"]
    assert report["sources"]["sac"]["counts"]["not a prompt"] == 2 and "NaN" in ended.stderr


def test_ctrl_c_with_workers_is_one_line(tmp_path):
    prompts = [f"a quiet harbor number {i} in the morning rain" for i in range(80_000)]
    (tmp_path / "sac.json").write_text(json.dumps(prompts))
    command = [sys.executable, COMBINE, "sac.json", "--output", "out/c.json", "--num_workers", "2"]
    process = subprocess.Popen(
        [*map(str, command)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 3:  # two workers and the resource tracker
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, says = process.communicate(timeout=60)
    assert process.returncode == 130 and says == "combine: interrupted\n", says


def test_a_closed_output_is_one_line(tmp_path):
    (tmp_path / "sac.json").write_text('["a fox in the snow"]')
    ended = subprocess.run(
        f"{sys.executable} {COMBINE} sac.json --output c.json | true",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in ended.stderr and len(ended.stderr.splitlines()) <= 1
    assert json.loads((tmp_path / "c.json").read_text())


def run(folder, *words):
    return forked("combine_prompts/combine.py", *words, folder=folder)


def test_names_of_sources_are_shown_harmless(tmp_path):
    """On the terminal, and in the page that says whose prompts these are."""
    names = [
        "<script>alert(1)</script>",
        "\x1b[31mred",
        "[x](javascript:1)",
        "a\n\n## sac: CC0 (1 prompts)",
        "\u202eabc",
        "x" * 100_000,
    ]
    texts = ("a cat on a mat", "a ship at sea", "an old man", "two birds", "a blue car", "a lake")
    items = [{"prompt": text, "source": [name]} for text, name in zip(texts, names, strict=True)]
    ended, kept, _, _ = combine(tmp_path, {"theirs.json": items})
    page = (tmp_path / "out" / "combined.ATTRIBUTION.md").read_text()
    shown = ended.stdout + ended.stderr + page
    assert "\x1b" not in shown and "\u202e" not in shown and "x" * 201 not in shown
    assert "<script>" not in page.replace("\\<", "") and "[x](" not in page
    assert sum(line.startswith("#") for line in page.splitlines()) == 1 + len(names)
    assert {source for item in kept for source in item["source"]} >= {"\\x1b[31mred"}


def test_a_second_ctrl_c_does_not_disturb_the_end(monkeypatch):
    """It fell into the locks of Python's imports and pools: the end was waited for, for ever."""
    blocked = []

    class Pool:
        def __init__(self, *args):
            pass

        def map(self, *args):
            raise KeyboardInterrupt

        def shutdown(self, **kwargs):
            blocked.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))

    monkeypatch.setattr(verdicts, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(verdicts, "INLINE", 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(verdicts.judge([("a fox", []), ("a hare", [])], None, 2))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    assert blocked == [True]
