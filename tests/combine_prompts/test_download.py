"""Fetching without --input: the hub and plain HTTP, torn transfers, no network."""

import contextlib
import gzip
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from combine_prompts.revisions import PINNED
from tests.combine_prompts.processing import texts_of

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
COMMIT = "1" * 40


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Speaks the part of the hub's protocol that huggingface_hub uses for a data set.

    Serves plain files too. files: {(repo, revision, name): bytes}.
    """

    protocol_version = "HTTP/1.1"
    files, tear, asked, revisions = {}, 0, [], []

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        type(self).asked.append((self.command, self.path, self.headers.get("Range")))
        path = self.path.split("?")[0]
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/revision/([^/]+)", path):
            type(self).revisions.append(match[2])
            siblings = [
                {"rfilename": name}
                for repo, revision, name in self.files
                if repo == match[1] and match[2] in (revision, COMMIT)
            ]
            about = {"id": match[1], "sha": COMMIT, "siblings": siblings}
            return self.answer(
                200 if siblings else 404,
                json.dumps(about).encode(),
                {"Content-Type": "application/json"},
            )
        match = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path) or re.fullmatch(
            r"/(raw)/([^/]+)/(.*)", path
        )
        data = self._file(*match.groups()) if match else None
        if data is None:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        if path.startswith("/raw/") and "gzip" in self.headers.get(
            "Accept-Encoding", ""
        ):  # as GitHub does
            return self.answer(200, gzip.compress(data), {"Content-Encoding": "gzip"})
        headers = {
            "ETag": f'"{hash(data) & 0xFFFFFFFFFF:x}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")[1])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206 if start else 200, data[start:], headers)

    def _file(self, repo, revision, name):
        """A file of a branch or tag, or of the one commit that all of them stand at."""
        revisions = {rev for rev_repo, rev, _ in self.files if rev_repo == repo}
        at = revisions if revision == COMMIT else {revision}
        return next(
            (self.files[repo, rev, name] for rev in at if (repo, rev, name) in self.files), None
        )

    def answer(self, status, data, headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            if type(self).tear and len(data) > 1000:  # the connection breaks half-way
                type(self).tear -= 1
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    FakeHub.files, FakeHub.tear, FakeHub.asked, FakeHub.revisions = {}, 0, [], []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(tmp_path, endpoint, script, *options, status=0):
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("HF_") and k.lower() not in ("http_proxy", "https_proxy", "all_proxy")
    }
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }
    output = tmp_path / "out.json"
    ended = subprocess.run(
        [sys.executable, ROOT / "combine_prompts" / f"{script}.py", "--output", output, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == status and "Traceback" not in ended.stderr, (
        ended.stdout + ended.stderr
    )
    return ended, texts_of(output) if output.exists() else None


def local(tmp_path, script, folder, *options):
    output = tmp_path / "local.json"
    subprocess.run(
        [
            sys.executable,
            ROOT / "combine_prompts" / f"{script}.py",
            "--input",
            EXAMPLES / folder,
            "--output",
            output,
            *options,
        ],
        check=True,
        capture_output=True,
    )
    return texts_of(output)


def test_image_reward_from_the_hub(tmp_path, hub):
    repo = "zai-org/ImageRewardDB"
    FakeHub.files = {
        (repo, "main", path.name): path.read_bytes()
        for path in (EXAMPLES / "image_reward").iterdir()
    } | {(repo, "main", "images/train/train_1.zip"): b"never asked for"}
    _, prompts = run(tmp_path, hub, "process_image_reward")
    assert prompts == local(tmp_path, "process_image_reward", "image_reward")
    assert not any("zip" in path for _, path, _ in FakeHub.asked)
    fetched = sum(command == "GET" and "/resolve/" in path for command, path, _ in FakeHub.asked)
    run(tmp_path, hub, "process_image_reward")  # the second time from the cache
    assert (
        fetched
        == 3
        == sum(command == "GET" and "/resolve/" in path for command, path, _ in FakeHub.asked)
    )


def test_the_hub_is_asked_for_the_same_commit_again(tmp_path, hub):
    FakeHub.files = {
        ("ymhao/HPDv2", "main", f"benchmark/{path.name}"): path.read_bytes()
        for path in (EXAMPLES / "hpdv2").iterdir()
    }
    notes = tmp_path / "revisions.json"
    for options, asked in ((), "main"), ((), COMMIT), (("--revision", "main"), "main"):
        run(tmp_path, hub, "process_hpdv2", *options)
        assert FakeHub.revisions.pop() == asked and not FakeHub.revisions
        assert json.loads(notes.read_text()) == {"ymhao/HPDv2": COMMIT}
    assert all(f"/resolve/{COMMIT}/" in path for _, path, _ in FakeHub.asked if "resolve" in path)
    for damage in "[", "[]", '{"ymhao/HPDv2": 1}':
        notes.write_text(damage)
        ended, _ = run(tmp_path, hub, "process_hpdv2", status=1)
        assert "revisions.json" in ended.stderr and "delete it" in ended.stderr


@pytest.mark.parametrize(
    "script, name",
    [("process_sac", "sac_public_2022_06_29.sqlite"), ("process_gecko", "prompts.csv")],
)
def test_files_on_github_are_of_one_commit(tmp_path, hub, script, name):
    source = script.removeprefix("process_")
    FakeHub.files = {("raw", PINNED[source], name): (EXAMPLES / source / name).read_bytes()}
    url = f"{hub}/raw/{{revision}}/{name}"
    _, prompts = run(tmp_path, "http://127.0.0.1:9", script, "--url", url)
    assert prompts == local(tmp_path, script, source)


def test_hpdv2_at_a_revision_without_drawbench(tmp_path, hub):
    FakeHub.files = {
        ("ymhao/HPDv2", "v1.0", f"benchmark/{path.name}"): path.read_bytes()
        for path in (EXAMPLES / "hpdv2").iterdir()
    }
    _, prompts = run(tmp_path, hub, "process_hpdv2", "--revision", "v1.0")
    assert prompts == local(tmp_path, "process_hpdv2", "hpdv2")
    assert not any("drawbench" in path for _, path, _ in FakeHub.asked)


def test_pickscore_takes_both_versions_and_no_unique_splits(tmp_path, hub):
    data = {path.name: path.read_bytes() for path in (EXAMPLES / "pickscore").iterdir()}
    for version in ("v1", "v2"):
        for split in ("train", "validation", "test"):
            mine = next(
                (data[name] for name in data if name.startswith(f"pickapic_{version}_{split}")),
                data["pickapic_v1_test-00000-of-00001.parquet"],
            )
            FakeHub.files[
                f"yuvalkirstain/pickapic_{version}_no_images",
                "main",
                f"data/{split}-00000-of-00001-0a.parquet",
            ] = mine
        FakeHub.files[
            f"yuvalkirstain/pickapic_{version}_no_images",
            "main",
            "data/test_unique-00000-of-00001-0b.parquet",
        ] = b"never asked for"
    _, prompts = run(tmp_path, hub, "process_pickscore")
    assert set(prompts) == set(local(tmp_path, "process_pickscore", "pickscore"))
    assert not any("unique" in path for _, path, _ in FakeHub.asked)


@pytest.mark.parametrize(
    "script, name, folder",
    [
        ("process_sac", "sac_public_2022_06_29.sqlite", "sac"),
        ("process_gecko", "prompts.csv", "gecko"),
    ],
)
def test_plain_file_torn_and_resumed(tmp_path, hub, script, name, folder):
    data = (EXAMPLES / folder / name).read_bytes()
    if name.endswith(".csv"):
        data += b"".join(
            b"%d,tifa_1,a fox on hill number %d,Gecko(R),%d,True,True,True,True,True,True\n"
            % (i, i, i)
            for i in range(11, 1000)
        )
    FakeHub.files = {("raw", "abc", name): data}
    FakeHub.tear = 2
    words = (script, "--url", f"{hub}/raw/{{revision}}/{name}", "--revision", "abc")
    _, prompts = run(tmp_path, "http://127.0.0.1:9", *words)
    (tmp_path / name).write_bytes(data)
    assert prompts == local(tmp_path, script, tmp_path / name)
    ranges = [asked for _, _, asked in FakeHub.asked]
    assert ranges[0] is None and len(ranges) == 3 and all(ranges[1:])  # resumed, not begun again
    run(tmp_path, "http://127.0.0.1:9", *words)
    assert len(FakeHub.asked) == 3  # cached


@pytest.mark.parametrize(
    "status, headers, begun",
    [
        (206, {"Content-Range": "bytes 0-35/1000000"}, False),
        (206, {"Content-Range": "bytes 5-9/3"}, True),
        (206, {"Content-Range": f"bytes 10-20/{'9' * 5000}"}, True),
        (200, {}, False),  # a login page
    ],
)
def test_another_file_than_the_one_asked_for_is_not_kept(
    tmp_path, hub, monkeypatch, status, headers, begun
):
    """A part that nobody asked for; a page of another form. When the mirror is right, all is."""
    data = (EXAMPLES / "gecko/prompts.csv").read_bytes()
    words = ("process_gecko", "--url", f"{hub}/raw/x/prompts.csv")
    if begun:
        FakeHub.files, FakeHub.tear = {("raw", "x", "prompts.csv"): data * 200}, 9
        run(tmp_path, "http://127.0.0.1:9", *words, status=1)
    page = data[:36] if status == 206 else b"<html>login</html>"
    with monkeypatch.context() as patch:
        patch.setattr(FakeHub, "do_GET", lambda self: self.answer(status, page, headers))
        ended, prompts = run(tmp_path, "http://127.0.0.1:9", *words, status=1)
    assert prompts is None and "cannot fetch" in ended.stderr and "came" in ended.stderr
    FakeHub.files, FakeHub.tear = {("raw", "x", "prompts.csv"): data}, 0
    _, prompts = run(tmp_path, "http://127.0.0.1:9", *words)
    assert prompts == local(tmp_path, "process_gecko", "gecko")


@pytest.mark.parametrize(
    "script, says",
    [
        ("process_image_reward", "metadata-train.parquet"),
        ("process_pickscore", "data/train-0*.parquet"),
        ("process_hpdv2", "benchmark/anime.json"),
        ("process_sac", "sac_public_2022_06_29.sqlite"),
        ("process_gecko", "prompts.csv"),
    ],
)
def test_without_network(tmp_path, script, says):
    url = (
        ["--url", "http://127.0.0.1:9/raw/main/" + says]
        if script in ("process_sac", "process_gecko")
        else []
    )
    ended, prompts = run(tmp_path, "http://127.0.0.1:9", script, *url, status=1)
    assert prompts is None and len(ended.stderr.splitlines()) == 1
    assert "cannot fetch" in ended.stderr and says in ended.stderr and "--input" in ended.stderr


@pytest.mark.parametrize("script", ["process_sac", "process_hpdv2"])
def test_a_server_that_drips_is_one_line_and_what_came_is_kept(tmp_path, hub, monkeypatch, script):
    """A mirror of a file, and the hub; the next try takes the rest of the file."""
    name = "sac_public_2022_06_29.sqlite"
    data = (EXAMPLES / "sac" / name).read_bytes()
    FakeHub.files = {("raw", "x", name): data} | {
        ("ymhao/HPDv2", "main", f"benchmark/{path.name}"): path.read_bytes()
        for path in (EXAMPLES / "hpdv2").iterdir()
    }
    hook = f"import sys\nsys.path[:0] = {sys.path!r}\nimport common.web\ncommon.web.WINDOW_S = 1.0"
    (tmp_path / "sitecustomize.py").write_text(hook)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ("--url", f"{hub}/raw/x/{name}") if script == "process_sac" else ()

    def drip(self):
        self.send_response(200)
        self.send_header("Content-Length", len(data))
        self.end_headers()
        with contextlib.suppress(OSError):
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(0.02)

    with monkeypatch.context() as patch:
        patch.setattr(FakeHub, "do_GET", drip)
        ended, _ = run(tmp_path, hub, script, *options, status=1)
    assert "sends fewer than 1,000 bytes a second" in ended.stderr and "--input" in ended.stderr
    run(tmp_path, hub, script, *options)
    assert script != "process_sac" or FakeHub.asked[-1][2].startswith("bytes=")


def test_a_source_that_lost_a_file(tmp_path, hub):
    FakeHub.files = {("zai-org/ImageRewardDB", "main", "metadata-train.parquet"): b"x"}
    ended, _ = run(tmp_path, hub, "process_image_reward", status=1)
    assert "holds no metadata-validation.parquet, metadata-test.parquet" in ended.stderr
