"""FakeModelHub: what huggingface_hub asks of a hub to fetch a model's files, over a real socket.

hub = FakeModelHub(lambda path, sent: FILES.get(path), COMMIT)
subprocess.run(command, env=os.environ | hub.environment(tmp_path / "cache"))
hub.shutdown()
"""

import hashlib
import http.server
import threading


class FakeModelHub(http.server.ThreadingHTTPServer):
    """content(path, sent): the bytes of a path, or None; sent: False for a HEAD. commit: of all."""

    def __init__(self, content, commit):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content = content
        self.commit = commit
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def environment(self, cache):
        """What makes a process ask this hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, sent):
        data = self.server.content(self.path, sent)
        self.send_response(404 if data is None else 200)
        data = data or b""
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.end_headers()
        if sent:
            self.wfile.write(data)

    def log_message(self, *_):
        pass
