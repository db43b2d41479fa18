"""The original document's command lines, typed to the letter with UNIDISC_DIR = the checkout."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PREPROCESSING = "$UNIDISC_DIR/unidisc/datasets/preprocessing/unidisc_dataset"
SCRIPTS = [
    "$UNIDISC_DIR/unidisc/datasets/prompts/image_server.py",
    "$UNIDISC_DIR/unidisc/datasets/prompts/generate_images.py",
    "$UNIDISC_DIR/unidisc/datasets/prompts/llm_prompting.py",
    *(
        f"{PREPROCESSING}/combine_prompts/process_{source}.py"
        for source in ("image_reward", "sac", "pickscore", "hpdv2", "gecko")
    ),
    f"{PREPROCESSING}/postprocess_dataset/convert_json_to_parquet.py",
    f"{PREPROCESSING}/postprocess_dataset/convert_parquet_to_wds.py",
]


def typed(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command line as a shell runs it, in another folder than the checkout."""
    line = f"{shlex.quote(sys.executable)} {words}"
    environment = os.environ | {"UNIDISC_DIR": str(ROOT)}
    return subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.rpartition("/")[2])
def test_a_script_runs_through_its_published_path(script: str, tmp_path: Path) -> None:
    shown = typed(f"{script} --help", tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert Path(script).name in shown.stdout


def test_the_published_paths_are_links_to_the_scripts() -> None:
    for script in SCRIPTS:
        path = Path(script.replace("$UNIDISC_DIR", str(ROOT)))
        assert path.resolve().is_relative_to(ROOT)
        assert "unidisc" not in path.resolve().relative_to(ROOT).parts


def test_the_published_array_command_plans_its_array(tmp_path: Path) -> None:
    (tmp_path / "HPDv2.json").write_text('["a red fox in the snow", "a lighthouse at dusk"]')
    words = (
        "$UNIDISC_DIR/unidisc/datasets/prompts/generate_images.py HPDv2.json"
        " --expected_samples_per_index=200 --num_workers=128 --num_chunks=1000"
        f" --max_chunk_size=512 --use_slurm --compile=True --dry_run --output_root={tmp_path}/out"
    )
    planned = typed(words, tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "#SBATCH --array=0-999%128" in planned.stdout
