"""The real job server as a process of its own: started, killed and asked like a user's."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from generate.client.job_client import JobClient
from generate.client.worker import WorkerIdentity
from generate.dataset import samples
from generate.dataset.captions import publish_captions
from generate.dataset.layout import path_of
from generate.protocol.answers import Wait
from generate.protocol.connection import Connection, ServerAway
from tests.fakes.forked_script import forked
from tests.fakes.signed_caller import request, signer
from tests.fakes.storm_client import definition

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {
    k: v for k, v in os.environ.items() if k != "UNIDISC_DIR" and not k.startswith("SLURM")
}


def until(condition, what, seconds=60, pause=0.05, process=None):
    """What condition() gives, once it is true.

    what: words, or a function that gives a log. process: whose end ends the waiting, too.
    """
    end = time.monotonic() + seconds
    while True:
        # asked first: what the process does last may make the condition true
        status = process.poll() if process else None
        if found := condition():
            return found
        if status is not None or time.monotonic() >= end:
            why = f"waited {seconds} s for" if status is None else f"ended with {status}:"
            raise AssertionError(f"{why} {what() if callable(what) else what}")
        time.sleep(pause)


def delete_while_it_is_used(folder):
    """As `rm -r` does that is typed again: a server may write a file between listing and rmdir."""

    def gone():
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    until(gone, "the folder to go", 10, pause=0)


class RunningServer:
    def __init__(
        self, root, *options, ttl_s=3, beat_s=0.3, wait=True, prefix=(), seen_at=None, **environment
    ):
        """prefix: words before the command (nsenter …); seen_at: where this process sees root."""
        self.root, self.prefix, self.environment = (
            Path(seen_at or root),
            prefix,
            ENVIRONMENT | environment,
        )
        self.options = [
            "--output_root",
            root,
            "--host",
            "127.0.0.1",
            "--port",
            0,
            "--ttl_s",
            ttl_s,
            "--beat_s",
            beat_s,
            *options,
        ]
        self.root.mkdir(exist_ok=True)
        self.processes = []
        self.start(wait=wait)

    def start(self, *options, wait=True):
        before = self.json["epoch"] if (self.root / ".server" / "server.json").exists() else 0
        command = [
            *self.prefix,
            sys.executable,
            str(ROOT / "generate" / "image_server.py"),
            *map(str, (*self.options, *options)),
        ]
        with open(self.root / "image_server.out", "ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=self.environment)
        self.processes.append(self.process)
        if wait:
            until(lambda: self.answers(before), self.log, process=self.process)

    def answers(self, before=0):
        try:
            connection = Connection(self.root)
        except ServerAway:
            return False
        connection.close()
        return connection.epoch > before

    @property
    def json(self):
        return json.loads((self.root / ".server" / "server.json").read_text())

    def log(self):
        return (self.root / "image_server.out").read_text()

    def connection(self):
        return Connection(self.root)

    @property
    def port(self):
        return int(self.json["url"].rsplit(":")[-1].strip("/"))

    def raw(self, method, path, body=None, token=None, headers=()):
        """(status, headers, body) as it comes; signed if a token is given."""
        if token is None:
            return request(self.root, method, path, body, dict(headers))
        signs = signer(self.root, token).sign(method, path, body or b"")
        return request(self.root, method, path, body, dict(headers) | signs)

    def post(self, path, body):
        connection = self.connection()
        try:
            return connection.post(path, body)
        finally:
            connection.close()

    def status(self):
        connection = self.connection()
        try:
            return connection.get(f"/status?workers_page={random.randint(1, 9_999_999)}")[
                1
            ]  # pages that nobody has asked for are made anew
        finally:
            connection.close()

    def dataset(self, name="storm"):
        return next((d for d in self.status()["datasets"] if d["name"] == name), None)

    def client(self, total=20, images=2, name="storm", host="node1", **kwargs):
        return JobClient(
            self.root,
            definition(name, total, images),
            WorkerIdentity(host, f"GPU-{host}"),
            server_timeout_s=kwargs.pop("server_timeout_s", 20),
            **kwargs,
        )

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


def asked(server, total=3000, **changes):
    """The body of a request for work on the data set "storm"."""
    body = {
        "slurm_job_id": "77",
        "chunk_size": 5,
        "total_indices": total,
        "output_dir": str(server.root / "generated_images" / "storm"),
        "expected_samples_per_index": 2,
        "client_id": "tester",
        "request_id": f"r{time.monotonic_ns()}",
        "dataset": definition("storm", total, 2),
    }
    return body | changes


def granted(client, chunk_size=5, seconds=30):
    """A Grant, waiting while the server compares folders."""

    def ask():
        answer = client.get_indices(chunk_size)
        return answer if not isinstance(answer, Wait) else None

    return until(ask, "a grant", seconds)


def finish(client, grant, images=2, publish=True):
    """Publish all files of a grant's indices, as a client does, and report them; the verdicts."""
    for index in grant.indices if publish else ():
        write_sample(
            client.output_root / "generated_images" / client.definition["name"],
            index,
            images,
            grant.lease,
        )
    return client.complete(
        grant.lease, [{"index": index, "images": images, "short": 0} for index in grant.indices]
    )


def write_sample(folder, index, images, lease="1-1"):
    """What the server looks for; the test of the files themselves is elsewhere."""
    texts = [
        {"text": f"prompt {index}, {aug}", "llm_model_name": None, "backend": None}
        for aug in range(images)
    ]
    publish_captions(
        folder,
        {
            "prompt_index": index,
            "original_prompt": f"prompt {index}",
            "source": [],
            "texts": texts,
            "short": None,
        },
        lease,
    )
    for aug in range(images):
        for suffix in (".jpg", ".json"):
            path_of(folder, index, aug, suffix).write_text("{}")


def order(server, *words):
    words = ("--output_root", server.root, *words)
    return forked("generate/image_server.py", *words, environment=ENVIRONMENT)


class Clients:
    """Client processes that are kept at their number, as an array with --requeue keeps it."""

    def __init__(self, root, count, *options, prefix=(), host="node", as_root=None, **environment):
        """root: where this process sees the output root; as_root: where the clients do."""
        self.root, self.count, self.options, self.prefix = root, count, options, prefix
        self.environment = ENVIRONMENT | {"OPENBLAS_NUM_THREADS": "1"} | environment
        self.host, self.as_root = host, as_root or root
        self.processes, self.born, self.killed, self.failed, self.ended = [], 0, 0, [], 0

    def fill(self):
        while len(self.processes) < self.count:
            words = [
                *self.prefix,
                sys.executable,
                ROOT / "tests" / "fakes" / "storm_client.py",
                self.as_root,
                "--host",
                f"{self.host}{self.born}",
                *self.options,
            ]
            with open(self.root / f"{self.host}{self.born}.out", "ab") as out:
                self.processes.append(
                    subprocess.Popen(
                        list(map(str, words)), stdout=out, stderr=out, env=self.environment
                    )
                )
            self.born += 1

    def kill(self, number):
        for process in random.sample(self.processes, min(number, len(self.processes))):
            process.kill()
            self.killed += 1

    def reap(self):
        """Those that ended by themselves ended well; the killed are forgotten."""
        for process in [p for p in self.processes if p.poll() is not None]:
            self.processes.remove(process)
            if process.returncode == 0:
                self.ended += 1
            elif process.returncode != -9:
                self.failed.append(process.returncode)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def logs(self):
        return "\n".join(
            path.read_text()[-500:]
            for path in self.root.glob(f"{self.host}*.out")
            if path.stat().st_size
        )[-3000:]


def check_files(folder, total, images):
    """I11: one JPEG that decodes and one JSON for each sample, which agree; no unknown names."""
    from PIL import Image

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
            data, record = (
                (folder / f"{base}_{aug}.jpg").read_bytes(),
                json.loads((folder / f"{base}_{aug}.json").read_text()),
            )
            assert hashlib.sha256(data).hexdigest() == record["image_sha256"]
            assert (record["prompt_index"], record["augmentation_idx"]) == (index, aug)
            assert samples.read_comment(data)["augmented_prompt"] == record["augmented_prompt"]
            Image.open(folder / f"{base}_{aug}.jpg").load()
    extra = {
        name
        for name in names - wanted
        if not name.startswith("dataset") and not name.endswith("/COMPLETE")
    }
    assert not wanted - names, sorted(wanted - names)[:5]
    assert not {name for name in extra if not name.endswith(".tmp")}, sorted(extra)[:5]
    return {name for name in extra if name.endswith(".tmp")}
