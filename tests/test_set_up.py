"""make's set-up fails with one line that says what to do."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def make(folder, fake_python, target="demo"):
    shutil.copy(ROOT / "Makefile", folder)
    if not (folder / "requirements.txt").exists():
        (folder / "requirements.txt").write_text("no-such-package-at-all==1\n")
    python = folder / "fake_python"
    python.write_text(f"#!/bin/sh\n{fake_python}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE", "MFLAGS"))
    } | {"PIP_NO_INDEX": "1"}
    words = ["make", "--no-print-directory", target, f"PYTHON={python}"]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "fake_python, says",
    [
        (
            'case "$*" in --version) echo Python 3.9.2;; *version_info*) exit 1;; esac',
            "Python 3.11 or newer is needed, and",
        ),
        ('case "$*" in *ensurepip*) exit 1;; esac', "apt-get install python3-venv"),
        (
            'exec python3 "$@"',
            "could not install requirements.txt: ERROR: No matching distribution",
        ),
    ],
)
def test_set_up_fails_with_one_line(tmp_path, fake_python, says):
    made = make(tmp_path, fake_python)
    lines = [
        line for line in made.stderr.splitlines() if not line.startswith("make: *** ")
    ]  # make's own last word
    assert made.returncode == 2 and len(lines) == 1 and says in lines[0], made.stderr
    assert not (tmp_path / ".venv" / "base").exists()


VENV = """case "$*" in *'-m venv'*) mkdir -p .venv/bin
for name in pip python; do printf '#!/bin/sh\\necho %s "$@" >> calls\\n' $name > .venv/bin/$name; chmod +x .venv/bin/$name; done;; esac"""


def test_a_second_call_skips_what_is_done(tmp_path):
    """make demo, make demo, make test: each requirements file is installed once, and again when it has changed."""
    files = ["requirements.txt", "requirements-demo.txt", "tests/requirements.txt"]
    for name in [*files[1:], "tests/node_modules/axe-core/axe.min.js"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def calls():
        return (tmp_path / "calls").read_text().splitlines()

    for count in (1, 2):
        assert make(tmp_path, VENV).returncode == 0
        installed = [line.split()[-1] for line in calls() if line.startswith("pip")]
        assert installed == files[:2] and calls().count("python examples/run_demo.py") == count
    assert make(tmp_path, VENV, "test").returncode == 0
    assert [line.split()[-1] for line in calls() if line.startswith("pip")] == files and calls()[
        -1
    ].startswith("python -m pytest")
    changed = tmp_path / "requirements-demo.txt"
    os.utime(changed, (changed.stat().st_mtime + 5,) * 2)
    make(tmp_path, VENV)
    assert [line.split()[-1] for line in calls() if line.startswith("pip")] == [
        *files,
        "requirements-demo.txt",
    ]


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-demo.txt", "tests/requirements.txt"]
)
def test_every_package_is_pinned_and_says_why(name):
    lines = [
        line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")
    ]
    assert (
        lines and [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+ +# .+", line)] == []
    )
