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
    for name in ("requirements.txt", "requirements.lock", "requirements-demo.lock"):
        if not (folder / name).exists():
            hashed = " --hash=sha256:" + "0" * 64 if name.endswith(".lock") else ""
            (folder / name).write_text(f"no-such-package-at-all==1{hashed}\n")
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
            "could not install requirements.lock: ERROR: No matching distribution",
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
for name in pip python ruff mypy; do
  printf '#!/bin/sh\\necho %s "$@" >> calls\\n' $name > .venv/bin/$name
  chmod +x .venv/bin/$name
done;; esac"""


def test_a_second_call_skips_what_is_done(tmp_path):
    """Each lock is installed once, and again when it has changed."""
    base = ["requirements.lock", "requirements.txt", "requirements-demo.lock"]
    tests = ["requirements-scores.lock", "requirements-c2pa.lock", "tests/requirements.lock"]
    for name in [*base, *tests, "tests/node_modules/axe-core/axe.min.js"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def calls():
        return (tmp_path / "calls").read_text().splitlines()

    def installed():
        return [line.split()[-1] for line in calls() if line.startswith("pip")]

    for count in (1, 2):
        made = make(tmp_path, VENV)
        assert made.returncode == 0
        assert made.stdout.count("once") == (count == 1), "the size is said once"
        assert installed() == base
        assert calls().count("python examples/run_demo.py") == count
    assert make(tmp_path, VENV, "test").returncode == 0
    assert installed() == [*base, *tests]
    before = [line.split()[0] for line in calls()[-5:-1]]
    before.remove("python")  # which collects the tests beside them
    assert before == ["ruff", "ruff", "mypy"]
    assert calls()[-1].startswith("python -m pytest")
    changed = tmp_path / "requirements-demo.lock"
    os.utime(changed, (changed.stat().st_mtime + 5,) * 2)
    make(tmp_path, VENV)
    assert installed() == [*base, *tests, "requirements-demo.lock"]


def pinned(path):
    """{name: version} of a requirements file, or of a lock."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", (ROOT / path).read_text(), re.M)
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize(
    "requirements",
    [
        "requirements.txt",
        "requirements-demo.txt",
        "requirements-scores.txt",
        "requirements-c2pa.txt",
        "tests/requirements.txt",
    ],
)
def test_the_lock_holds_what_is_required(requirements):
    """`make lock` was run after the last change; torch alone comes without a hash."""
    wanted, locked = pinned(requirements), pinned(requirements.replace(".txt", ".lock"))
    lines = (ROOT / requirements).read_text().splitlines()
    assert len(wanted) == sum(bool(line.partition("#")[0].strip()) for line in lines)
    assert {name: locked.get(name) for name in wanted if name != "torch"} == {
        name: version for name, version in wanted.items() if name != "torch"
    }


def test_each_locked_package_has_a_hash():
    extra = [f"requirements-{name}.lock" for name in ("demo", "scores", "c2pa")]
    for lock in ["requirements.lock", *extra, "tests/requirements.lock"]:
        entries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(), flags=re.M)[1:]
        assert entries and all("--hash=sha256:" in entry for entry in entries)


def test_make_test_can_run_again_what_failed():
    """The second try of CONTRIBUTING needs pytest's memory of what failed."""
    assert "--last-failed" in (ROOT / "Makefile").read_text()
    assert "no:cacheprovider" not in (ROOT / "pyproject.toml").read_text()
