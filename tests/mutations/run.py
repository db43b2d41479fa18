"""Mutation tests: breaks each guarantee in a copy of the tree, and shows that its test fails.

    python tests/mutations/run.py                    # all
    python tests/mutations/run.py 09 slurm token     # those whose names hold one of the words

NAME.patch: what goes wrong, then `test:` and the test that must see it, then a unified diff that
changes one condition. Without the patch the test must pass. Names: guarantee_NN of the job server;
security; contract: what a request may say; converter; survivor: found by mutating at random.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.command_line import UserError, run_script

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "common",
    "examples",
    "combine_prompts",
    "generate",
    "postprocess_dataset",
    "tests",
    "pyproject.toml",
)


def apply(patch, tree):
    """Applies a unified diff wherever its lines stand. UserError if they do not, exactly once."""
    path = tree / re.search(r"^\+\+\+ b/(.*)$", patch, re.M)[1]
    path.write_text(mutated(path, patch))


def mutated(path, patch):
    source = path.read_text()
    for hunk in re.split(r"^@@.*@@.*\n", patch, flags=re.M)[1:]:
        lines = hunk.splitlines(keepends=True)
        before, after = (
            "".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +")
        )
        if source.count(before) != 1:
            raise UserError(
                f"the lines of this patch are not in {path.name} exactly once; renew it: {hunk}"
            )
        source = source.replace(before, after)
    return source


def copy_to(tree):
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                tree / name,
                ignore=shutil.ignore_patterns("__pycache__", "node_modules"),
            )
        else:
            shutil.copy(ROOT / name, tree / name)


def passes(tests, tree):
    command = [sys.executable, "-m", "pytest", "-q", "-x", *tests]
    result = subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if result.returncode not in (0, 1):
        print(result.stdout, result.stderr)
        raise UserError(f"pytest did not run {tests}")
    return result.returncode == 0


def main():
    paths = sorted(Path(__file__).parent.glob("*.patch"))
    patches = {
        path.stem: path.read_text()
        for path in paths
        if not sys.argv[1:] or any(word in path.stem for word in sys.argv[1:])
    }
    if not patches:
        there = ", ".join(path.stem for path in paths)
        raise UserError(f"no patch is named for {' or '.join(sys.argv[1:])}; there are: {there}")
    tests = {name: re.search(r"^test: (.*)$", patch, re.M)[1] for name, patch in patches.items()}
    with tempfile.TemporaryDirectory() as tree:
        copy_to(Path(tree))
        if not passes(sorted(set(tests.values())), tree):
            names = " ".join(sorted(set(tests.values())))
            raise UserError(f"these tests fail without a patch; run them first: {names}")
    alive = []
    for name, patch in patches.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as tree:
            copy_to(Path(tree))
            apply(patch, Path(tree))
            caught = not passes([tests[name]], tree)
        said = "caught by" if caught else "NOT caught by"
        what = patch.splitlines()[0]
        test = tests[name].split("::")[1]
        seconds = time.monotonic() - began
        print(f"{name:21s} {what:71s} {said} {test} ({seconds:.1f} s)", flush=True)
        alive += [] if caught else [name]
    if alive:
        names = ", ".join(alive)
        raise UserError(f"{len(alive)} of {len(patches)} not seen by their test: {names}")
    print(f"all {len(patches)} broken guarantees are seen by their tests")


if __name__ == "__main__":
    run_script(main)
