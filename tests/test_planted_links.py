"""What others put where this user's processes write leads to no other file, and is not filled.

Whoever owns a file can change it after it was published.
"""

import fcntl
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from combine_prompts import download
from common.command_line import UserError
from common.files import open_own
from generate.image_models.one_first import one_first
from postprocess_dataset import publish
from postprocess_dataset.publish import Draft, publish_text
from postprocess_dataset.sorted_rows import RowWriter
from tests.fakes.forked_script import forked

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


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of another user")
def test_a_file_of_another_user_is_not_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".t.parquet.tmp", "part"):
        (tmp_path / name).write_text("theirs")
        os.chown(tmp_path / name, 65534, 65534)
    with pytest.raises(UserError, match=r"\.t\.parquet\.tmp: it belongs to another user"):
        Draft(tmp_path / "t.parquet")
    with pytest.raises(OSError, match="it belongs to another user"):
        open_own(tmp_path / "part", os.O_WRONLY)
    # one that a killed process of this user has left is taken over, also where its owner is mapped
    os.chown(tmp_path / ".t.parquet.tmp", 0, 0)
    for seen_as in (0, 65534):
        monkeypatch.setattr(os, "geteuid", lambda seen_as=seen_as: seen_as)
        with Draft(tmp_path / "t.parquet") as draft:
            assert os.fstat(draft.file.fileno()).st_size == 0
        (tmp_path / ".t.parquet.tmp").write_text("mine")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of another user")
@pytest.mark.parametrize("opener", ["download", "variations"])
def test_what_was_begun_by_another_user_is_not_gone_on_with(tmp_path: Path, opener: str) -> None:
    part = tmp_path / "v.json.part"
    part.write_text("")
    os.chown(part, 65534, 65534)
    if opener == "download":
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeMirror) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/x"
            with pytest.raises(OSError, match="belongs to another user"):
                download._fetch_rest(url, part, "x")
            server.shutdown()
    else:
        (tmp_path / "p.json").write_text(json.dumps(["a cat", "a dog"]))
        words = (tmp_path / "p.json", "--output", tmp_path / "v.json", "--ollama_hosts=127.0.0.1:1")
        ended = forked("generate/llm_prompting.py", *words)
        assert ended.returncode == 1 and "belongs to another user" in ended.stderr, ended.stderr
    assert part.read_text() == ""


def test_a_long_wait_for_a_lock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may read a file can lock it, and never let go."""
    monkeypatch.setattr(publish, "LONG_S", 0.1)
    draft = tmp_path / ".index.json.tmp"
    draft.touch()
    with open(draft) as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        writer = threading.Thread(target=publish_text, args=(str(tmp_path / "index.json"), "{}"))
        writer.start()
        said = ""
        while f"if none is at work, remove {draft}" not in said:
            time.sleep(0.05)
            said += capsys.readouterr().out
        draft.unlink()  # as it says
        writer.join(30)
    assert (tmp_path / "index.json").read_text() == "{}"
