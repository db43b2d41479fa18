"""The job server of an array is looked after: by its own script, and by the array's tasks."""

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.slurm_run import job_processes

pytestmark = pytest.mark.timeout(400)

QUICK = {"GENERATE_IMAGES_SERVER_AWAY_S": "3", "GENERATE_IMAGES_RETRY_S": "1"}


def server_jobs(run):
    return run.cluster.run("squeue", "-h", "--me", "--name=image_server", "-o", "%A").split()


def start(run):
    """An array with --start_server, in the middle of its work; its number, its server's job."""
    array = run.submit("--num_workers=3 --num_chunks=3 --start_server", FAKE_BATCH_S="1", **QUICK)
    run.wait_images(8)
    [job] = server_jobs(run)
    return array, job


def server_process(job):
    for pid in job_processes(job):
        if b"image_server.py\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError(f"no server in job {job}")


def test_its_script_starts_it_again(run):
    _, job = start(run)
    before = run.document()["server"]
    os.kill(server_process(job), signal.SIGKILL)
    run.wait_done()
    run.wait_ended()
    after = run.document()["server"]
    assert after["epoch"] == before["epoch"] + 1 and server_jobs(run) == [job]
    assert "starting it again in 1 s" in run.logs()["image_server.out"]
    run.check()


def test_the_tasks_submit_it_again_and_one_of_them_wins(run):
    array, job = start(run)
    epoch = run.document()["server"]["epoch"]
    run.cluster.run("scancel", "--full", "--signal=KILL", job)
    run.cluster.wait(lambda: job not in server_jobs(run), 30, "the end of the server's job")
    run.wait_done()
    run.wait_ended()
    [other] = server_jobs(run)
    assert other != job and run.document()["server"]["epoch"] == epoch + 1
    said = [text for name, text in run.logs().items() if name.startswith(array)]
    assert sum("submitted one as job" in text for text in said) == 1
    run.check()
