"""FakeRun: a job server's page over a made-up run, for what a real one cannot show in a test.

1,000 workers, 50,000 failed prompts, a halted run, a slow GPU. It answers over a real socket
through the very blueprint of image_server.py.

    python tests/fakes/fake_run.py FOLDER --port 5099     # prints the link of its page
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

import flask
import werkzeug.serving
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.version import version
from generate.protocol.output_root import dataset_folder, server_folder
from generate.server.ledger.live_leases import LeaseLimits
from generate.server.page.page import blueprint
from generate.server.page.page_access import PageAccess

EVIL = '<script>window.evil = 1; alert(1)</script><img src=x onerror=alert(2)> & "quoted"'
WORKER = {
    "host": 'gpu07"<b>',
    "gpu": "GPU-5f1c",
    "array_job": "812345",
    "task": "7",
    "restart": 1,
    "log": None,
}

TALLIES = {
    "truncated": 1_234,
    "accepted": 5_999_087,
    "rejected": 1_412_000,
    "not_accepted": 812,
    "refused_0": 1_300_000,
    "refused_1": 150_000,
}
# kind, name, captions, images, rejected
ORIGINS = [
    ("llm", "llama3.1:8b", 4_000_000, 3_999_400, 900_000),
    ("llm", f"openai/gpt-oss-120b {EVIL}", 1_970_000, 1_969_787, 509_000),
    ("llm", "original prompt", 30_000, 29_900, 3_000),
    ("source", "HPDv2", 4_800_000, 4_799_400, 1_000_000),
    ("source", "pickscore", 1_200_000, 1_199_687, 412_000),
]


class FakeLedger:
    """Answers what the status document asks of a ledger. `done` grows with `step`."""

    limits = LeaseLimits()

    def __init__(self, workers=12, failed=23):
        self.n_workers = workers
        self.n_failed = failed
        self.step = 0
        self.halted = False
        self.rows_read = 0

    def names(self):
        return ["HPDv2", "shapes & more"]

    def definition(self, name):
        return {
            "images_per_prompt": 200 if name == "HPDv2" else 4,
            "prompts_file": f"{name}.json",
            "model": "stabilityai/stable-diffusion-3-medium-diffusers",
            "accept": "clip > 0.26 and nsfw < 0.2" if name == "HPDv2" else None,
        }

    def tally(self, name, what):
        return TALLIES.get(what, 0) if name == "HPDv2" else 0

    def origins(self, name):
        return ORIGINS if name == "HPDv2" else ORIGINS[3:4]

    def rejected_lately(self):
        scores = {"clip": 0.2134567, "nsfw": 0.31}
        row = {"attempt": 1, "seed": 1078089835635643068, "scores": scores, "at": 0.0}
        return [
            (("HPDv2", index, 2), row | {"at": time.monotonic() - 60 * index}) for index in range(6)
        ]

    def counts(self, name):
        if name != "HPDv2":
            return {
                "total": 100,
                "waiting": 0,
                "leased": 0,
                "done": 100,
                "set_aside": 0,
                "short": 0,
                "short_images": 0,
                "images": 400,
                "given_back": {},
            }
        done = 30_000 + self.step
        return {
            "total": 107_000,
            "waiting": 107_000 - 1280 - done - self.n_failed,
            "leased": 1280,
            "done": done,
            "set_aside": self.n_failed,
            "short": 41,
            "short_images": 913,
            "images": done * 200 - 913,
            "given_back": {"expired": 31, "preempted": 412, "walltime": 90},
        }

    @property
    def queries(self):
        return self

    def workers(self, now):
        rows = []
        for k in range(self.n_workers):
            state = ("drawing", "drawing", "drawing", "waiting_llm", "loading")[k % 5]
            drawing = list(range(8 * k, 8 * k + 8)) if state == "drawing" else []
            who = {
                **WORKER,
                "host": f'gpu{k // 8:03d}"<b>',
                "gpu": f"GPU-8f3c{k:04x}",
                "task": str(k),
                "restart": k % 3,
            }
            rows.append(
                {
                    "client_id": f"client-{k}",
                    "worker": who,
                    "dataset": "HPDv2",
                    "leases": [f"3-{k}"],
                    "state": state,
                    "drawing": drawing,
                    "images": self.step * (1 if k == 7 else 4),
                    "heard_at": time.monotonic() - k % 15,
                }
            )
        return rows

    def failed(self, name, offset, limit):
        indices = range(offset, min(self.n_failed, offset + limit))
        self.rows_read += len(indices)
        errors = [
            {
                "time": time.monotonic() - 900 * k,
                "reason": "image",
                "error": f"black image {EVIL}",
                "worker": WORKER,
            }
            for k in range(3)
        ]
        return [{"index": index, "strikes": 3, "errors": errors} for index in indices]

    def quarantined(self):
        error = {
            "time": time.monotonic() - 300,
            "reason": "gpu",
            "error": "CUDA error: uncorrectable ECC error encountered",
            "worker": WORKER,
        }
        return [
            {
                "host": "gpu13",
                "gpu": "GPU-dead",
                "since": time.monotonic() - 300,
                "until": time.monotonic() + 300,
                "failures": 5,
                "errors": [error, error],
                "worker": WORKER,
            }
        ]

    def health(self):
        if not self.halted:
            return {"state": "healthy"}
        error = {
            "time": time.monotonic() - 9,
            "reason": "disk",
            "error": "[Errno 28] No space left on device: 000012/.12345_3.jpg.3-17.tmp",
            "worker": WORKER,
        }
        return {
            "state": "halted",
            "since": time.monotonic() - 400,
            "reason": "disk",
            "probe_at": time.monotonic() + 42,
            "errors": [error],
        }

    def errors(self):
        return [
            {
                "count": 36,
                "time": time.monotonic() - 500,
                "reason": "image",
                "error": f"black image {EVIL}",
                "worker": WORKER,
            }
        ]

    def recent(self, name, limit):
        return [(index, 4) for index in range(min(limit, 8))] if name == "HPDv2" else []


class FakeAccounts:
    budget_usd = 25.0
    paid_off = None

    def totals(self):
        free = {
            "model": "llama3.1:8b",
            "clients": {"healthy": 12, "cooling": 2},
            "calls": 123_456,
            "failures": {"timeout": 31, "bad_json": 512},
            "prompt_tokens": 12_345_678,
            "completion_tokens": 34_567_890,
            "usd": 0.0,
            "seconds": [0, 0, 0, 4, 50, 900, 300, 20, 4, 1, 0, 0, 0, 0, 0],
        }
        paid = {
            "model": "llama-3.3-70b-versatile",
            "clients": {"cooling": 14},
            "until_s": 3700,
            "because": "429: 30 requests a minute",
            "calls": 4567,
            "failures": {"rate_limit": 800},
            "prompt_tokens": 345_678,
            "completion_tokens": 567_890,
            "usd": 3.4567,
            "reserved_usd": 0.02,
            "budget_usd": 25.0,
            "seconds": [0, 0, 9, 50, 4] + [0] * 10,
        }
        return {"ollama gpu01": free, "groq": paid}


class FakeRun:
    """What page.blueprint() asks of a server (status.Run)."""

    def __init__(self, output_root, port, **kwargs):
        self.output_root = Path(output_root)
        self.page_access = PageAccess("token", "http://localhost/")
        self.port = port
        self.lock = threading.Lock()
        self.ledger = FakeLedger(**kwargs)
        self.accounts = FakeAccounts()
        make_samples(dataset_folder(self.output_root, "HPDv2"))
        server_folder(self.output_root).mkdir(exist_ok=True)

    def link(self):
        return f"http://127.0.0.1:{self.port}/?code={self.page_access.new_code(time.time())}"

    def cookie(self):
        """A header for who asks without a browser."""
        value = self.page_access.redeem(self.page_access.new_code(time.time()), time.time())
        return {"Cookie": f"status_{self.about()['run_id'][:12]}={value}"}

    def about(self):
        return {
            "url": f"http://127.0.0.1:{self.port}/",
            "hostname": "node7",
            "port": self.port,
            "run_id": "0123456789abcdef",
            "epoch": 3,
            "pid": 1,
            "started": "2026-11-01T10:00:00Z",
            "version": version(),
        }

    def notice(self):
        return []

    def stopped(self):
        return []

    def detached(self):
        return ()

    def read(self, function):
        with self.lock:
            return function(self.ledger, time.monotonic())


def make_samples(folder):
    """8 prompts of 4 images each; the first is markup, the last has only its original."""
    (folder / "000000").mkdir(parents=True, exist_ok=True)
    for index in range(8):
        original = EVIL if index == 0 else f"a red circle above a blue square, number {index}"
        texts = [original] + [
            f"in variation {k}, {original} on a green background, painted in oil with thick strokes"
            for k in range(1, 4)
        ]
        record = {
            "prompt_index": index,
            "original_prompt": original,
            "source": ["HPDv2"],
            "texts": [{"text": text} for text in texts],
            "short": None,
        }
        (folder / "000000" / f"{index}.prompts").write_text(json.dumps(record))
        for aug in range(1 if index == 7 else 4):
            image = Image.new("RGB", (512, 512), (40 * aug, 100 + 15 * index, 80))
            ImageDraw.Draw(image).ellipse((120, 60, 390, 330), fill=(220, 40, 40 + 50 * aug))
            image.save(folder / "000000" / f"{index}_{aug}.jpg")
            (folder / "000000" / f"{index}_{aug}.json").write_text(
                json.dumps(
                    {
                        "prompt_index": index,
                        "augmentation_idx": aug,
                        "augmented_prompt": texts[aug],
                        "gpu_name": None,
                    }
                )
            )


def serve(output_root, port=0, **kwargs):
    """Serve a FakeRun at http://127.0.0.1:{run.port} in threads of this process; return it."""
    app = flask.Flask("fake_run", static_folder=None)
    server = werkzeug.serving.make_server("127.0.0.1", port, app, threaded=True)
    server.RequestHandlerClass.log_request = lambda *args: None
    run = FakeRun(output_root, server.server_port, **kwargs)
    app.register_blueprint(blueprint(run))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run.close = server.shutdown
    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--failed", type=int, default=23)
    args = parser.parse_args()
    fake = serve(args.folder, args.port, workers=args.workers, failed=args.failed)
    print(fake.link(), flush=True)
    while True:
        time.sleep(1)
        fake.ledger.step += 1
