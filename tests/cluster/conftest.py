"""A real SLURM for these tests: four GPU nodes, a main-node and a spare-node, all on this machine (tests/cluster/slurm-cluster)."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

from generate.launch import array, status
from tests.fakes import fake_llm, fake_pipeline

SCRIPT = Path(__file__).parent / "slurm-cluster"
GPU_NODES = ["n0", "n1", "n2", "n3"]


class Cluster:
    """The cluster's commands, and the environment in which sbatch and the scripts of the project reach it."""

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
        """The queue, an entry a task: {"4_17": {"state", "node", "restart", "id"}}; of one array, if named."""
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
            f"not installed: {', '.join(missing)}; on Debian or Ubuntu: apt-get install --no-install-recommends slurm-wlm munge"
        )
    # not pytest's own folder: unix sockets want a path of at most 60 characters
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    cluster = Cluster(folder)
    for attempt in range(3):  # another cluster that starts at this instant may take the same ports
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


# ---------------------------------------------------------------- a run of the project on the cluster

ROOT = Path(__file__).resolve().parent.parent.parent
PIPELINE = ROOT / "tests" / "fakes" / "fake_pipeline.py:FakePipeline"
FRIGHTENING = re.compile(
    r"Traceback|Exception|Error\b|core dumped|Segmentation|out of memory|corrupt", re.I
)
SLURM_SAYS = r"^slurmstepd-\S+: error: \*\*\* (JOB|STEP) .* CANCELLED AT "  # SLURM's own words for preemption, requeue and scancel


class Run:
    """One data set drawn on the cluster by the FakePipeline and a fake LLM: submit, wait, and then check every promise at once."""

    def __init__(self, cluster, folder, llm, prompts=24, images=4):
        self.cluster, self.folder, self.llm, self.images = cluster, folder, llm, images
        self.prompts = [f"scene number {i}, a lighthouse in a storm" for i in range(prompts)]
        (folder / "scenes.json").write_text(json.dumps(self.prompts))
        for scripts in (
            "generate",
            "postprocess_dataset",
        ):  # commands are typed as in the README, logs stay out of the checkout
            (folder / scripts).symlink_to(ROOT / scripts)
        self.root = folder / "outputs" / "generate_images"
        self.root.mkdir(parents=True)
        self.data = self.root / "generated_images" / "scenes"
        self.env = cluster.env | {
            "UNIDISC_DIR": str(folder),
            "OLLAMA_HOSTS": llm.url,
            "PATH": f"{Path(sys.executable).parent}:{cluster.env['PATH']}",
        }
        self.pipeline = f"--pipeline={PIPELINE}"
        self.may_say = []  # patterns of log lines that a scenario itself provokes

    def shell(self, command, check=True, **env):
        """Run a command line as a user types it; what it prints."""
        return self.cluster.run(
            "bash", "-c", command, check=check, env=self.env | env, cwd=self.folder
        )

    def start_server(self, words="--ttl_s 6 --beat_s 1", **env):
        """The job server by the published --wrap form; its job's number."""
        log = self.root / "image_server.out"
        job = self.shell(
            f"sbatch --parsable --job-name=image_server --mem=16G --cpus-per-task=4 --time=4320 --partition=general "
            f"--wrap 'python generate/image_server.py {words}' --output={log} --error={log} --open-mode=append",
            **env,
        )
        self.cluster.wait(lambda: self.status(), 30, "the server")
        return job

    def submit(self, words="--num_workers=4 --num_chunks=8", images="--max_chunk_size=2", **env):
        """The array; its number. FAKE_* variables set the FakePipeline's behaviour in its tasks."""
        self.shell(
            f"python generate/generate_images.py scenes.json --expected_samples_per_index={self.images} {words} {images} "
            f"--use_slurm --batch_size=4 --resolution=64 {self.pipeline}",
            **env,
        )
        return self.arrays()[-1]

    def arrays(self):
        return [entry["array"] for entry in array.submitted(self.root, "scenes")]

    def document(self):
        return status.fetch(self.root).document

    def status(self):
        """The data set's part of the server's status document ({} before its first client); None while no server answers."""
        document = self.document()
        return document and next(
            (d for d in document["datasets"] if d["name"] == "scenes"), {"done": 0}
        )

    def images_drawn(self):
        return len(list(self.data.glob("*/*.jpg")))

    def samples(self):
        return [json.loads(path.read_text()) for path in self.data.glob("*/*.json")]

    def wait_images(self, count, timeout_s=60):
        self.cluster.wait(
            lambda: self.calm() and self.images_drawn() >= count, timeout_s, f"{count} images"
        )

    def wait_done(self, timeout_s=120):
        self.cluster.wait(
            lambda: self.calm() and (s := self.status()) and s["done"] == len(self.prompts),
            timeout_s,
            "the end of the run",
        )

    def calm(self):
        """True; a program that broke is no reason to wait on."""
        assert not any("Traceback" in text for text in self.logs().values())
        return True

    def wait_ended(self, timeout_s=60):
        """All tasks of the data set's arrays have left the queue, by themselves."""
        self.cluster.wait(
            lambda: not any(self.cluster.jobs(array=array) for array in self.arrays()),
            timeout_s,
            "the end of the array",
        )

    def logs(self):
        return {log.name: log.read_text(errors="replace") for log in self.root.glob("*.out")}

    def check(self):
        """All indices done, each image once, JSON = JPEG = expected, hashes right, no published text asked again, calm logs."""
        status = self.status()
        assert (
            status["done"] == len(self.prompts)
            and status["sum_ok"]
            and not status["set_aside"]
            and not status["short"]
        ), status
        expected = {f"{i}_{aug}" for i in range(len(self.prompts)) for aug in range(self.images)}
        files = [path for path in self.data.rglob("*") if path.is_file()]
        for suffix in (".jpg", ".json"):
            assert sorted(path.stem for path in files if path.suffix == suffix) == sorted(expected)
        assert {path.suffix for path in files} <= {
            ".jpg",
            ".json",
            ".prompts",
            ".yaml",
            "",
        } and not [p for p in files if p.name.endswith((".tmp", ".failed"))]
        for i, prompt in enumerate(self.prompts):
            record = json.loads((self.data / f"{i // 1000:06d}" / f"{i}.prompts").read_text())
            assert record["original_prompt"] == record["texts"][0]["text"] == prompt
            for aug, text in enumerate(record["texts"]):
                self.check_sample(
                    self.data / f"{i // 1000:06d}" / f"{i}_{aug}", i, aug, prompt, text["text"]
                )
        self.check_asked_once()
        for name, text in self.logs().items():
            said = [
                line
                for line in text.splitlines()
                if FRIGHTENING.search(line)
                and not any(re.search(pattern, line) for pattern in [SLURM_SAYS, *self.may_say])
            ]
            assert not said, f"{name} would frighten a user: {said[:5]}"
            assert (
                json.loads((self.root / ".server" / "server.json").read_text())["token"] not in text
            )

    def check_sample(self, path, index, aug, prompt, text):
        sample, image = (
            json.loads(path.with_suffix(".json").read_text()),
            path.with_suffix(".jpg").read_bytes(),
        )
        assert (
            sample["prompt_index"],
            sample["augmentation_idx"],
            sample["original_prompt"],
            sample["augmented_prompt"],
        ) == (
            index,
            aug,
            prompt,
            text,
        )
        assert sample["image_sha256"] == hashlib.sha256(image).hexdigest()
        picture = Image.open(io.BytesIO(image))
        inside = json.loads(picture.info["comment"])
        assert inside == {key: sample[key] for key in inside} and inside["augmented_prompt"] == text
        if "fake_pipeline" in self.pipeline:
            assert fake_pipeline.shows(picture, text), f"{path}: another text's picture"

    def check_asked_once(self):
        """No prompt was asked of the LLM after its texts had been published."""
        published = {
            i: (self.data / f"{i // 1000:06d}" / f"{i}.prompts").stat().st_mtime
            for i in range(len(self.prompts))
        }
        for i, prompt in enumerate(self.prompts):
            late = [
                at
                for at, question in self.llm.asked
                if prompt in question and at > published[i] + 0.5
            ]
            assert not late, (
                f"prompt {i} was asked {late[0] - published[i]:.1f} s after its texts were published"
            )


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
