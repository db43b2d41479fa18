"""make's set-up fails with one line that says what to do."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def make(folder, fake_python):
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").write_text("no-such-package-at-all==1\n")
    python = folder / "fake_python"
    python.write_text(f"#!/bin/sh\n{fake_python}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE", "MFLAGS"))} | {"PIP_NO_INDEX": "1"}
    return subprocess.run(["make", "--no-print-directory", "demo", f"PYTHON={python}"], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("fake_python, says", [
    ('case "$*" in --version) echo Python 3.9.2;; *version_info*) exit 1;; esac', "Python 3.11 or newer is needed, and"),
    ('case "$*" in *ensurepip*) exit 1;; esac', "apt-get install python3-venv"),
    ('exec python3 "$@"', "could not install requirements.txt: ERROR: No matching distribution"),
])
def test_set_up_fails_with_one_line(tmp_path, fake_python, says):
    made = make(tmp_path, fake_python)
    lines = [line for line in made.stderr.splitlines() if not line.startswith("make: *** ")]  # make's own last word
    assert made.returncode == 2 and len(lines) == 1 and says in lines[0], made.stderr
    assert not (tmp_path / ".venv" / "base").exists()
