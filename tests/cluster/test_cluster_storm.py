"""A storm over a real SLURM, by `make soak`: whatever can happen, at random, for 80 seconds.

Images, ledger and logs share one small disk that is full now and then. In the end every image is
there once, nothing was asked twice, and nobody was blamed.
"""

import contextlib
import os
import random
import signal
import time

import pytest

from tests.cluster.slurm_run import job_processes

pytestmark = [pytest.mark.timeout(900), pytest.mark.soak]

SECONDS = 80
NODES = ["n0", "n1", "n2", "n3"]


class Storm:
    """What may happen to a run; each event ends what it began."""

    def __init__(self, run, array, seed, broken):
        self.run, self.array, self.broken = run, array, broken
        self.random = random.Random(seed)
        self.happened = []

    def events(self):
        return [
            self.kill_a_client,
            self.stop_a_client,
            self.requeue,
            self.preempt,
            self.crash_a_node,
            self.kill_the_server,
            self.take_slurmctld_away,
            self.fill_the_disk,
            self.break_a_node,
        ]

    def rage(self):
        end = time.monotonic() + SECONDS
        waiting = []
        while time.monotonic() < end:
            waiting = waiting or self.random.sample(self.events(), len(self.events()))
            event = waiting.pop()
            self.happened.append(event.__name__)
            event()
            time.sleep(self.random.uniform(1, 4))

    def task(self):
        """A running task at random: (name, job); (None, None) when none runs."""
        return self.random.choice([*self.run.running(self.array).items()] or [(None, None)])

    def kill_a_client(self):
        self._signal_a_client(signal.SIGKILL)

    def stop_a_client(self):
        """It wakes up when its lease is another's."""
        if pid := self._signal_a_client(signal.SIGSTOP):
            time.sleep(8)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _signal_a_client(self, number):
        name, _ = self.task()
        with contextlib.suppress(AssertionError, KeyError, ProcessLookupError):  # it ended just now
            pid = name and self.run.client_process(self.array, name.split("_")[1])
            if pid:
                os.kill(pid, number)
            return pid

    def requeue(self):
        name, _ = self.task()
        if name:
            self.run.cluster.run("scontrol", "requeue", name, check=False)

    def preempt(self):
        self.run.cluster.run(
            "sbatch",
            "--partition=high",
            "--gres=gpu:1",
            "--output=/dev/null",
            "--wrap",
            "sleep 4",
            check=False,
        )

    def crash_a_node(self):
        node = self.random.choice(NODES)
        self.run.cluster.control("kill-node", node)
        time.sleep(self.random.uniform(2, 8))
        self.run.cluster.control("start-node", node)

    def kill_the_server(self):
        for name, job in self.run.cluster.jobs().items():
            if "_" not in name and job["state"] == "RUNNING":
                for pid in job_processes(job["id"]):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def take_slurmctld_away(self):
        time.sleep(6)  # it saves its state lazily
        self.run.cluster.control("kill-node", "slurmctld")
        time.sleep(self.random.uniform(3, 8))
        self.run.cluster.control("start-node", "slurmctld")

    def fill_the_disk(self):
        ballast = self.run.root / "ballast.bin"
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        time.sleep(self.random.uniform(4, 10))
        ballast.unlink()

    def break_a_node(self):
        """The setup fails there, before Python starts."""
        self.broken.write_text(self.random.choice(NODES))
        name, _ = self.task()
        if name:
            self.run.cluster.run("scontrol", "requeue", name, check=False)
        time.sleep(5)
        self.broken.write_text("none")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which needs root")
@pytest.mark.parametrize("seed", range(10))
def test_storm(make_run, tmp_path, seed):
    run = make_run(prompts=120)
    broken = tmp_path / "broken_node"
    broken.write_text("none")
    run.cluster.run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", run.root)
    try:
        setup = f"--setup '[ $SLURMD_NODENAME != $(cat {broken}) ] || exit 1'"
        array = run.submit(
            f"--num_workers=4 --num_chunks=60 --start_server {setup}",
            FAKE_BATCH_S="0.5",
            GENERATE_IMAGES_RETRY_S="1",
            GENERATE_IMAGES_SERVER_AWAY_S="10",
        )
        run.wait_images(4)
        storm = Storm(run, array, seed, broken)
        storm.rage()
        print(f"seed {seed}: {run.images_drawn()} images, {storm.happened}")
        run.wait_done(400)
        run.cluster.run("scancel", "--state=PENDING", array, check=False)
        run.wait_ended(200)
        run.may_say = [
            "No space left on device|database or disk is full",
            "slurmctld|slurm_load|scontrol|squeue|Unable to contact",
            "error: .*(NODE FAIL|NODE_FAIL|TIME LIMIT|PREEMPTION)",
        ]
        run.check()
    finally:
        for node in NODES:  # SLURM may hold a node's crash against it
            words = ("scontrol", "update", f"NodeName={node}", "State=RESUME")
            run.cluster.run(*words, check=False)
        run.cluster.run("umount", "--lazy", run.root)
