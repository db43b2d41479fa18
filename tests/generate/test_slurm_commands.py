"""SLURM's commands and nvidia-smi: not on PATH, out of reach, or with an answer that is none."""

import shutil
import subprocess
import sys

import pytest

from common import slurm
from common.command_line import UserError
from common.files import CHECKOUT
from generate.client import worker


def test_a_command_that_may_not_be_run_is_not_there(monkeypatch, tmp_path):
    """A file that nobody may run is the error that a folder gives which the user may not enter."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("squeue", "nvidia-smi"):
        (tmp_path / name).write_text("#!/bin/sh\necho 0, GPU-1\n")
    with pytest.raises(PermissionError):
        subprocess.run(["squeue"])
    assert slurm.run("squeue").stderr == "squeue was not found"
    assert slurm.queue() is None and worker.gpus() == [] and worker.gpu_uuid() == "cpu"


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_server_without_scontrol_says_how_to_submit_it(tmp_path, mode):
    """SLURM runs a copy of the script, which asks scontrol where the checkout is."""
    shutil.copy(CHECKOUT / "generate" / "image_server.py", tmp_path)
    if mode:
        (tmp_path / "scontrol").touch(mode)
    ended = subprocess.run(
        [sys.executable, tmp_path / "image_server.py"],
        env={"PATH": str(tmp_path), "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("image_server: scontrol does not say where this script lies")


@pytest.mark.parametrize(
    "says, number",
    [
        ("7", "7"),
        ("7;cluster", "7"),
        ("Welcome to the cluster\n7", "7"),
        ("\x1b[31mred;7", None),
        ("banana", None),
        ("", None),
    ],
)
def test_a_submitted_job_has_a_number(monkeypatch, tmp_path, says, number):
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\necho '{says}'\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert slurm.sbatch(["--test-only"]) == ""
    if number:
        assert slurm.sbatch(["x.sbatch"]) == number
    else:
        with pytest.raises(UserError, match=r"sbatch names no job.*squeue --me"):
            slurm.sbatch(["x.sbatch"])
