"""Whatever happens to a run on SLURM, everything is drawn, once, as it should be: each test ends with Run.check of conftest.py."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.timeout(400)

SERVERS = {
    "file": "mkdir -p $UNIDISC_DIR/outputs/generate_images; sbatch --partition=general generate/image_server.py",
    "wrap": "sbatch --job-name=image_server --mem=16G --cpus-per-task=4 --nodelist=main-node --time=4320 --partition=general "
    '--wrap "python $PWD/generate/image_server.py" '
    "--output=$UNIDISC_DIR/outputs/generate_images/image_server.out --error=$UNIDISC_DIR/outputs/generate_images/image_server.out",
}
PUBLISHED = "--num_workers=128 --num_chunks=1000 --compile=True"


def job_process(run, array, task):
    """The client's process of a running task (this machine is every node)."""
    job = run.cluster.jobs(array=array)[f"{array}_{task}"]["id"]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with (
                    open(f"/proc/{entry}/environ") as environ,
                    open(f"/proc/{entry}/cmdline") as words,
                ):
                    if (
                        f"SLURM_JOB_ID={job}\0" in environ.read()
                        and "generate_images.py" in words.read()
                    ):
                        return int(entry)
            except OSError:
                pass
    raise AssertionError(f"no process of task {task}")


def running(run, array):
    """The running tasks: {"4_1": {"state", "node", "id"}}."""
    return {
        name: job
        for name, job in run.cluster.jobs(array=array).items()
        if job["state"] == "RUNNING"
    }


@pytest.mark.parametrize("server", SERVERS)
def test_the_published_commands(make_run, server):
    """Both ways to sbatch the server, and the published array of 1,000 tasks, which this cluster's MaxArraySize splits in two."""
    run = make_run(prompts=3, images=200)
    run.shell(SERVERS[server])
    run.submit(PUBLISHED, images="--max_chunk_size=512")
    run.wait_done()
    assert len(run.arrays()) == 2
    # 990 tasks would else start one after the other, find nothing to do and end
    assert "cancelled" in run.shell("python generate/generate_images.py scenes.json --cancel")
    run.wait_ended()
    run.check()


def test_one_command_with_start_server(run):
    """And the README's line that converts when the array has ended: one comes back to a data set."""
    array = run.submit("--num_workers=3 --num_chunks=5 --start_server")
    readme = (ROOT / "README.md").read_text()
    convert = re.search(
        r"^    (sbatch --dependency=afterany:\$JOB .*?_wds --num_workers=8\")$", readme, re.M | re.S
    )
    run.shell(
        f"JOB={array}; D=$UNIDISC_DIR/outputs/generate_images/generated_images; {convert[1].replace('HPDv2', 'scenes')}"
    )
    run.wait_done()
    run.wait_ended()  # tasks that find nothing left end by themselves
    run.check()
    index = run.folder / "scenes_wds" / "index.json"
    run.cluster.wait(index.exists, 60, "the conversion")
    shards = json.loads(index.read_text())["shardlist"]
    assert sum(shard["nsamples"] for shard in shards) == 24 * 4, (
        run.folder / "convert.out"
    ).read_text()
    assert "24 of 24 prompts done" in run.shell(
        "python generate/generate_images.py scenes.json --status"
    )
    run.submit("--num_workers=3 --num_chunks=5")  # once more: all is done, so nothing is submitted
    assert run.arrays() == [array] and not run.cluster.jobs(array=array)


@pytest.mark.parametrize("grace_s, batch_s", [(0, 1), pytest.param(4, 4, marks=pytest.mark.soak)])
def test_preemption(run, grace_s, batch_s):
    """A job of a higher partition takes two nodes in the middle of the run. With a grace time a client hears nothing until it ends."""
    run.cluster.run("scontrol", "update", "PartitionName=all", f"GraceTime={grace_s}")
    run.start_server()
    array = run.submit(FAKE_BATCH_S=str(batch_s))
    run.wait_images(8)
    run.cluster.run(
        "sbatch",
        "--partition=high",
        "--nodes=2",
        "--gres=gpu:1",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 8",
    )
    run.wait_done()
    run.wait_ended()
    restarted = [
        name
        for name, text in run.logs().items()
        if name.startswith(f"{array}_") and "PREEMPTION" in text
    ]
    assert len(restarted) >= 2
    run.check()


def test_requeue_scancel_and_sigkill(run):
    """scontrol requeue of one task, scancel of another, scancel of the one whose job id is the array's, SIGKILL of a client."""
    run.start_server()
    array = run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="1")
    run.wait_images(8)
    tasks = running(run, array)
    last = next(name for name, job in tasks.items() if job["id"] == array)
    first, second, third = (name for name in tasks if name != last)
    run.cluster.run("scontrol", "requeue", first)
    run.cluster.run("scancel", last)
    os.kill(job_process(run, array, third.split("_")[1]), signal.SIGKILL)
    time.sleep(1)
    assert second in running(run, array)  # nobody acted on the whole array
    run.wait_done()
    run.wait_ended()
    given_back = run.status()["given_back"]
    assert given_back.get("expired") or given_back.get("gone"), given_back  # the killed client's
    run.check()


def test_a_node_crashes_and_returns(run):
    """The machine's jobs die with it; SLURM says RUNNING for half a minute more. The leases go back by their own clock."""
    run.start_server()
    array = run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="0.5")
    run.wait_images(8)
    name, node = next((name, job["node"]) for name, job in running(run, array).items())
    run.cluster.control("kill-node", node)
    run.wait_done()  # by the other three
    run.cluster.control("start-node", node)
    run.wait_ended(90)  # the crashed task was requeued by SLURM, finds nothing left and ends
    assert run.status()["given_back"].get("expired")
    run.check()


def test_a_node_with_a_broken_gpu_does_not_eat_the_array(make_run, tmp_path):
    """n0 draws black images (but for the warm-up): it gets at most 2 of 40 tasks, and is used again once a probe finds it healed."""
    run = make_run(prompts=80)
    bad_hosts = tmp_path / "bad_hosts"
    bad_hosts.write_text("n0\n")
    run.start_server("--ttl_s 6 --beat_s 1 --probe_s 2")
    array = run.submit(
        "--num_workers=4 --num_chunks=40",
        FAKE_BLACK="lighthouse",
        FAKE_BAD_HOSTS=str(bad_hosts),
        FAKE_BATCH_S="1",
    )
    run.cluster.wait(
        lambda: (
            (document := run.document()) and [q["host"] for q in document["quarantined"]] == ["n0"]
        ),
        60,
        "n0's quarantine",
    )
    run.cluster.wait(
        lambda: "ExcNodeList=n0" in run.cluster.run("scontrol", "show", "job", array),
        20,
        "n0 on the pending tasks' ExcNodeList",
    )
    said = run.shell("python generate/generate_images.py scenes.json --status")
    assert re.search(
        rf"error +image, \d+ times, last \S+ on n0: a black image; read {run.root}/{array}_\d+\.out$",
        said,
        re.M,
    ), said
    assert "quarantined: n0 " in said
    ended = (run.cluster.folder / "log" / "jobs.txt").read_text().splitlines()
    on_bad = [line for line in ended if f"ArrayJobId={array} " in line and "NodeList=n0 " in line]
    on_bad += [name for name, job in running(run, array).items() if job["node"] == "n0"]
    bad_hosts.write_text("")
    run.cluster.wait(
        lambda: (document := run.document()) and not document["quarantined"],
        60,
        "the probe that finds n0 healed",
    )
    run.wait_done()
    run.wait_ended()
    assert 1 <= len(on_bad) <= 2, on_bad
    assert any(sample["hostname"] == "n0" for sample in run.samples())  # used again
    run.check()


def test_the_server_moves_to_another_node(run):
    """The server's node goes away; SLURM starts it again elsewhere, at another address, with its ledger. Clients find it."""
    job = run.start_server()
    run.submit(FAKE_BATCH_S="0.5")
    run.wait_images(8)
    before = run.document()["server"]
    run.cluster.run(
        "scontrol",
        "update",
        f"NodeName={run.cluster.jobs()[job]['node']}",
        "State=DOWN",
        "Reason=test",
    )
    run.wait_done()
    run.wait_ended()
    after = run.document()["server"]
    assert (
        after["epoch"] > before["epoch"]
        and after["run_id"] == before["run_id"]
        and after["pid"] != before["pid"]
    )
    run.check()


# ---------------------------------------------------------------- slower ones, by `make soak`


@pytest.mark.soak
def test_slurmd_dies_alone(run):
    """The old process lives on while SLURM starts the same job, restart + 1, elsewhere: two clients with one job id."""
    run.start_server()
    array = run.submit(
        "--num_workers=3 --num_chunks=3", images="--max_chunk_size=1", FAKE_BATCH_S="6"
    )
    run.wait_images(4)
    name, node = next((name, job["node"]) for name, job in running(run, array).items())
    old = job_process(run, array, name.split("_")[1])
    run.cluster.control("kill-node", "--keep-jobs", node)
    run.cluster.wait(
        lambda: running(run, array).get(name, {"node": node})["node"] != node,
        90,
        "the second start, on another node",
    )
    os.kill(old, 0)  # still there
    run.wait_done(200)
    run.cluster.control("start-node", node)
    run.wait_ended(90)
    run.check()


@pytest.mark.soak
def test_slurmctld_is_down_for_a_while(run):
    """squeue fails: nothing is known, so nothing is taken from anybody."""
    run.start_server()
    run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="2")
    run.wait_images(4)
    time.sleep(
        6
    )  # slurmctld saves its state lazily: jobs submitted in the last seconds before its death are lost with it
    run.cluster.control("kill-node", "slurmctld")
    time.sleep(20)
    run.cluster.control("start-node", "slurmctld")
    run.wait_done()
    run.wait_ended()
    assert not any(run.status()["given_back"].values())
    run.check()


def test_squeue_answers_an_empty_list(run, tmp_path):
    """The server's squeue says that nobody runs any more (as after a purge of slurmctld's state): clients that beat keep their leases."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "squeue").write_text(
        f'#!/bin/sh\n[ -e {tmp_path}/empty ] || exec {run.cluster.run("which", "squeue")} "$@"\n'
    )
    (tmp_path / "bin" / "squeue").chmod(0o755)
    run.start_server(PATH=f"{tmp_path}/bin:{run.env['PATH']}")
    run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="0.5")
    run.wait_images(8)
    (tmp_path / "empty").touch()
    run.wait_done()
    run.wait_ended()
    assert not any(run.status()["given_back"].values())
    run.check()


@pytest.mark.soak
def test_the_time_limit(run):
    """Each task has one minute: it gives back what it cannot finish and has itself requeued, so that four tasks are enough for all."""
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


@pytest.mark.soak
def test_the_llm_is_away_for_a_while(make_run):
    """Clients wait for it with what they hold; nobody gives up, and no text is asked for twice."""
    run = make_run(prompts=60)  # far more than the clients ask for ahead of the device
    run.start_server()
    run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="1")
    run.wait_images(8)
    run.llm.shares = {
        "cut": 1.0
    }  # it hangs up on every call (stopped, it would still serve the connections it has)
    time.sleep(20)
    drawn, status = run.images_drawn(), run.status()
    run.llm.shares = {}
    assert drawn < 240 and status["done"] < 60 and not status["set_aside"]
    run.wait_done(200)
    run.wait_ended()
    run.check()


@pytest.mark.soak
@pytest.mark.skipif(
    os.geteuid() != 0,
    reason="mounts a file system; without root, tests/generate/test_client_faults.py injects the full disk",
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
        assert (
            len(running(run, array)) == 4
        )  # a task that left would let the full disk eat the array
        run.cluster.run("mount", "-o", "remount,size=100m", images)
        run.wait_done(200)
        run.wait_ended(400)  # pauses have grown to minutes
        run.may_say = ["No space left on device"]
        run.check()
    finally:
        run.cluster.run("umount", "--lazy", images)


@pytest.mark.soak
@pytest.mark.timeout(2000)
def test_a_thousand_tasks_to_the_end(run):
    """The published array with nobody to cancel it: 990 tasks find nothing to do and say so."""
    run.start_server()
    run.submit("--num_workers=128 --num_chunks=1000")
    run.wait_done()
    run.wait_ended(1500)
    run.check()


@pytest.mark.soak
def test_the_tiny_model(make_run):
    """The real pipeline code on the nodes: the trained tiny model, in place of the FakePipeline."""
    run = make_run(prompts=3)
    run.start_server("--ttl_s 60 --beat_s 5")
    run.pipeline = "--model=tiny"
    run.submit("--num_workers=2 --num_chunks=2")
    run.wait_done(300)
    run.wait_ended()
    run.check()
