"""docs/api.md: its program runs, and a sample has what its table names."""

import os
import re
import subprocess
import sys
from pathlib import Path

from common.sample_reader import Sample
from tests.postprocess_dataset.conftest import Folder

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text()


def test_the_program_runs(tmp_path):
    data = tmp_path / "outputs" / "generate_images" / "generated_images" / "HPDv2"
    Folder(data).fill([3, 7])
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    size = (data / "000000" / "3_0.jpg").stat().st_size
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0 and lines[0].startswith("000000/3_0 a café, no. 3"), ended.stderr
    assert lines[0].endswith(f" {size}") and len(lines) == len(list(data.glob("*/*.jpg")))


def test_a_sample_has_what_the_table_names():
    named = re.findall(r"^\| `sample\.(\w+)(\(\))?`", PAGE, re.M)
    fields = {*Sample.__dataclass_fields__, *vars(Sample)}
    assert len(named) == 6 and {name for name, _ in named} <= fields
