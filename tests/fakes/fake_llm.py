"""Small servers that speak Ollama's and OpenAI's real protocols over real sockets.

They misbehave as they are told, and bill what they served.

    python tests/fakes/fake_llm.py ollama --latency 0.05    # prints its URL, serves until killed
    python tests/fakes/fake_llm.py openai --faults 500:0.1,hang:0.05 --port 0

    with FakeOllama(faults=["429", None, "cut"]) as fake: ...       # the first three calls
    with FakeOpenAI(faults={"500": 0.2}, seed=1) as fake: fake.url, fake.calls, fake.billed["usd"]

FakeOpenAI serves OpenAI's, Groq's and OpenRouter's paths (…/chat/completions, …/models).
fake_answers.py says what the model writes.
"""

import argparse
import contextlib
import json
import random
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fakes.fake_answers import FAULTS_OF_CONTENT, FAULTS_OF_TRANSPORT, answer
from tests.fakes.llm_http import Handler, Server
from tests.fakes.own_ports import own_port

COMPRESSED = {"gzip": 0, "bomb": 200 << 20}  # fault -> spaces in front of the answer


class FakeLLM:
    """A server on a loopback port that stays its own while it is stopped.

    billed: what the provider's bill would say, once the model had run.
    """

    def __init__(
        self,
        latency=0.0,
        faults=None,
        models=None,
        key=None,
        retry_after=1,
        usd_per_million=(0.0, 0.0),
        hang_s=60.0,
        seed=0,
        port=None,
        slots=None,
    ):
        self.latency = latency
        self.models = models
        self.key = key
        self.retry_after = retry_after
        self.hang_s = hang_s
        self.usd_per_million = usd_per_million
        self.random = random.Random(seed)
        # calls computed at a time, as OLLAMA_NUM_PARALLEL; more wait
        self.slots = threading.Semaphore(slots) if slots else contextlib.nullcontext()
        self.script = list(faults) if isinstance(faults, (list, tuple)) else []
        self.shares = dict(faults) if isinstance(faults, dict) else {}
        self.lock = threading.Lock()
        self.calls = []  # bodies received
        self.sent = 0  # bytes of an endless answer
        self.asked = []  # (unix time, text of the last message) of each call
        self.faulted = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.billed = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0}
        # called (in the server's thread) once a call is billed and before its answer leaves
        self.after_bill = None
        self.elsewhere = ""  # where the fault "redirect" sends the caller
        self.port = own_port() if port is None else port
        self.server = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        handler = type("Handler", (Handler,), {"fake": self})
        self.server = Server(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        """Refuse connections from now on; start() listens on the same port again."""
        self.server.shutdown()
        self.server.server_close()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def next_fault(self):
        with self.lock:
            if self.script:
                fault = self.script.pop(0)
            else:
                draw, fault = self.random.random(), None
                for name, share in self.shares.items():
                    draw -= share
                    if draw < 0:
                        fault = name
                        break
            self.faulted += [fault] if fault else []
            return fault

    def bill(self, asked, answered):
        asked, answered = len(asked) // 4 + 1, len(answered) // 4 + 1
        with self.lock:
            self.billed["calls"] += 1
            self.billed["prompt_tokens"] += asked
            self.billed["completion_tokens"] += answered
            self.billed["usd"] += (
                asked * self.usd_per_million[0] + answered * self.usd_per_million[1]
            ) / 1e6
        if self.after_bill:
            self.after_bill()
        return asked, answered

    def text(self, body, fault):
        """What the model writes: the variations asked for, or what the fault makes of them."""
        return answer(body, fault, self.random)


class FakeOllama(FakeLLM):
    """/api/chat (NDJSON stream or one object), /api/tags, /api/version."""

    ollama = True

    def write(self, handler, body, text, asked, answered, fault):
        base = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z"}
        chunks = [
            {**base, "message": {"role": "assistant", "content": text[k : k + 200]}, "done": False}
            for k in range(0, len(text), 200)
        ]
        counts = {
            "total_duration": 1,
            "load_duration": 0,
            "prompt_eval_count": asked,
            "prompt_eval_duration": 1,
            "eval_count": answered,
            "eval_duration": 1,
        }
        last = {
            **base,
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": {"load": "load", "at_length": "length"}.get(fault, "stop"),
            **counts,
        }
        if fault == "load":
            chunks = []
        if fault == "no_done":
            last = None
        if fault == "error_line":
            chunks = [*chunks[:1], {"error": "an error was encountered while running the model"}]
            last = None
        if body.get("stream", True) is False:
            return handler.send(200, {**last, "message": {"role": "assistant", "content": text}})
        lines = b"".join(
            json.dumps(chunk).encode() + b"\n" for chunk in [*chunks, *([last] if last else [])]
        )
        if fault == "truncated":
            lines = lines[: len(lines) * 2 // 3].rsplit(b"\n", 1)[0][:-7] + b"\n"
        if fault in COMPRESSED:
            return handler.send_compressed(lines, COMPRESSED[fault])
        if fault != "drip":
            return handler.send(200, lines, "application/x-ndjson")
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.send_header("Content-Length", str(len(lines)))
        handler.end_headers()
        return handler.drip(lines)


class FakeOpenAI(FakeLLM):
    """…/chat/completions without streaming, …/models; key: the one key accepted."""

    ollama = False

    def __init__(self, *args, usd_per_million=(0.15, 0.6), **kwargs):
        super().__init__(*args, usd_per_million=usd_per_million, **kwargs)

    def write(self, handler, body, text, asked, answered, fault):
        usage = {
            "prompt_tokens": asked,
            "completion_tokens": answered,
            "total_tokens": asked + answered,
        }
        reason = {"no_done": None, "at_length": "length"}.get(fault, "stop")
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": reason,
            "logprobs": None,
        }
        document = {
            "id": "fake",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "system_fingerprint": None,
            "choices": [choice],
            "usage": usage,
        }
        if fault in ("load", "error_line"):
            document = {"error": {"message": "upstream failed", "code": 502}}
        data = json.dumps(document).encode()
        if fault == "truncated":
            return handler.send(200, data[: len(data) // 2])
        if fault in COMPRESSED:
            return handler.send_compressed(data, COMPRESSED[fault])
        if fault != "drip":
            return handler.send(200, data)
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        return handler.drip(data)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("protocol", choices=["ollama", "openai"])
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before an answer")
    parser.add_argument(
        "--faults",
        default="",
        help="name:share,… of " + " ".join([*FAULTS_OF_TRANSPORT, *FAULTS_OF_CONTENT]),
    )
    parser.add_argument("--models", default=None, help="comma-separated; default: any model")
    parser.add_argument("--retry_after", type=float, default=1)
    parser.add_argument(
        "--slots", type=int, help="calls computed at a time; further ones wait (default: no limit)"
    )
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    faults = {
        name: float(share)
        for name, share in (item.split(":") for item in args.faults.split(",") if item)
    }
    fake = (FakeOllama if args.protocol == "ollama" else FakeOpenAI)(
        latency=args.latency,
        faults=faults,
        models=args.models.split(",") if args.models else None,
        retry_after=args.retry_after,
        port=args.port,
        slots=args.slots,
    )
    fake.start()
    print(fake.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
