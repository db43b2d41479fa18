"""Each mutation still fits the code and names a test that is there; `make mutants` runs them."""

import re
from pathlib import Path

import pytest

from tests.mutations.run import ROOT, mutated

PATCHES = sorted((ROOT / "tests" / "mutations").glob("*.patch"))


@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_a_mutation_fits(path: Path) -> None:
    patch = path.read_text()
    code = ROOT / re.search(r"^\+\+\+ b/(.*)$", patch, re.M)[1]
    changed = mutated(code, patch)
    assert changed != code.read_text()
    if code.suffix == ".py":
        compile(changed, str(code), "exec")  # ast.parse() may fail by chance in Python 3.11
    file, _, test = re.search(r"^test: (.*)$", patch, re.M)[1].partition("::")
    name = test.partition("[")[0]
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M), f"no {file}::{name}"
