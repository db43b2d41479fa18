"""A job server and clients over one output root as processes, for tests of the status page."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.fakes.fake_run import EVIL
from tests.fakes.own_ports import own_port
from tests.fakes.running_server import until
from tests.fakes.signed_caller import page_link, signer

ROOT = Path(__file__).resolve().parents[2]
HOST = "gpu\"01'<b>"


class PageRun:
    """A job server and clients over one output root, as the README starts them."""

    def __init__(self, folder):
        self.folder = folder
        self.root = folder / "outputs"
        self.processes = []
        self.environment = {
            k: v
            for k, v in os.environ.items()
            if k not in ("UNIDISC_DIR", "OLLAMA_HOST", "OLLAMA_HOSTS")
        } | {
            "SLURMD_NODENAME": HOST,
            "FAKE_BATCH_S": "0.4",
        }
        self.server = None
        self.port = own_port()

    def start(self, *command):
        with open(self.folder / "processes.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_server(self, *options):
        self.server = self.start(
            "generate/image_server.py",
            "--output_root",
            self.root,
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
            "--ttl_s",
            20,
            "--beat_s",
            1,
            *options,
        )
        until(
            lambda: self.known() and self.known()["pid"] == self.server.pid and self.answers(),
            self.log,
            process=self.server,
        )

    def start_clients(self, prompts, images, *options, workers=2):
        path = self.folder / "page test.json"
        path.write_text(json.dumps(prompts))
        return self.start(
            "generate/generate_images.py",
            path,
            "--pipeline",
            "tests/fakes/fake_pipeline.py:FakePipeline",
            "--output_root",
            self.root,
            f"--num_workers={workers}",
            f"--expected_samples_per_index={images}",
            "--resolution=64",
            "--batch_size=2",
            "--max_chunk_size=3",
            *options,
        )

    def log(self):
        """The last lines of the server and of the clients."""
        return (self.folder / "processes.log").read_text()[-3000:]

    def known(self):
        path = self.root / ".server" / "server.json"
        return json.loads(path.read_text()) if path.exists() else None

    def answers(self):
        try:
            return self.get("/status")
        except (OSError, ValueError):
            return None

    def get(self, path, cookie=None):
        known = self.known()
        headers = {"Cookie": cookie} if cookie else signer(self.root).sign("GET", path)
        with urllib.request.urlopen(
            urllib.request.Request(known["url"].rstrip("/") + path, headers=headers), timeout=20
        ) as answer:
            body = answer.read()
        return json.loads(body) if answer.headers.get_content_type() == "application/json" else body

    @property
    def link(self):
        return page_link(self.root)

    def files(self, pattern):
        return len(list((self.root / "generated_images").glob(f"*/*/{pattern}")))

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def prompts(n, each):
    """n prompts; the first is markup with its own variations, the LLM is asked for the others'."""
    evil = {
        "prompt": EVIL,
        "source": ["test"],
        "variations": [f"{EVIL}, seen {k}" for k in range(1, each)],
    }
    fog = [f"a lighthouse number {i} in the fog" for i in range(1, n)]
    return [evil, *({"prompt": text, "source": ["test"]} for text in fog)]
