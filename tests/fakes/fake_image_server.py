"""FakeImageServer: answers POST /v1/images/generations as vLLM-Omni and SGLang do, over a socket.

    with FakeImageServer() as server:
        server.url, server.asked          # each request's JSON
        server.away(3)                    # the next three requests get 503

The image is FakePipeline's of that text and seed. A text with "unspeakable" is refused with 400.
"""

import base64
import http.server
import io
import json
import threading

import numpy
from PIL import Image

from tests.fakes.fake_pipeline import draw


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == "/version"
        self.answer(200 if known else 404, {"version": "7.7-fake"} if known else {})

    def do_POST(self):
        fake = self.server.fake
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake.asked.append(asked | {"key": self.headers.get("Authorization")})
        if fake.refusals:
            fake.refusals.pop()
            self.answer(503, {"detail": "engine not initialised"})
        elif "unspeakable" in asked["prompt"]:
            self.answer(400, {"detail": "the prompt is refused"})
        else:
            width, height = map(int, asked["size"].split("x"))
            values = draw(asked["prompt"], asked["seed"], height, width)
            pixels = (values.transpose(1, 2, 0) * 255).round().astype(numpy.uint8)
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            text = base64.b64encode(png.getvalue()).decode()
            self.answer(200, {"created": 1, "data": [{"b64_json": text, "url": None}]})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class FakeImageServer:
    def __init__(self):
        self.asked, self.refusals = [], []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.fake = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def away(self, requests):
        self.refusals = [503] * requests

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
