"""A real SLURM for these tests: four GPU nodes, a main-node and a spare-node, on this machine."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.cluster.slurm_run import Run
from tests.fakes import fake_llm

SCRIPT = Path(__file__).parent / "slurm-cluster"
GPU_NODES = ["n0", "n1", "n2", "n3"]


class Cluster:
    """The cluster's commands, and the environment in which sbatch and the scripts reach it."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        self.env |= {
            "SLURM_CLUSTER_DIR": str(folder),
            "SLURM_CONF": f"{folder}/slurm.conf",
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def run(self, *words, check=True, **kwargs):
        """Run a command with the cluster's environment; its standard output, stripped."""
        done = subprocess.run(
            [str(w) for w in words],
            env=self.env | kwargs.pop("env", {}),
            capture_output=True,
            text=True,
            timeout=120,
            **kwargs,
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}"
        )
        return done.stdout.strip()

    def control(self, *words):
        """slurm-cluster kill-node n1 and the like."""
        return self.run(SCRIPT, *words)

    def jobs(self, *words, array=None):
        """The queue (of one array, if named): {"4_17": {"state", "node", "id"}}."""
        rows = [
            line.split("|")
            for line in self.run(
                "squeue", "-h", "-r", "--me", "-o", "%i|%T|%N|%A|%F", *words
            ).splitlines()
        ]
        return {
            name: {"state": state, "node": node, "id": job}
            for name, state, node, job, of in rows
            if array in (None, of)
        }

    def wait(self, condition, timeout_s=60, what="it"):
        """Wait until condition() is true; return its value."""
        end = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < end, (
                f"waited {timeout_s} s for {what}\n{self.run('squeue', '-r', check=False)[:2000]}"
            )
            time.sleep(0.2)
        return value

    def clear(self):
        """No job left, every node idle, partitions as configured: what each test begins with."""
        for daemon in ["slurmctld", *GPU_NODES, "main-node", "spare-node"]:
            self.run(
                SCRIPT, "start-node", daemon, check=False
            )  # refused where it runs, as it should
        self.wait(
            lambda: (
                subprocess.run(["scontrol", "ping"], env=self.env, capture_output=True).returncode
                == 0
            ),
            what="slurmctld",
        )
        self.run("scancel", "--me", "--state=PENDING", check=False)
        self.run("scancel", "--me", "--full", "--signal=KILL", check=False)
        self.run("scancel", "--me", check=False)
        self.run("scontrol", "update", "PartitionName=all", "GraceTime=0", "MaxTime=UNLIMITED")
        self.wait(lambda: not self.jobs(), what="an empty queue")
        self.wait(
            lambda: set(self.run("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"},
            what="idle nodes",
        )


@pytest.fixture(scope="session")
def slurm():
    missing = [
        name
        for name in ("slurmctld", "slurmd", "sbatch", "munged")
        if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    ]
    if missing:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say(
            f"not installed: {', '.join(missing)}; on Debian or Ubuntu: "
            "apt-get install --no-install-recommends slurm-wlm munge"
        )
    # not pytest's own folder: unix sockets want a path of at most 60 characters
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    cluster = Cluster(folder)
    for _ in range(3):  # another cluster that starts at this instant may take the same ports
        started = subprocess.run([SCRIPT, "start"], env=cluster.env, capture_output=True, text=True)
        if started.returncode == 0:
            break
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield cluster
    finally:
        print(cluster.run(SCRIPT, "stop", check=False))
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(slurm):
    slurm.clear()
    yield slurm
    slurm.clear()


@pytest.fixture
def make_run(cluster, tmp_path):
    with fake_llm.FakeOllama(latency=0.05) as llm:
        runs = []

        def make(**kwargs):
            runs.append(Run(cluster, tmp_path, llm, **kwargs))
            return runs[-1]

        yield make
        for run in runs:  # pytest shows this of a test that failed
            print(run.status())
            for name, text in run.logs().items():
                print(f"==> {name} <==\n{text[-1500:]}")


@pytest.fixture
def run(make_run):
    return make_run()
