"""A client in a SLURM task: its time limit, and one client a GPU where the task has several.

The commands squeue, scontrol and nvidia-smi are fakes.
"""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from common import slurm
from generate.client.worker import gpu_uuid, gpus
from tests.fakes.running_server import until

TASK = {
    "SLURM_JOB_ID": "49",
    "SLURM_ARRAY_JOB_ID": "42",
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_RESTART_COUNT": "0",
    "SLURMD_NODENAME": "n1",
}


@pytest.fixture
def fake(tmp_path):
    """fake(name, shell script): a command in tmp_path/bin, which PATH must begin with.

    fake.calls(name): how it was called.
    """
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(name, body):
        (folder / name).write_text(f'#!/bin/sh\necho "$*" >> {folder}/{name}.calls\n{body}\n')
        (folder / name).chmod(0o755)

    make.calls = lambda name: (
        (folder / f"{name}.calls").read_text().splitlines()
        if (folder / f"{name}.calls").exists()
        else []
    )
    make.path = f"{folder}:{os.environ['PATH']}"
    return make


@pytest.mark.parametrize(
    "says, seconds",
    [
        ("5:59:30", 21570),
        ("1-00:00:00", 86400),
        ("0:33", 33),
        ("0:00", 0),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_the_time_left_is_what_squeue_says(fake, monkeypatch, says, seconds):
    fake("squeue", f'echo "   {says}"')
    monkeypatch.setenv("PATH", fake.path)
    for name in TASK:
        monkeypatch.delenv(name, raising=False)
    assert slurm.time_left_s() is None and not fake.calls("squeue"), (
        "outside of SLURM nobody is asked"
    )
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    assert slurm.time_left_s() == seconds
    assert fake.calls("squeue") == ["--noheader --jobs=42_7 --format=%L"], (
        "of this task, not of the whole array"
    )


def test_a_squeue_that_fails_is_no_limit(fake, monkeypatch):
    fake("squeue", 'echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1')
    monkeypatch.setenv("PATH", fake.path)
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    assert slurm.time_left_s() is None


def test_before_its_time_is_over_it_leaves_in_order_and_is_requeued(fake, start_run):
    """37 s are left: it generates for six, publishes, releases the rest and is requeued.

    The next one finishes.
    """
    fake("squeue", "echo 0:37")
    fake("scontrol", "exit 0")
    run, server = start_run(total=40, images=4, ttl_s=60, PATH=fake.path)
    began = time.monotonic()
    assert run.start(FAKE_BATCH_S="0.25", **TASK).wait(60) == 0, run.log()
    assert time.monotonic() - began < 30, "the limit's last half minute is for what may go wrong"
    assert fake.calls("scontrol") == ["requeue 42_7"]
    counts = server.dataset("birds")
    assert 0 < counts["done"] < 40 and counts["leased"] == 0 and counts["sum_ok"]
    assert counts["given_back"].get("walltime") and not counts["given_back"].get("expired"), counts[
        "given_back"
    ]
    assert run.start().wait(60) == 0, run.log()
    run.check()


@pytest.mark.parametrize("left", ["0:25", "0:00"])
def test_with_no_time_left_nothing_is_drawn(fake, start_run, left):
    fake("squeue", f"echo {left}")
    fake("scontrol", "exit 0")
    run, server = start_run(total=4, images=2, ttl_s=60, PATH=fake.path)
    assert run.start(**TASK).wait(60) == 0, run.log()
    assert (
        run.count() == 0
        and server.dataset("birds")["leased"] == 0
        and fake.calls("scontrol") == ["requeue 42_7"]
    )


# ---------------------------------------------------------------- several GPUs


@pytest.mark.parametrize(
    "visible, mine, uuid",
    [
        (None, ["0", "1"], "GPU-aaaa"),
        ("1", ["1"], "GPU-bbbb"),
        ("1,0", ["1", "0"], "GPU-bbbb"),
        ("GPU-bbbb", ["GPU-bbbb"], "GPU-bbbb"),
        ("", [], "cpu"),
        ("-1", [], "cpu"),
    ],
)
def test_which_gpus_are_mine(fake, monkeypatch, visible, mine, uuid):
    fake(
        "nvidia-smi",
        'case "$1" in *uuid) printf "0, GPU-aaaa\\n1, GPU-bbbb\\n";; *) printf "0\\n1\\n";; esac',
    )
    monkeypatch.setenv("PATH", fake.path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (gpus(), gpu_uuid()) == (mine, uuid)


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (gpus(), gpu_uuid()) == ([], "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert (gpus(), gpu_uuid()) == (["3"], "3")


@pytest.fixture
def two_gpus(fake, start_run):
    """A task with the GPUs 2 and 5, and the server: (run, server, the task's environment)."""
    fake("nvidia-smi", 'printf "2, GPU-two\\n5, GPU-five\\n"')
    fake("squeue", "echo UNLIMITED")
    run, server = start_run(total=40, images=4, ttl_s=60, FAKE_BATCH_S="0.2", PATH=fake.path)
    # whoever is to be requeued has published: SLURM ends the whole task at once
    fake("scontrol", f"grep -c leaving: {run.root}/42_7_*.out >> {run.folder}/left")
    return run, server, TASK | {"CUDA_VISIBLE_DEVICES": "2,5"}


def children(run):
    """{process id: its CUDA_VISIBLE_DEVICES} of the clients that a task has started."""
    pids = [int(pid) for pid in re.findall(r"client \d+: process (\d+)", run.log())]
    environments = {
        pid: dict(
            word.partition("=")[::2]
            for word in Path(f"/proc/{pid}/environ").read_text().split("\0")
        )
        for pid in pids
    }
    return {
        pid: environment.get("CUDA_VISIBLE_DEVICES") for pid, environment in environments.items()
    }


def test_a_task_with_two_gpus_runs_a_client_on_each(two_gpus):
    run, server, task = two_gpus
    parent = run.start(**task)
    until(lambda: run.count() >= 8, f"images\n{run.log()}")
    assert sorted(children(run).values()) == ["2", "5"]
    workers = {worker["gpu"]: worker for worker in server.status()["workers"]["rows"]}
    assert set(workers) == {"GPU-two", "GPU-five"}, (
        "each is a worker of its own: one can be quarantined without the other"
    )
    assert {
        (worker["host"], worker["array_job"], worker["task"]) for worker in workers.values()
    } == {("n1", "42", "7")}
    assert {path.name for path in run.root.glob("42_7_*.out")} == {"42_7_0.out", "42_7_1.out"}
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 0, run.log()
    counts = server.dataset("birds")
    assert counts["leased"] == 0 and set(counts["given_back"]) == {"preempted"}, (
        "both have heard it, and gave their leases back"
    )
    assert all("leaving:" in path.read_text() for path in run.root.glob("42_7_*.out"))
    assert run.start(FAKE_BATCH_S="0").wait(60) == 0, run.log()
    run.check()


def test_a_task_with_two_gpus_is_requeued_once_when_both_have_published(fake, two_gpus):
    run, server, task = two_gpus
    fake("squeue", "echo 0:38")
    assert run.start(**task | {"FAKE_BATCH_S": "0.5"}).wait(60) == 0, run.log()
    assert fake.calls("scontrol") == ["requeue 42_7"]
    assert [line.rpartition(":")[2] for line in (run.folder / "left").read_text().splitlines()] == [
        "1",
        "1",
    ], "asked for too early"
    counts = server.dataset("birds")
    assert (
        0 < counts["done"] < 40
        and counts["leased"] == 0
        and set(counts["given_back"]) == {"walltime"}
    )
