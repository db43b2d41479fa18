"""Slower scenarios, by `make soak`: each test ends with Run.check of slurm_run.py."""

import os
import time

import pytest

pytestmark = [pytest.mark.timeout(400), pytest.mark.soak]


def test_slurmd_dies_alone(run):
    """The old process lives on while SLURM starts the same job elsewhere: two with one job id."""
    run.start_server()
    array = run.submit(
        "--num_workers=3 --num_chunks=3", images="--max_chunk_size=1", FAKE_BATCH_S="6"
    )
    run.wait_images(4)
    name, node = next((name, job["node"]) for name, job in run.running(array).items())
    old = run.client_process(array, name.split("_")[1])
    run.cluster.control("kill-node", "--keep-jobs", node)
    run.cluster.wait(
        lambda: run.running(array).get(name, {"node": node})["node"] != node,
        90,
        "the second start, on another node",
    )
    os.kill(old, 0)  # still there
    run.wait_done(200)
    run.cluster.control("start-node", node)
    run.wait_ended(90)
    run.check()


def test_slurmctld_is_down_for_a_while(run):
    """squeue fails: nothing is known, so nothing is taken from anybody."""
    run.start_server()
    run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="2")
    run.wait_images(4)
    # slurmctld saves its state lazily: jobs submitted in the last seconds before its death are lost
    time.sleep(6)
    run.cluster.control("kill-node", "slurmctld")
    time.sleep(20)
    run.cluster.control("start-node", "slurmctld")
    run.wait_done()
    run.wait_ended()
    assert not any(run.status()["given_back"].values())
    run.check()


def test_the_time_limit(run):
    """Each task has one minute: it releases what it cannot finish and has itself requeued.

    So four tasks are enough for all.
    """
    run.start_server()
    array = run.submit("--num_workers=4 --num_chunks=4 --time=1", FAKE_BATCH_S="5")
    run.wait_done(400)
    run.wait_ended()
    assert all("TIME LIMIT" not in text for text in run.logs().values())
    assert any(
        "asking SLURM to requeue" in text
        for name, text in run.logs().items()
        if name.startswith(array)
    )
    run.check()


def test_slurmctld_is_away_at_the_time_limit(run):
    """A requeue that nobody takes is asked for until somebody does: no task is lost."""
    run.start_server()
    array = run.submit("--num_workers=4 --num_chunks=4 --time=1", FAKE_BATCH_S="5")
    run.wait_images(4)
    time.sleep(6)  # slurmctld saves its state lazily
    run.cluster.control("kill-node", "slurmctld")
    # the tasks stop 15 s before their limit
    run.cluster.wait(
        lambda: any("asking again until it does" in text for text in run.logs().values()),
        120,
        "a requeue that is not taken",
    )
    run.cluster.control("start-node", "slurmctld")
    run.wait_done(400)
    run.wait_ended()
    ended = (run.cluster.folder / "log" / "jobs.txt").read_text().splitlines()
    assert not any(f"ArrayJobId={array} " in line and "FAILED" in line for line in ended)
    run.check()


def test_the_llm_is_away_for_a_while(make_run):
    """Clients wait for it with what they hold; nobody gives up, and no text is asked for twice."""
    run = make_run(prompts=60)  # far more than the clients ask for ahead of the device
    run.start_server()
    run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="1")
    run.wait_images(8)
    # it hangs up on every call (stopped, it would still serve the connections it has)
    run.llm.shares = {"cut": 1.0}
    time.sleep(20)
    drawn, status = run.images_drawn(), run.status()
    run.llm.shares = {}
    assert drawn < 240 and status["done"] < 60 and not status["set_aside"]
    run.wait_done(200)
    run.wait_ended()
    run.check()


@pytest.mark.skipif(
    os.geteuid() != 0,
    reason="mounts a file system; else tests/generate/test_client_faults.py injects the full disk",
)
def test_the_disk_is_full_for_a_while(run):
    """No prompt and no worker is to blame, nobody leaves, and with room again the run goes on."""
    images = run.root / "generated_images"
    images.mkdir()
    run.cluster.run("mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", images)
    try:
        run.start_server("--ttl_s 6 --beat_s 1 --probe_s 4")
        array = run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="0.5")
        run.cluster.wait(
            lambda: (
                (document := run.document())
                and any(error["reason"] == "disk" for error in document["errors"])
            ),
            90,
            "the status to name the disk",
        )
        assert "disk" in run.shell("python generate/generate_images.py scenes.json --status")
        time.sleep(10)
        # a task that left would let the full disk eat the array
        assert len(run.running(array)) == 4
        run.cluster.run("mount", "-o", "remount,size=100m", images)
        run.wait_done(200)
        run.wait_ended(400)  # pauses have grown to minutes
        run.may_say = ["No space left on device"]
        run.check()
    finally:
        run.cluster.run("umount", "--lazy", images)


@pytest.mark.timeout(2000)
def test_a_thousand_tasks_to_the_end(run):
    """The published array with nobody to cancel it: 990 tasks find nothing to do and say so."""
    run.start_server()
    run.submit("--num_workers=128 --num_chunks=1000")
    run.wait_done()
    run.wait_ended(1500)
    run.check()


def test_the_tiny_model(make_run):
    """The real pipeline code on the nodes: the trained tiny model, in place of the FakePipeline."""
    run = make_run(prompts=3)
    run.start_server("--ttl_s 60 --beat_s 5")
    run.pipeline = "--model=tiny"
    run.submit("--num_workers=2 --num_chunks=2")
    run.wait_done(300)
    run.wait_ended()
    run.check()
