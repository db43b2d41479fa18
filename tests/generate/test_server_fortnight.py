"""A fortnight of a run in an hour: nothing of the server grows with the time or with the dead.

Clients live one after the other; each takes ten leases and sends a hundred heartbeats. A third of
them dies without a word, with a lease and with money. The server's clock runs faster than ours.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace

import pytest

from generate.dataset.layout import folder_name
from generate.protocol import signing
from generate.protocol.connection import Connection, ServerAway
from tests.fakes.fast_server import FastTime
from tests.fakes.running_server import ENVIRONMENT, ROOT, until
from tests.fakes.storm_client import definition

FACTOR = 400
LEASES, HEARTBEATS = 10, 10  # of a life; heartbeats between two leases
CALLERS = 8
TTL_S = 4000  # ten real seconds
TOTAL = 200_000
USE = {"calls": 3, "ok": 3, "prompt_tokens": 900, "completion_tokens": 400, "usd": 0.002}


class Fortnight:
    def __init__(self, root, lives):
        self.root = root
        root.mkdir()
        self.lives = iter(range(lives))
        self.number = lives
        self.lived = self.leases = self.beats = self.refused = 0
        self.errors, self.samples = [], []
        self.lock = threading.Lock()
        options = ["--host", "127.0.0.1", "--port", 0, "--ttl_s", TTL_S, "--beat_s", TTL_S / 8]
        command = [ROOT / "tests/fakes/fast_server.py", FACTOR, "--output_root", root, *options]
        self.log = root / "image_server.out"
        with open(self.log, "ab") as out:
            words = [sys.executable, *map(str, command)]
            self.process = subprocess.Popen(words, stdout=out, stderr=out, env=ENVIRONMENT)
        until(self.answers, self.log.read_text, process=self.process)

    def answers(self):
        try:
            Connection(self.root).close()
            return True
        except ServerAway:
            return False

    def call(self, line, path, body):
        """The answer; the connection is made anew where the server has closed an idle one."""
        for _ in range(20):
            try:
                line.connection = line.connection or Connection(self.root)
                return line.connection.post(path, body)
            except (OSError, HTTPException, ValueError, ServerAway):
                line.connection = None
                time.sleep(0.05)
        raise AssertionError(f"no answer to {path}: {self.log.read_text()[-2000:]}")

    def live(self, number, line):
        who = {"client_id": f"client-{number}", "slurm_job_id": None}
        rng = random.Random(number)
        ask = who | {
            "total_indices": TOTAL,
            "output_dir": str(self.root / "generated_images" / "storm"),
            "expected_samples_per_index": 2,
            "chunk_size": 1,
            "dataset": definition("storm", TOTAL, 2),
            "worker": {"host": f"node{number % 50}", "gpu": f"GPU-{number % 50}"},
            "llm": {"backends": {"paid": {"usd_per_million": [0.5, 1.5]}}, "budget_usd": 1e6},
        }
        for k in range(LEASES):
            status, grant = self.call(line, "/get_indices", ask | {"request_id": f"{number}-{k}"})
            assert status == 200 or "retry_after_s" in grant, grant
            if status != 200:
                continue
            self.leases += 1
            for beat in range(HEARTBEATS):
                usd = USE["usd"] * (k * HEARTBEATS + beat)
                body = who | {
                    "dataset": "storm",
                    "worker": ask["worker"],
                    "leases": [grant["lease"]],
                    "state": "drawing",
                    "drawing": grant["indices"],
                    "images": k * HEARTBEATS + beat,
                    "llm_use": {"usd": usd, "backends": {"paid": USE | {"usd": usd}}},
                }
                status, answer = self.call(line, "/beat", body)
                assert status in (200, 409), answer
                self.beats += 1
            if k == LEASES - 1 and number % 3 == 0:
                return  # dies without a word
            ends = {"request_id": f"{number}-{k}-end", "lease": grant["lease"]}
            if rng.random() < 0.05:
                self.publish(grant["indices"][0])
                results = [{"index": grant["indices"][0], "images": 2, "short": None}]
                status, _ = self.call(line, "/complete", who | ends | {"results": results})
            else:
                status, _ = self.call(line, "/release", who | ends | {"reason": "released"})
            assert status in (200, 409)

    def publish(self, index):
        folder = self.root / "generated_images" / "storm" / folder_name(index)
        folder.mkdir(exist_ok=True)
        captions = {"prompt_index": index, "texts": [{"text": "t"}] * 2, "short": None}
        (folder / f"{index}.prompts").write_text(json.dumps(captions))
        for name in (f"{index}_{aug}.{suffix}" for aug in (0, 1) for suffix in ("jpg", "json")):
            (folder / name).touch()

    def work(self):
        line = SimpleNamespace(connection=None)
        try:
            while True:
                with self.lock:
                    number = next(self.lives)
                self.live(number, line)
                with self.lock:
                    self.lived += 1
                    if self.lived % max(1, self.number // 40) == 0:
                        self.samples.append(self.measure())
        except StopIteration:
            return
        except BaseException as error:
            self.errors.append(repr(error))

    def measure(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in status)
        server = self.root / ".server"
        return {
            "lives": self.lived,
            "memory_kb": int(facts["VmRSS"].split()[0]),
            "threads": int(facts["Threads"]),
            "descriptors": len(os.listdir(f"/proc/{self.process.pid}/fd")),
            "ledger_kb": (server / "ledger.sqlite").stat().st_size // 1024,
            "server_folder_files": sum(len(files) for _, _, files in os.walk(server)),
            "log_kb": self.log.stat().st_size // 1024,
        }

    def counts(self):
        return until(self._counts, "an answer")

    def _counts(self):
        """None: so fast, the server closes a connection that asks nothing for 25 ms."""
        try:
            return Connection(self.root).get("/status")[1]["datasets"][0]
        except ServerAway:
            return None

    def run(self):
        threads = [threading.Thread(target=self.work) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


# may grow by so much between the second and the last quarter of the lives
SLACK = {
    "memory_kb": 8192,
    "threads": 4,
    "descriptors": 24,
    "ledger_kb": 1024,
    "server_folder_files": 2,
}


@pytest.mark.parametrize("lives", [24, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.timeout(4 * 3600)
def test_nothing_grows_with_the_dead(tmp_path, monkeypatch, lives):
    monkeypatch.setattr(signing, "time", FastTime(FACTOR))
    fortnight = Fortnight(tmp_path / "out", lives)
    began = time.monotonic()
    try:
        fortnight.run()
        hours = (time.monotonic() - began) * FACTOR / 3600
        print(f"{fortnight.lived} lives, {fortnight.leases} leases, {fortnight.beats} heartbeats")
        print(f"in {hours:.1f} hours of the server's clock")
        for sample in fortnight.samples[:: max(1, len(fortnight.samples) // 10)]:
            print(sample)
        assert not fortnight.errors, fortnight.errors
        assert fortnight.lived == lives and fortnight.leases > 0.5 * lives * LEASES
        until(lambda: fortnight.counts()["leased"] == 0, "the end of the leases of the dead")
        assert fortnight.counts()["sum_ok"], fortnight.counts()
        assert "Traceback" not in fortnight.log.read_text()
        samples = fortnight.samples
        quarter = len(samples) // 4
        for name, slack in SLACK.items():
            early = max(sample[name] for sample in samples[quarter : 2 * quarter])
            late = max(sample[name] for sample in samples[-quarter:])
            assert late <= 1.1 * early + slack, (name, early, late, samples)
    finally:
        fortnight.process.terminate()
        fortnight.process.wait(30)
