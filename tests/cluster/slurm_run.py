"""A run of the project on the cluster, with FakePipeline and fake LLM: submit, wait, check."""

import contextlib
import hashlib
import io
import json
import os
import re
import sys
from pathlib import Path

from PIL import Image

from generate.launch import array, status
from tests.fakes import fake_pipeline

ROOT = Path(__file__).resolve().parent.parent.parent
PIPELINE = ROOT / "tests" / "fakes" / "fake_pipeline.py:FakePipeline"
FRIGHTENING = re.compile(
    r"Traceback|Exception|Error\b|core dumped|Segmentation|out of memory|corrupt", re.I
)
# SLURM's own words for preemption, requeue and scancel
SLURM_SAYS = r"^slurmstepd-\S+: error: \*\*\* (JOB|STEP) .* CANCELLED AT "


class Run:
    """One data set, generated on the cluster; check() looks at every guarantee at once."""

    def __init__(self, cluster, folder, llm, prompts=24, images=4):
        self.cluster, self.folder, self.llm, self.images = cluster, folder, llm, images
        self.prompts = [f"scene number {i}, a lighthouse in a storm" for i in range(prompts)]
        (folder / "scenes.json").write_text(json.dumps(self.prompts))
        # commands are typed as in the README, and logs stay out of the checkout
        for scripts in ("generate", "postprocess_dataset"):
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
            "sbatch --parsable --job-name=image_server --mem=16G --cpus-per-task=4 --time=4320 "
            f"--partition=general --wrap 'python generate/image_server.py {words}' "
            f"--output={log} --error={log} --open-mode=append",
            **env,
        )
        self.cluster.wait(lambda: self.status(), 30, "the server")
        return job

    def submit(self, words="--num_workers=4 --num_chunks=8", images="--max_chunk_size=2", **env):
        """The array; its number. FAKE_* variables set the FakePipeline's behaviour in its tasks."""
        self.shell(
            "python generate/generate_images.py scenes.json "
            f"--expected_samples_per_index={self.images} {words} {images} "
            f"--use_slurm --batch_size=4 --resolution=64 {self.pipeline}",
            **env,
        )
        return self.arrays()[-1]

    def arrays(self):
        return [entry["array"] for entry in array.submitted(self.root, "scenes")]

    def document(self):
        return status.fetch(self.root).document

    def status(self):
        """The counts; {"done": 0} before the first client, None while no server answers."""
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
        """All done, each image once, JSON = JPEG = expected, nothing asked again, calm logs."""
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
            ".samples",
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
                f"prompt {i} was asked {late[0] - published[i]:.1f} s after its publication"
            )

    def running(self, array):
        """The running tasks: {"4_1": {"state", "node", "id"}}."""
        tasks = self.cluster.jobs(array=array)
        return {name: job for name, job in tasks.items() if job["state"] == "RUNNING"}

    def client_process(self, array, task):
        """The client's process of a running task (this machine is every node)."""
        job = self.cluster.jobs(array=array)[f"{array}_{task}"]["id"]
        for pid in job_processes(job):
            if b"generate_images.py\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise AssertionError(f"no process of task {task}")


def job_processes(job):
    """The processes of a job, by the environment they were started with."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if f"SLURM_JOB_ID={job}\0".encode() in Path(f"/proc/{entry}/environ").read_bytes():
                found.append(int(entry))
    return found
