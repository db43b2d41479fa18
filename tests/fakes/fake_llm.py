"""Small servers that speak Ollama's and OpenAI's real protocols over real sockets, misbehave as told, and bill what they served.

    python tests/fakes/fake_llm.py ollama --latency 0.05                    # prints its URL on the first line, serves until killed
    python tests/fakes/fake_llm.py openai --faults 500:0.1,hang:0.05 --port 0

    with FakeOllama(faults=["429", None, "cut"]) as fake: ...               # the first three calls; afterwards all goes well
    with FakeOpenAI(faults={"500": 0.2}, seed=1) as fake: fake.url, fake.calls, fake.billed["usd"]

FakeOpenAI serves OpenAI's, Groq's and OpenRouter's paths (…/chat/completions, …/models). Answers hold as many variations as the JSON
schema or the instruction asks for, drawn from a small grammar, always with the prompt in them.
"""

import argparse
import contextlib
import json
import random
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS_OF_TRANSPORT = (
    "hang drip cut 401 402 404 429 quota 500 503 html truncated no_done error_line load".split()
)
FAULTS_OF_CONTENT = "invalid_json fewer duplicates copies refusal wrong_type preamble numbered empty too_long content_filter prose".split()
WHEN = "at dawn|at dusk|at midnight|at noon|in heavy rain|in thick fog|in the first snow|under an aurora|after a storm|in spring".split(
    "|"
)
WHERE = (
    "in old Kyoto|in Marrakesh|on a Norwegian fjord|in Lagos|on Mars|inside a lighthouse|in a Mayan temple|on a night train|"
    "in a greenhouse|at a village fair|below the sea|on a rooftop in Mumbai|in a library|in the Andes|in a paper town"
).split("|")
HOW = (
    "as a woodcut|as an oil painting|as a 1970s photograph|as a comic panel|in watercolour|as a stained-glass window|"
    "as embroidery|as a charcoal sketch|as a clay figure|as a tin toy|as a fresco|as pixel art|as a botanical plate|"
    "as a mosaic"
).split("|")
ANGLE = (
    "seen from above|seen through a keyhole|from a worm's eye|in wide angle|in extreme close-up|mirrored in a puddle|"
    "in silhouette|from behind|through a rainy window|in double exposure|with long shadows|lit by one candle"
).split("|")


class FakeLLM:
    """A server on a free loopback port. calls: bodies received; billed: what the provider's bill would say, once the model had run."""

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
        port=0,
        slots=None,
    ):
        self.latency, self.models, self.key, self.retry_after, self.hang_s = (
            latency,
            models,
            key,
            retry_after,
            hang_s,
        )
        self.usd_per_million, self.random = usd_per_million, random.Random(seed)
        self.slots = (
            threading.Semaphore(slots) if slots else contextlib.nullcontext()
        )  # calls computed at a time, as OLLAMA_NUM_PARALLEL; more wait
        self.script = list(faults) if isinstance(faults, (list, tuple)) else []
        self.shares = dict(faults) if isinstance(faults, dict) else {}
        self.asked = []  # (unix time, text of the last message) of each call
        self.lock, self.calls, self.faulted, self.in_flight, self.most_in_flight = (
            threading.Lock(),
            [],
            [],
            0,
            0,
        )
        self.billed = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0}
        self.after_bill = None  # called (in the server's thread) once a call is billed and before its answer leaves
        self.port, self.server = port, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        handler = type("Handler", (_Handler,), {"fake": self})
        self.server = _Server(("127.0.0.1", self.port), handler)
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
        """What the model writes: the JSON of the variations asked for, or what the fault makes of it."""
        asked = body["messages"][-1]["content"]
        schema = json.dumps(body.get("format") or body.get("response_format") or {})
        n = re.search(r'"maxItems": (\d+)', schema) or re.search(
            r"exactly (\d+)", asked + body["messages"][0]["content"]
        )
        n = int(n[1]) if n else 10
        prompt = (re.findall(r'"((?:[^"\\]|\\.)+)"', asked) or [asked[-80:]])[-1]
        draw = lambda words: self.random.choice(words)  # noqa: E731
        texts = [
            f"{prompt} {draw(WHERE)} {draw(WHEN)}, {draw(HOW)}, {draw(ANGLE)}" for _ in range(n)
        ]
        if fault == "fewer":
            texts = texts[: max(1, n // 3)]
        if fault == "duplicates":
            texts = texts[:1] * n
        if fault == "copies":
            texts = [prompt, prompt.upper(), prompt + "."] * n
        if fault == "refusal":
            texts = ["I'm sorry, but I can't help with that request."]
        if fault == "wrong_type":
            return json.dumps({"variations": [{"text": 7}, None, 3.5]})
        if fault == "too_long":
            texts = ["word " * 20_000] + texts[1:]
        if fault == "preamble":
            texts = ["Here are the variations you asked for:"] + texts
        if fault == "numbered":
            return "Sure! Here are the variations:\n" + "\n".join(
                f"{i + 1}. {text}" for i, text in enumerate(texts)
            )
        if fault == "prose":
            return "I'm sorry, but I can't help with that request."
        if fault == "invalid_json":
            return '{"variations": [' + "oops, no quotes, " * 5
        if fault == "empty":
            return ""
        return json.dumps({"variations": texts})


class _Server(ThreadingHTTPServer):
    request_queue_size, daemon_threads = 256, True

    def handle_error(self, request, client_address):
        """Callers that hang up are what the faults are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: Nagle's algorithm would add 40 ms to each

    def log_message(self, *_):
        pass

    def send(self, status, document, content_type="application/json", headers=()):
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, message, code=None, headers=()):
        document = (
            {"error": message}
            if self.fake.ollama
            else {"error": {"message": message, "type": code, "code": code}}
        )
        self.send(status, document, headers=headers)

    def do_GET(self):
        if self.path == "/billed":
            return self.send(200, self.fake.billed)
        if self.path == "/api/version":
            return self.send(200, {"version": "0.0.0-fake"})
        names = self.fake.models or ["llama3.1", "llama3.1:latest", "gpt-4o-mini"]
        if self.path in ("/api/tags", "/api/ps"):
            return self.send(
                200,
                {
                    "models": [
                        {"name": name, "model": name, "size": 1, "digest": "0", "details": {}}
                        for name in names
                    ]
                },
            )
        if self.path.endswith("/models"):
            return self.send(
                200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
            )
        self.error(404, f"no such path {self.path}")

    def do_HEAD(self):
        self.send(200, b"", "text/plain")

    def do_POST(self):
        fake, body = (
            self.fake,
            json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))),
        )
        with fake.lock:
            fake.calls.append(body)
            fake.asked.append((time.time(), body["messages"][-1]["content"]))
            fake.in_flight += 1
            fake.most_in_flight = max(fake.most_in_flight, fake.in_flight)
        try:
            self.answer(body, fake.next_fault())
        finally:
            with fake.lock:
                fake.in_flight -= 1

    def answer(self, body, fault):
        fake = self.fake
        if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
            return self.error(
                401,
                f"Incorrect API key provided: {self.headers.get('Authorization')}",
                "invalid_api_key",
            )
        if fake.models and body.get("model") not in fake.models:
            return self.error(404, f"model '{body.get('model')}' not found", "model_not_found")
        if fault == "hang":
            time.sleep(fake.hang_s)
            self.close_connection = True
            return None
        if fault == "cut":
            self.connection.close()
            self.close_connection = True
            return None
        wait = [("Retry-After", str(fake.retry_after))] if fake.retry_after is not None else []
        errors = {
            "401": ("Incorrect API key provided", "invalid_api_key", []),
            "402": ("Insufficient credits", "402", []),
            "404": (f"model '{body.get('model')}' not found", "model_not_found", []),
            "429": ("Rate limit reached", "rate_limit_exceeded", wait),
            "500": ("internal error", "server_error", []),
            "503": ("server busy, please try again", "overloaded", wait),
        }
        if fault in errors:
            return self.error(int(fault), *errors[fault])
        if fault == "quota":
            return self.error(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
                "insufficient_quota",
            )
        if fault == "html":
            return self.send(200, b"<html><body>502 Bad Gateway</body></html>", "text/html")
        if fault == "content_filter" and not fake.ollama:
            return self.error(
                400,
                "The response was filtered due to the prompt triggering our content management policy.",
                "content_filter",
            )
        text = fake.text(body, fault)
        with fake.slots:
            time.sleep(fake.latency)
        asked, answered = fake.bill(json.dumps(body["messages"]), text)
        fake.write(self, body, text, asked, answered, fault)

    def drip(self, data):
        """One byte every 0.2 s: every single read succeeds, so that only a limit on the whole call ends it."""
        deadline = time.monotonic() + self.fake.hang_s
        for k in range(len(data)):
            if time.monotonic() > deadline:
                break
            self.wfile.write(data[k : k + 1])
            self.wfile.flush()
            time.sleep(0.2)


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
            "done_reason": "load" if fault == "load" else "stop",
            **counts,
        }
        if fault == "load":
            chunks = []
        if fault == "no_done":
            last = None
        if fault == "error_line":
            chunks, last = (
                chunks[:1] + [{"error": "an error was encountered while running the model"}],
                None,
            )
        if body.get("stream", True) is False:
            return handler.send(200, {**last, "message": {"role": "assistant", "content": text}})
        lines = b"".join(
            json.dumps(chunk).encode() + b"\n" for chunk in chunks + ([last] if last else [])
        )
        if fault == "truncated":
            lines = lines[: len(lines) * 2 // 3].rsplit(b"\n", 1)[0][:-7] + b"\n"
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
        reason = None if fault == "no_done" else "stop"
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
        help="name:share,… of " + " ".join(FAULTS_OF_TRANSPORT + FAULTS_OF_CONTENT),
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
