"""Whatever happens to a run on SLURM, each image is generated once: Run.check says so."""

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
    "file": "mkdir -p $UNIDISC_DIR/outputs/generate_images; "
    "sbatch --partition=general generate/image_server.py",
    "wrap": "sbatch --job-name=image_server --mem=16G --cpus-per-task=4 --nodelist=main-node "
    '--time=4320 --partition=general --wrap "python $PWD/generate/image_server.py" '
    "--output=$UNIDISC_DIR/outputs/generate_images/image_server.out "
    "--error=$UNIDISC_DIR/outputs/generate_images/image_server.out",
}
PUBLISHED = "--num_workers=128 --num_chunks=1000 --compile=True"


@pytest.mark.parametrize("server", SERVERS)
def test_the_published_commands(make_run, server):
    """Both ways to sbatch the server, and the published array of 1,000 tasks.

    This cluster's MaxArraySize splits it in two.
    """
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
    """And the documented line that converts when the array has ended."""
    array = run.submit("--num_workers=3 --num_chunks=5 --start_server")
    documented = (ROOT / "docs" / "postprocessing.md").read_text()
    convert = re.search(
        r"^    (sbatch --dependency=afterany:\$JOB .*?_wds --num_workers=8\")$",
        documented,
        re.M | re.S,
    )
    run.shell(
        f"JOB={array}; D=$UNIDISC_DIR/outputs/generate_images/generated_images; "
        f"{convert[1].replace('HPDv2', 'scenes')}"
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
    """A job of a higher partition takes two nodes in the middle of the run.

    With a grace time a client hears nothing until it ends.
    """
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
    """Requeue of one task, scancel of the one with the array's own job id, SIGKILL of a client."""
    run.start_server()
    array = run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="1")
    run.wait_images(8)
    tasks = run.running(array)
    last = next(name for name, job in tasks.items() if job["id"] == array)
    first, second, third = (name for name in tasks if name != last)
    run.cluster.run("scontrol", "requeue", first)
    run.cluster.run("scancel", last)
    os.kill(run.client_process(array, third.split("_")[1]), signal.SIGKILL)
    time.sleep(1)
    assert second in run.running(array)  # nobody acted on the whole array
    run.wait_done()
    run.wait_ended()
    given_back = run.status()["given_back"]
    assert given_back.get("expired") or given_back.get("gone"), given_back  # the killed client's
    run.check()


def test_a_node_crashes_and_returns(run):
    """The machine's jobs die with it; SLURM says RUNNING for half a minute more.

    The leases expire by their own clock.
    """
    run.start_server()
    array = run.submit("--num_workers=4 --num_chunks=4", FAKE_BATCH_S="0.5")
    run.wait_images(8)
    node = next(job["node"] for job in run.running(array).values())
    run.cluster.control("kill-node", node)
    run.wait_done()  # by the other three
    run.cluster.control("start-node", node)
    run.wait_ended(90)  # the crashed task was requeued by SLURM, finds nothing left and ends
    assert run.status()["given_back"].get("expired")
    run.check()


def test_a_node_with_a_broken_gpu_does_not_eat_the_array(make_run, tmp_path):
    """n0 makes black images (but for the warm-up): it gets at most 2 of 40 tasks.

    It is used again once a probe finds it healed.
    """
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
        r"error +image, \d+ times, last \S+ on n0: a black image; "
        rf"read {run.root}/{array}_\d+\.out$",
        said,
        re.M,
    ), said
    assert "quarantined: n0 " in said
    ended = (run.cluster.folder / "log" / "jobs.txt").read_text().splitlines()
    on_bad = [line for line in ended if f"ArrayJobId={array} " in line and "NodeList=n0 " in line]
    on_bad += [name for name, job in run.running(array).items() if job["node"] == "n0"]
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
    """Its node goes away; SLURM starts it again elsewhere, with its ledger; clients find it."""
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


def test_squeue_answers_an_empty_list(run, tmp_path):
    """The server's squeue says that nobody runs (as after a purge of slurmctld's state).

    Clients that send heartbeats keep their leases.
    """
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
