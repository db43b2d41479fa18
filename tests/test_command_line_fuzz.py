"""Every option of every script with hostile values and files: one line and a status, never a
traceback, never a hang, nothing left behind.

`make test` gives each value to some option of each kind, and at least four values to each option:
some 1,700 of the 8,500 command lines. `make soak` takes all. Each number of each script meets the
largest values that it takes, too, and is none beyond them."""

import argparse
import contextlib
import functools
import itertools
import os
import runpy
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common.command_line import Options
from tests.fakes.forked_script import forked
from tests.fakes.hostile_files import make_hostile_files

ROOT = Path(__file__).resolve().parent.parent
LONGEST_S = 60  # 20 on a quiet machine
SHARE = 8  # so many options of a kind get all values between them
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
    "0/1000000000",
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


NUMBERS = ["1000000000", "100000", "1024"]  # for each option that takes a number
TOO_LARGE = ["9" * 20, "-" + "9" * 20, "9" * 5000, "0/" + "9" * 20]
NO_NUMBERS = [*TOO_LARGE, "nan", "inf", "-inf", "1e300", "-1e300", "", " ", "x" * 5000]


@dataclass(frozen=True)
class Script:
    """A script and a command line of it that ends by itself. {name}: a path of the test."""

    path: str
    words: list[str]
    never: list[str] = field(default_factory=list)  # options that start what does not end
    parts: int = 1  # tests that share its command lines, so that no worker is last with them


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
        parts=3,
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


@dataclass(frozen=True)
class Option:
    name: str  # that of a place is its number: 0, 1
    kind: str  # options of a kind are read by the same code; "": it takes no value
    read: Any = None  # what reads its value, where that is a number


class Captured(Exception):
    pass


def options_of(script: Script) -> list[Option]:
    """All options and places of a script, from its own parser."""
    found: list[Option] = []

    def capture(parser: Options, *args: object) -> None:
        places = itertools.count()
        for action in parser._actions:
            kind = "choice" if action.choices else getattr(action.type, "__qualname__", "")
            if kind in ("", "Path"):  # a text: what reads it is the script itself
                kind = script.path
            if action.nargs == 0:
                kind = ""
            read = action.type if kind and reads_numbers(action.type) else None
            name = action.option_strings[-1] if action.option_strings else str(next(places))
            found.append(Option(name, kind, read))
        raise Captured

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Options, "parse_args", capture)
        patch.setattr(sys, "argv", [script.path])
        with pytest.raises(Captured):
            runpy.run_path(str(ROOT / script.path), run_name="__main__")
    return [option for option in found if option.name not in ("--help", *script.never)]


def reads_numbers(read: Any) -> bool:
    """Whether an option's type makes numbers of "1", or of a part "0/1"."""
    for word in ("1", "64", "0/1"):
        with contextlib.suppress(TypeError, ValueError, argparse.ArgumentTypeError):
            value = read(word)
            return isinstance(value, int | float | tuple) and not isinstance(value, bool)
    return False


@functools.cache
def shares() -> dict[str, list[tuple[Option, slice]]]:
    """{script: [(option, which of the values it gets)]}.

    The first option of a kind gets the first value and every SHARE-th after it, the next option
    begins with the second value: SHARE options, or all if a kind has fewer, get every value once.
    """
    options = {script.path: options_of(script) for script in SCRIPTS}
    of_kind = Counter(option.kind for option in itertools.chain(*options.values()))
    so_far: Counter[str] = Counter()
    found: dict[str, list[tuple[Option, slice]]] = {path: [] for path in options}
    for path, of_script in options.items():
        for option in of_script:
            step = min(SHARE, of_kind[option.kind])
            found[path].append((option, slice(so_far[option.kind] % step, None, step)))
            so_far[option.kind] += 1
    return found


def values(files: dict[str, str]) -> list[str]:
    return [*WORDS, *(path for name, path in files.items() if name.startswith("bad_"))]


def command_lines(script: Script, files: dict[str, str], all_of_them: bool) -> list[list[str]]:
    """The script's own command line with each option, or place, given hostile values."""
    base = [word.format(**files) for word in script.words]
    lines = []
    for option, share in shares()[script.path]:
        words = values(files)[slice(None) if all_of_them else share] if option.kind else [""]
        for value in [*words, *(NUMBERS if option.read else [])]:
            if not option.kind:
                lines.append([*base, option.name])
            elif option.name.startswith("-"):
                lines.append([*base, f"{option.name}={value}"])
            elif base[0].startswith("-"):
                lines.append([*base, value])
            else:
                place = int(option.name)
                lines.append([*base[:place], value, *base[place + 1 :]])
    return lines


def complaint_of(script: Script, words: list[str], folder: Path) -> str:
    """What is wrong with how a command line ends; its process group is ended if it hangs."""
    try:
        ended = forked(
            script.path,
            *words,
            folder=folder,
            environment=os.environ | {"COLUMNS": "80"},
            seconds=LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {LONGEST_S} s"
    said = bool(ended.stdout.strip() or ended.stderr.strip())
    return wrong(ended.returncode, ended.stderr, said)


def wrong(status: int, error: str, said: bool = True) -> str:
    """What is wrong with how a command ended; "" if nothing is."""
    if not (0 <= status <= 3 or status > 128):
        return f"status {status}: {error[-300:]}"
    if "Traceback" in error:
        return f"a traceback: {error[-300:]}"
    if len(error.splitlines()) > 3:
        return f"{len(error.splitlines())} lines: {error[:300]}"
    if " object at 0x" in error:
        return f"an object's address: {error[:300]}"
    if status in (1, 2) and not said:
        return "not a word"
    if any(ord(character) < 32 and character not in "\n\r\t" for character in error):
        return f"control characters: {error[:300]!r}"
    return ""


def check(script: Script, part: int, folder: Path, all_of_them: bool) -> None:
    complaints = []
    lines = command_lines(script, make_hostile_files(folder), all_of_them)
    for words in lines[part :: script.parts]:
        if complaint := complaint_of(script, words, folder):
            complaints.append(f"{script.path} {words}: {complaint}")
    assert complaints == [], "\n".join(complaints)
    assert not (folder / "pwned").exists()


each_part = pytest.mark.parametrize(
    ("script", "part"),
    [
        pytest.param(script, part, id=f"{Path(script.path).stem}-{part}")
        for script in SCRIPTS
        for part in range(script.parts)
    ],
)


@pytest.mark.timeout(900)
@each_part
def test_hostile_values(script: Script, part: int, tmp_path: Path) -> None:
    check(script, part, tmp_path, all_of_them=False)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@each_part
def test_all_hostile_values(script: Script, part: int, tmp_path: Path) -> None:
    check(script, part, tmp_path, all_of_them=True)


def test_each_kind_of_option_meets_each_value(tmp_path: Path) -> None:
    """And each option at least four of them."""
    all_values = values(make_hostile_files(tmp_path))
    met: dict[str, Counter[str]] = {}
    for option, share in itertools.chain(*shares().values()):
        if option.kind:
            assert len(all_values[share]) >= 4
            met.setdefault(option.kind, Counter()).update(all_values[share])
    assert [kind for kind, counts in met.items() if len(counts) < len(all_values)] == []


def test_each_number_has_a_least_and_a_largest_value() -> None:
    numbers = [
        (f"{script.path} {option.name}", option.read)
        for script in SCRIPTS
        for option in options_of(script)
        if option.read
    ]
    assert len(numbers) > 50
    for name, read in numbers:
        for word in NO_NUMBERS:
            with pytest.raises(argparse.ArgumentTypeError) as refused:
                print(name, word[:30], read(word))
            assert len(str(refused.value)) < 200


def test_complaints_are_made() -> None:
    assert wrong(0, "") == wrong(1, "x: no\n") == wrong(143, "") == ""
    assert wrong(1, "", False) and wrong(1, "Traceback (most recent call last):\n")
    assert (
        wrong(1, "\n" * 4)
        and wrong(-11, "x")
        and wrong(1, "\x1b[31m")
        and wrong(1, "<x object at 0x7f>")
    )
