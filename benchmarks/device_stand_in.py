"""A device stand-in and the run around it, for benchmarks/generate.py: a real server, real clients.

run = Run(["a bird"] * 100, images=10)
client = run.stand_in(seconds=1.0, python=0.2)
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
BATCH = 10
SIZE = 512  # pixels
ENVIRONMENT = {
    k: v for k, v in os.environ.items() if k not in ("UNIDISC_DIR", "OLLAMA_HOST", "OLLAMA_HOSTS")
}


class StandIn:
    """A device that holds STAND_IN_S a batch, STAND_IN_PYTHON of it in Python.

    It returns pictures of photographic noise.
    """

    make_generator = int

    @classmethod
    def from_pretrained(cls, model):
        return cls()

    def __init__(self):
        rng = numpy.random.default_rng(0)
        coarse = rng.random((BATCH, 3, SIZE // 8, SIZE // 8), numpy.float32)
        fine = coarse.repeat(8, 2).repeat(8, 3) + rng.normal(
            0, 0.02, (BATCH, 3, SIZE, SIZE)
        ).astype(numpy.float32)
        self.images = fine.clip(0, 1)

    def __call__(self, prompt, generator, **kwargs):
        began, seconds, python = (
            time.monotonic(),
            float(os.environ["STAND_IN_S"]),
            float(os.environ["STAND_IN_PYTHON"]),
        )
        while time.monotonic() < began + seconds * python:
            sum(range(1000))
        time.sleep(max(0, began + seconds - time.monotonic()))
        with open(os.environ["STAND_IN_LOG"], "a") as log:
            log.write(f"{began} {time.monotonic()}\n")
        return type("Output", (), {"images": self.images[: len(prompt)]})


class Run:
    """A server and the prompts of one measurement, in a folder of its own."""

    def __init__(self, prompts, images, variations=None):
        self.removed_with_this = tempfile.TemporaryDirectory(prefix="bench-")
        self.folder = Path(self.removed_with_this.name)
        items = [
            {"prompt": text} | ({"variations": variations} if variations else {})
            for text in prompts
        ]
        (self.folder / "bench.json").write_text(json.dumps(items))
        self.images, self.log = images, self.folder / "calls"
        command = [
            sys.executable,
            str(ROOT / "generate/image_server.py"),
            "--output_root",
            str(self.folder / "out"),
            "--host",
            "127.0.0.1",
        ]
        self.server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
        )
        while not (self.folder / "out/.server/server.json").exists():
            time.sleep(0.05)
        self.data = self.folder / "out/generated_images/bench"

    def client(self, *options, **environment):
        command = [
            sys.executable,
            "-u",
            ROOT / "generate/generate_images.py",
            self.folder / "bench.json",
            "--is_slurm_task",
            "--output_root",
            self.folder / "out",
            "--expected_samples_per_index",
            self.images,
            *options,
        ]
        with open(self.folder / "client.out", "wb") as out:
            environment = ENVIRONMENT | {"STAND_IN_LOG": str(self.log)} | environment
            return subprocess.Popen([*map(str, command)], stdout=out, stderr=out, env=environment)

    def stand_in(self, seconds, python, *options):
        return self.client(
            "--pipeline",
            f"{__file__}:StandIn",
            "--resolution",
            SIZE,
            "--batch_size",
            BATCH,
            *options,
            STAND_IN_S=str(seconds),
            STAND_IN_PYTHON=str(python),
        )

    def calls(self):
        """(begin, end) of each call of the stand-in but the warm-up."""
        return (
            [tuple(map(float, line.split())) for line in self.log.read_text().splitlines()][1:]
            if self.log.exists()
            else []
        )

    def published(self):
        return len(list(self.data.glob("*/*.json")))

    def close(self):
        self.server.terminate()
        self.server.wait()
