"""Ollama's protocol over the embedded model: real inference behind /api/tags and /api/chat.

python tests/fakes/small_ollama.py      # prints its URL, serves the model "smollm2" until killed
"""

import http.client
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from generate.llms.embedded import EmbeddedLLM

NAME = "smollm2"
OPTIONS = {
    "temperature": "temperature",
    "seed": "seed",
    "num_predict": "max_tokens",
    "top_p": "top_p",
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, data, content_type="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/api/version":
            return self.send(200, b'{"version": "0.0.0"}')
        about = {"name": NAME, "model": NAME, "size": 1, "digest": "0"}
        models = [{**about, "details": {"family": "llama"}}]
        self.send(200, json.dumps({"models": models}).encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] != NAME:
            return self.send(
                404, json.dumps({"error": f"model '{asked['model']}' not found"}).encode()
            )
        body = {
            "messages": asked["messages"],
            **{OPTIONS[k]: v for k, v in (asked.get("options") or {}).items() if k in OPTIONS},
        }
        if isinstance(asked.get("format"), dict):
            # so small a model seldom ends a sentence by itself
            asked["format"]["properties"]["variations"]["items"]["maxLength"] = 90
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": asked["format"]},
            }
        connection = http.client.HTTPConnection(self.server.model_address)
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.server.model_key}",
        }
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            return self.send(500, json.dumps({"error": str(answer)[:300]}).encode())
        text, usage = answer["choices"][0]["message"]["content"], answer["usage"]
        base = {"model": NAME, "created_at": "2026-01-01T00:00:00Z"}
        chunks = [
            {**base, "message": {"role": "assistant", "content": text}, "done": False},
            {
                **base,
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": answer["choices"][0]["finish_reason"],
                "total_duration": 1,
                "prompt_eval_count": usage["prompt_tokens"],
                "eval_count": usage["completion_tokens"],
                "eval_duration": 1,
            },
        ]
        self.send(
            200,
            b"".join(json.dumps(chunk).encode() + b"\n" for chunk in chunks),
            "application/x-ndjson",
        )


def main():
    model = EmbeddedLLM()
    model.configs()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.model_address = model.url.removeprefix("http://")
    server.model_key = model.key
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
