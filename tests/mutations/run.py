"""Breaks each guarantee, in a copy of the tree, and shows that its test fails; without the patch it must pass.

    python tests/mutations/run.py              # all; or those whose names hold a word: python tests/mutations/run.py 09 slurm token

NAME.patch: what goes wrong, then `test:` and the test that must see it, then a unified diff that changes one condition.
guarantee_NN: a guarantee of the ledger and its server; security: who may call and what is shown; contract: what a request may say;
converter: what a table or a tar is safe from.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    """Applies a unified diff wherever its lines stand, once; SystemExit when the code has changed so that they do not."""
    path = tree / re.search(r"^\+\+\+ b/(.*)$", patch, re.M)[1]
    source = path.read_text()
    for hunk in re.split(r"^@@.*@@.*\n", patch, flags=re.M)[1:]:
        lines = hunk.splitlines(keepends=True)
        before, after = (
            "".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +")
        )
        if source.count(before) != 1:
            raise SystemExit(
                f"mutations: the lines of this patch are not in {path.name} exactly once; write it anew:\n{hunk}"
            )
        source = source.replace(before, after)
    path.write_text(source)


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
        raise SystemExit(f"mutations: pytest did not run {tests}:\n{result.stdout}{result.stderr}")
    return result.returncode == 0


def main():
    paths = sorted(Path(__file__).parent.glob("*.patch"))
    patches = {
        path.stem: path.read_text()
        for path in paths
        if not sys.argv[1:] or any(word in path.stem for word in sys.argv[1:])
    }
    if not patches:
        raise SystemExit(
            f"mutations: no patch is named for {' or '.join(sys.argv[1:])}; there are: {', '.join(path.stem for path in paths)}"
        )
    tests = {name: re.search(r"^test: (.*)$", patch, re.M)[1] for name, patch in patches.items()}
    with tempfile.TemporaryDirectory() as tree:
        copy_to(Path(tree))
        if not passes(sorted(set(tests.values())), tree):
            raise SystemExit(
                "mutations: these tests fail without a patch; run them first: "
                + " ".join(sorted(set(tests.values())))
            )
    alive = []
    for name, patch in patches.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as tree:
            copy_to(Path(tree))
            apply(patch, Path(tree))
            caught = not passes([tests[name]], tree)
        said = "caught by" if caught else "NOT caught by"
        what = patch.splitlines()[0]
        print(
            f"{name:21s} {what:71s} {said} {tests[name].split('::')[1]} ({time.monotonic() - began:.1f} s)",
            flush=True,
        )
        alive += [] if caught else [name]
    if alive:
        raise SystemExit(
            f"mutations: {len(alive)} of {len(patches)} not shown by their test: {', '.join(alive)}"
        )
    print(f"all {len(patches)} broken guarantees are seen by their tests")


if __name__ == "__main__":
    main()
