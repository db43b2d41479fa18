"""A link that others put where this user's processes write leads to no other file."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from combine_prompts import download
from generate.image_models.one_first import one_first
from postprocess_dataset.publish import Draft
from postprocess_dataset.sorted_rows import RowWriter

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious"
    path.write_text("mine")
    return path


def test_the_lock_of_a_shared_cache(precious: Path, tmp_path: Path) -> None:
    """Whoever holds it writes its name into it; where it cannot be had, everybody does it."""
    lock = tmp_path / "model.lock"
    for _ in range(2):
        with one_first(lock, lambda: False, "fetches it") as first:
            assert first
        lock.unlink()
        lock.symlink_to(precious)
    lock.unlink()
    os.mkfifo(lock)
    with one_first(lock, lambda: False, "fetches it") as first:
        assert first
    assert precious.read_text() == "mine"


def test_variations_of_a_whole_file(precious: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(["a cat", "a dog"]))
    (tmp_path / "v.json.part").symlink_to(precious)
    command = [sys.executable, "generate/llm_prompting.py", tmp_path / "p.json"]
    command += ["--output", tmp_path / "v.json", "--ollama_hosts=127.0.0.1:1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "v.json.part" in ended.stderr, ended.stderr
    assert precious.read_text() == "mine"


class FakeMirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"abc")

    def log_message(self, *_: object) -> None:
        pass


def test_a_download(precious: Path, tmp_path: Path) -> None:
    (tmp_path / "part").symlink_to(precious)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeMirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x"
        with pytest.raises(OSError, match="nothing is written there"):
            download._fetch_rest(url, tmp_path / "part", "x")
        server.shutdown()
    assert precious.read_text() == "mine"


def test_a_table_that_is_being_written(precious: Path, tmp_path: Path) -> None:
    """The temporary file is opened twice, in a folder in which others can rename it."""
    with Draft(tmp_path / "t.parquet") as draft:
        os.rename(draft.temporary, tmp_path / "taken")
        os.symlink(precious, draft.temporary)
        RowWriter(draft, {"base": "/", "relative": False}).close([])
    assert precious.read_text() == "mine"
    assert pq.read_metadata(tmp_path / "taken").num_rows == 0
