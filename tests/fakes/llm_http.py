"""The HTTP side of a fake LLM: paths, keys, and the faults that are not of the answer's text."""

import contextlib
import gzip
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    request_queue_size, daemon_threads = 256, True

    def handle_error(self, request, client_address):
        """Callers that hang up are what the faults are for."""


class Handler(BaseHTTPRequestHandler):
    """One call. Subclasses have the FakeLLM as `fake`."""

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
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
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
        if fault == "redirect":
            return self.send(307, b"", headers=[("Location", fake.elsewhere + self.path)])
        if fault == "endless":
            return self.endless()
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
        if fault == "deep":
            return self.send(200, b"[" * 100_000, "application/json")
        if fault == "content_filter" and not fake.ollama:
            return self.error(
                400,
                "The response was filtered due to our content management policy.",
                "content_filter",
            )
        text = fake.text(body, fault)
        with fake.slots:
            time.sleep(fake.latency)
        asked, answered = fake.bill(json.dumps(body["messages"]), text)
        fake.write(self, body, text, asked, answered, fault)

    def endless(self):
        """One line for as long as it is read."""
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.fake.sent += self.wfile.write(b" " * (1 << 20))

    def send_compressed(self, data, spaces):
        """Behind so many spaces, which JSON allows and gzip makes a thousandth of."""
        packed = gzip.compress(b" " * spaces + data)
        self.send(200, packed, headers=[("Content-Encoding", "gzip")])

    def drip(self, data):
        """One byte every 0.2 s: each read succeeds, only a limit on the whole call ends it."""
        deadline = time.monotonic() + self.fake.hang_s
        for k in range(len(data)):
            if time.monotonic() > deadline:
                break
            self.wfile.write(data[k : k + 1])
            self.wfile.flush()
            time.sleep(0.2)
