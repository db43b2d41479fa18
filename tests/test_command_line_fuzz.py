"""Every option of every script with hostile values and files: one line and a status, never a
traceback, never a hang, nothing left behind."""

import os
import random
import runpy
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.command_line import Options
from tests.fakes.forked_script import HUNG, ForkedScripts
from tests.fakes.hostile_files import make_hostile_files

ROOT = Path(__file__).resolve().parent.parent
LONGEST_S = 60  # 20 on a quiet machine
CASES = 30  # a script; `make soak` takes all
WORDS = [
    "",
    " ",
    "-1",
    "0",
    "²",
    "nan",
    "inf",
    "1e999",
    "9" * 5000,
    "a\nb",
    "a\x1b[31mb\u202ec",
    "é" * 150,
    os.fsdecode(b"\xff\xfe"),
    "../../etc/passwd",
    "{}",
    "$(touch pwned)",
    "';\"\\",
    "--help",
]


@dataclass(frozen=True)
class Script:
    """A script and a command line of it that ends by itself. {name}: a path of the test."""

    path: str
    words: list[str]
    never: list[str] = field(default_factory=list)  # options that start what does not end


EXAMPLES = ROOT / "examples"
SCRIPTS = [
    *(
        Script(
            f"combine_prompts/process_{name}.py",
            ["--input", str(EXAMPLES / name), "--output", "{out}/source.json"],
        )
        for name in ("image_reward", "sac", "pickscore", "hpdv2", "gecko")
    ),
    Script("combine_prompts/combine.py", ["{prompts}", "--output", "{out}/combined.json"]),
    Script("generate/image_server.py", ["--output_root", "{out}", "--status"]),
    Script(
        "generate/generate_images.py",
        ["{prompts}", "--output_root", "{out}", "--use_slurm", "--dry_run", "--model", "tiny"],
        never=["--preview", "--dry_run", "--use_slurm", "--is_slurm_task", "--tail_log"],
    ),
    Script(
        "generate/llm_prompting.py",
        ["--check", "--llm_backends", "{backends}"],
        never=["--llm", "--check", "--prompt"],
    ),
    Script("postprocess_dataset/convert_json_to_parquet.py", ["{data}", "{out}/table.parquet"]),
    Script(
        "postprocess_dataset/verify_dataset.py", ["{data}", "--report", "{out}/verification.json"]
    ),
    Script(
        "postprocess_dataset/convert_parquet_to_wds.py",
        ["--parquet_file", "{table}", "--base_dir", "{data}", "--output_dir", "{out}/tars"],
    ),
    Script("postprocess_dataset/push_to_hub.py", ["{data}", "me/birds", "--dry_run"]),
    Script("postprocess_dataset/release.py", ["{data}", "{out}/release"]),
    Script("postprocess_dataset/make_dataset_card.py", ["{data}"]),
    Script(
        "postprocess_dataset/make_release_forms.py",
        ["{table}", "{out}/release", "--base_dir", "{data}"],
    ),
    Script(
        "postprocess_dataset/make_report.py",
        ["{table}", "{out}/report.html", "--base_dir", "{data}"],
    ),
    Script(
        "postprocess_dataset/score_images.py",
        ["{data}", "{out}/scores", "--scores", "sharpness"],
    ),
]


class Captured(Exception):
    pass


def options_of(script: Script, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """(option or "", takes a value) of all options and places of a script, from its own parser."""
    found: list[tuple[str, bool]] = []

    def capture(parser: Options, *args: object) -> None:
        for action in parser._actions:
            name = action.option_strings[-1] if action.option_strings else ""
            found.append((name, action.nargs != 0))
        raise Captured

    monkeypatch.setattr(Options, "parse_args", capture)
    monkeypatch.setattr(sys, "argv", [script.path])
    with pytest.raises(Captured):
        runpy.run_path(str(ROOT / script.path), run_name="__main__")
    monkeypatch.undo()
    return [(name, value) for name, value in found if name not in ("--help", *script.never)]


def command_lines(
    script: Script, options: list[tuple[str, bool]], files: dict[str, str]
) -> list[list[str]]:
    """The script's own command line with each option, or place, given each hostile value."""
    base = [word.format(**files) for word in script.words]
    values = [*WORDS, *(path for name, path in files.items() if name.startswith("bad_"))]
    lines = []
    for option, takes_value in options:
        for value in values if takes_value else [""]:
            if not option:
                lines.append([value, *base[1:]] if not base[0].startswith("-") else [*base, value])
            elif takes_value:
                lines.append([*base, f"{option}={value}"])
            else:
                lines.append([*base, option])
    return [line for line in lines if not any("\0" in word for word in line)]


def run(
    scripts: ForkedScripts, script: Script, words: list[str], folder: Path
) -> tuple[int, str, bool]:
    """(status, stderr, whether it said anything); its process group is ended if it hangs."""
    status, output, error = scripts.run(script.path, words, folder, LONGEST_S)
    if status == HUNG:
        return status, f"did not end within {LONGEST_S} s", True
    said = bool(output.strip() or error.strip())
    return status, error.decode(errors="replace"), said


def wrong(status: int, error: str, said: bool = True) -> str:
    """What is wrong with how a command ended; "" if nothing is."""
    if not (0 <= status <= 3 or status > 128):
        return f"status {status}: {error[-300:]}"
    if "Traceback" in error:
        return f"a traceback: {error[-300:]}"
    if len(error.splitlines()) > 3:
        return f"{len(error.splitlines())} lines: {error[:300]}"
    if status in (1, 2) and not said:
        return "not a word"
    if any(ord(character) < 32 and character not in "\n\r\t" for character in error):
        return f"control characters: {error[:300]!r}"
    return ""


def check(script: Script, lines: list[list[str]], tmp_path: Path) -> None:
    complaints = []
    with ForkedScripts() as scripts:
        for words in lines:
            if complaint := wrong(*run(scripts, script, words, tmp_path)):
                complaints.append(f"{script.path} {words}: {complaint}")
    assert complaints == [], "\n".join(complaints)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: Path(script.path).stem)
def test_hostile_values(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_hostile_files(tmp_path)
    lines = command_lines(script, options_of(script, monkeypatch), files)
    check(script, random.Random(script.path).sample(lines, min(CASES, len(lines))), tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: Path(script.path).stem)
def test_all_hostile_values(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_hostile_files(tmp_path)
    check(script, command_lines(script, options_of(script, monkeypatch), files), tmp_path)


def test_complaints_are_made() -> None:
    assert wrong(0, "") == wrong(1, "x: no\n") == wrong(143, "") == ""
    assert wrong(1, "", False) and wrong(1, "Traceback (most recent call last):\n")
    assert wrong(1, "\n" * 4) and wrong(-11, "x") and wrong(1, "\x1b[31m")
