"""FakeHub: a hub of data sets over a real socket, as far as uploads need it (git LFS, no Xet).

    with FakeHub() as hub:
        hub.url                                  # for HF_ENDPOINT
        hub.repos["me/birds"].files              # {path: bytes} of the last commit
        hub.before = lambda verb, path: …        # called before each answer; may raise Refuse(503)

It speaks what huggingface_hub 2 asks of hf.co: create, tree, preupload, LFS batch, PUT, verify,
validate-yaml, commit. An object whose bytes are not those of its SHA-256 is refused.
"""

import base64
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

LFS_FROM = 1000  # bytes; smaller files are git's own, if they are no shards
PAGE = 7  # entries of a tree in one answer


class Refuse(Exception):
    """The status to answer with."""


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)  # (message, paths)


class FakeHub:
    def __init__(self, token: str = "hf_fake") -> None:
        self.token = token
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda verb, path: None
        self.ignored: tuple[str, ...] = ()  # endings that a .gitignore of the repository names
        self.public = False  # every repository is
        self.retry_after = ""  # the header of refusals
        self.lost = False  # commits are answered and not made
        self.raw: bytes | None = None  # the answer to everything: it is no hub
        self.drips = ""  # a part of the path of calls that are answered a byte at a time
        self.endless: int | None = None  # names on each page of a list that has no end
        self.next_page = ""  # where every list is said to go on
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_POST = do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def puts(self) -> list[str]:
        """SHA-256 of the objects that were uploaded, in order."""
        return [path.rpartition("/")[2] for verb, path in self.calls if verb == "PUT"]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        address = urlsplit(request.path)
        verb = request.command
        self.calls.append((verb, address.path))
        headers: dict[str, str] = {}
        try:
            self.before(verb, address.path)
            if verb != "PUT" and request.headers.get("Authorization") != f"Bearer {self.token}":
                raise Refuse(401)
            status, document = 200, self.call(verb, address.path, address.query, body, headers)
        except Refuse as refused:
            place = f"{self.url}/datasets/me/it"
            status, document = refused.args[0], {"error": "refused", "url": place}
            if status == 404:
                headers["X-Error-Code"] = "RepoNotFound"
            if self.retry_after:
                headers["Retry-After"] = self.retry_after
        content = json.dumps(document).encode() if self.raw is None else self.raw
        if self.raw is not None:
            status = 200
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Type", "application/json")
        slow = self.drips and self.drips in address.path
        length = 1 << 20 if slow else len(content)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        while slow:
            try:
                request.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.02)
        request.wfile.write(content)

    def call(
        self, verb: str, path: str, query: str, body: bytes, headers: dict[str, str]
    ) -> object:
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.startswith("/objects/"):
            return self.put(path.rpartition("/")[2], body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if path == "/verify":
            return {}
        if path == "/api/validate-yaml":  # of a card
            return {"errors": [], "warnings": []}
        name = "/".join(path.removeprefix("/api/datasets/").split("/")[:2])
        if name not in self.repos:
            raise Refuse(404)
        repo = self.repos[name]
        if f"{name}/tree/" in path:
            return self.tree(repo, path, query, headers)
        if f"{name}/preupload/" in path:
            return {"files": [self.mode(file) for file in json.loads(body)["files"]]}
        if f"{name}/commit/" in path:
            return self.commit(name, repo, body)
        return {"id": name, "sha": "0" * 40, "private": repo.private, "siblings": []}

    def create(self, asked: dict[str, object]) -> object:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        assert asked["type"] == "dataset"
        if name in self.repos:
            raise Refuse(409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.repos[name] = Repo(private and not self.public)
        return {"url": f"{self.url}/datasets/{name}"}

    def mode(self, file: dict[str, object]) -> object:
        large = int(str(file["size"])) >= LFS_FROM or str(file["path"]).endswith(
            (".parquet", ".tar")
        )
        mode = "lfs" if large else "regular"
        ignored = str(file["path"]).endswith(self.ignored)
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": ignored}

    def batch(self, asked: dict[str, list[dict[str, object]]]) -> object:
        found = []
        for wanted in asked["objects"]:
            entry: dict[str, object] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.objects:
                upload = {"href": f"{self.url}/objects/{wanted['oid']}"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.url}/verify"}}
            found.append(entry)
        return {"transfer": "basic", "objects": found}

    def put(self, oid: str, body: bytes) -> object:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refuse(422)
        self.objects[oid] = body
        return {}

    def tree(self, repo: Repo, path: str, query: str, headers: dict[str, str]) -> object:
        start = int(parse_qs(query).get("cursor", ["0"])[0])
        if self.next_page:
            headers["Link"] = f'<{self.next_page}>; rel="next"'
            return []
        if self.endless is not None:
            headers["Link"] = f'<{self.url}{path}?recursive=true&cursor={start + 1}>; rel="next"'
            entry = {"type": "file", "size": 1, "oid": "0" * 40}
            return [{**entry, "path": f"x/{start}-{n}"} for n in range(self.endless)]
        names = sorted(repo.files)
        if start + PAGE < len(names):
            link = f"{self.url}{path}?recursive=true&cursor={start + PAGE}"
            headers["Link"] = f'<{link}>; rel="next"'
        found = []
        for name in names[start : start + PAGE]:
            content = repo.files[name]
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"type": "file", "path": name, "size": len(content), "oid": blob}
            if name in repo.large:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            found.append(entry)
        return found

    def commit(self, name: str, repo: Repo, body: bytes) -> object:
        lines = [json.loads(line) for line in body.splitlines()]
        files, large, paths = dict(repo.files), set(repo.large), []
        for line in lines[1:]:
            value = line["value"]
            paths.append(value["path"])
            if line["key"] == "deletedFile":
                del files[value["path"]]
                large.discard(value["path"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                large.discard(value["path"])
            else:
                if value["oid"] not in self.objects:
                    raise Refuse(400)
                files[value["path"]] = self.objects[value["oid"]]
                large.add(value["path"])
        if not self.lost:
            repo.files, repo.large = files, large
        repo.commits.append((lines[0]["value"]["summary"], paths))
        return {"commitUrl": f"{self.url}/datasets/{name}/commit/1", "commitOid": "1" * 40}
