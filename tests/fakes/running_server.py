"""The real job server as a process of its own, for tests: started, killed and asked like a user's."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import job_client
from storm_client import definition

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "UNIDISC_DIR" and not k.startswith("SLURM")}


def until(condition, what, seconds=60, pause=0.05):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(pause)
    return found


class RunningServer:
    def __init__(self, root, *options, ttl_s=3, beat_s=0.3, wait=True, **environment):
        self.root, self.environment = Path(root), ENVIRONMENT | environment
        self.options = ["--output_root", root, "--host", "127.0.0.1", "--ttl_s", ttl_s, "--beat_s", beat_s, *options]
        self.root.mkdir(exist_ok=True)
        self.processes = []
        self.start(wait=wait)

    def start(self, *options, wait=True):
        before = self.json["epoch"] if (self.root / ".server" / "server.json").exists() else 0
        command = [sys.executable, str(ROOT / "generate" / "image_server.py"), *map(str, (*self.options, *options))]
        with open(self.root / "image_server.out", "ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=self.environment)
        self.processes.append(self.process)
        if wait:
            until(lambda: self.answers(before) or self.process.poll() is not None, f"the server\n{self.log()}")
            assert self.process.poll() is None, self.log()

    def answers(self, before=0):
        try:
            connection = job_client.Connection(self.root)
        except job_client.ServerAway:
            return False
        connection.close()
        return connection.epoch > before

    @property
    def json(self):
        return json.loads((self.root / ".server" / "server.json").read_text())

    def log(self):
        return (self.root / "image_server.out").read_text()

    def connection(self):
        return job_client.Connection(self.root)

    def post(self, path, body):
        connection = self.connection()
        try:
            return connection.post(path, body)
        finally:
            connection.close()

    def status(self):
        connection = self.connection()
        try:
            return connection.get("/status?workers_page=1&set_aside_page=1")[1]  # later pages are made anew for each call
        finally:
            connection.close()

    def dataset(self, name="storm"):
        return next((d for d in self.status()["datasets"] if d["name"] == name), None)

    def client(self, total=20, images=2, name="storm", host="node1", **kwargs):
        worker = {"host": host, "gpu": f"GPU-{host}"}
        return job_client.JobClient(self.root, definition(name, total, images), worker, server_timeout_s=kwargs.pop("server_timeout_s", 20), **kwargs)

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        codes = [process.wait(20) for process in self.processes]
        return codes[-1]


def granted(client, chunk_size=5, seconds=30):
    """A Grant, waiting while the server compares folders."""
    def ask():
        answer = client.get_indices(chunk_size)
        return answer if not isinstance(answer, job_client.Wait) else None
    return until(ask, "a grant", seconds)


def check_files(folder, total, images):
    """I11: exactly one JPEG that decodes and one JSON for each sample, whose sha256 and texts agree; nothing else but the known names."""
    from PIL import Image
    from samples import read_comment

    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wanted = set()
    for index in range(total):
        base = f"{index // 1000:06d}/{index}"
        wanted.add(f"{base}.prompts")
        if f"{base}.prompts" in names:
            assert json.loads((folder / f"{base}.prompts").read_text())["prompt_index"] == index
        for aug in range(images):
            if f"{base}_{aug}.failed" in names and f"{base}_{aug}.jpg" not in names:
                wanted.add(f"{base}_{aug}.failed")
                continue
            wanted |= {f"{base}_{aug}.jpg", f"{base}_{aug}.json"}
            data, record = (folder / f"{base}_{aug}.jpg").read_bytes(), json.loads((folder / f"{base}_{aug}.json").read_text())
            assert hashlib.sha256(data).hexdigest() == record["image_sha256"]
            assert (record["prompt_index"], record["augmentation_idx"]) == (index, aug)
            assert read_comment(data)["augmented_prompt"] == record["augmented_prompt"]
            Image.open(folder / f"{base}_{aug}.jpg").load()
    extra = {name for name in names - wanted if not name.startswith("dataset") and not name.endswith("/COMPLETE")}
    assert not wanted - names, sorted(wanted - names)[:5]
    assert not {name for name in extra if not name.endswith(".tmp")}, sorted(extra)[:5]
    return {name for name in extra if name.endswith(".tmp")}
