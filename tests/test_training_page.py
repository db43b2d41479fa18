"""docs/training.md: each of its programs runs on a data set as the converters leave it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.postprocess_dataset.verified import IMAGES, RunFolder

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "training.md").read_text()
ROWS = re.findall(r"^\| `(combined\S+)` \| `(release/\S+)`", PAGE, re.M)
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    RunFolder(folder / "combined").fill(range(12), IMAGES).finish(range(12))
    for command in (
        "convert_json_to_parquet.py combined combined.parquet",
        "convert_parquet_to_wds.py --parquet_file combined.parquet --base_dir combined "
        "--output_dir combined_wds --num_workers 1 --shuffle_seed 1",
        "release.py combined release/combined --num_workers 1",
    ):
        script, *words = command.split()
        ended = subprocess.run(
            [sys.executable, ROOT / "postprocess_dataset" / script, *words],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_every_program_runs(made):
    """One after the other in one interpreter: torch is loaded once."""
    assert len(PROGRAMS) == 4
    together = "\n".join(f"print('--- {k}')\n{text}" for k, text in enumerate(PROGRAMS))
    (made / "programs.py").write_text(together)
    ended = subprocess.run(
        [sys.executable, "programs.py"], cwd=made, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    training, streaming, table, paths = ended.stdout.split("--- ")[1:]
    steps = re.findall(r"^(\d+) \(4, 3, 64, 64\) .*, take .* (\d\.\d+)$", training, re.M)
    assert [int(step) for step, _ in steps] == list(range(1, 21))
    assert streaming.count("(8, 8)") == 3 and paths.count("(8, 8)") == 3
    assert "a café, no. " in table


def test_the_programs_run_on_a_release_with_the_names_of_the_table(made):
    """A user of release.py has neither combined_wds nor combined.parquet."""
    assert [name for name, _ in ROWS] == ["combined_wds/*.tar", "combined.parquet"]
    together = "\n".join(PROGRAMS[1:3])
    for name, of_release in ROWS:
        assert name in together
        together = together.replace(name, of_release)
    together += "\nprint(datasets.load_dataset('release/combined', cache_dir='cache'))"
    ended = subprocess.run(
        [sys.executable, "-c", together], cwd=made, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("(8, 8)") == 3 and "a café, no. " in ended.stdout
    assert "num_rows: 36" in ended.stdout
