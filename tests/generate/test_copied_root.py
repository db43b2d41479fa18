"""An output root that is copied, moved or restored: which server belongs to it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from generate.protocol.connection import Connection, CopiedRoot, read_server_json

ROOT = Path(__file__).resolve().parents[2]


def server_command(root, *words):
    return subprocess.run(
        [sys.executable, ROOT / "generate/image_server.py", "--output_root", root, *words],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_copy_never_reaches_the_originals_server(start, tmp_path):
    original = start()
    copy = tmp_path / "copy"
    shutil.copytree(original.root, copy)
    for word in ("--drain", "--status"):
        ended = server_command(copy, word)
        assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
        assert f"{copy} is a copy of {original.root}" in ended.stderr
    assert not original.status()["server"].get("draining")
    with pytest.raises(CopiedRoot):
        Connection(copy)


def test_a_server_on_a_copy_is_a_run_of_its_own(start, tmp_path):
    original = start()
    copy = tmp_path / "copy"
    shutil.copytree(original.root, copy)
    other = start(root=copy)
    assert other.json["token"] != original.json["token"]
    assert other.json["run_id"] != original.json["run_id"]
    assert f"{copy} is a copy of {original.root}" in other.log()
    for server in (original, other):
        Connection(server.root).close()


def test_a_moved_root_stays_the_same_run(start, tmp_path):
    server = start()
    before = server.json
    server.stop()
    moved = tmp_path / "moved"
    server.root.rename(moved)
    assert read_server_json(moved).run_id == before["run_id"]
    again = start(root=moved)
    assert again.json["run_id"] == before["run_id"] and again.json["token"] == before["token"]


def test_a_root_that_was_restored_from_a_backup_is_no_copy(start, tmp_path):
    server = start()
    server.stop()
    run_id = server.json["run_id"]
    shutil.copytree(server.root, tmp_path / "backup")
    shutil.rmtree(server.root)
    (tmp_path / "backup").rename(server.root)
    assert read_server_json(server.root).run_id == run_id


def test_a_server_json_of_an_older_version_is_read(start):
    server = start()
    path = server.root / ".server" / "server.json"
    record = json.loads(path.read_text())
    assert record.pop("inode") and record.pop("output_root") == str(server.root)
    path.write_text(json.dumps(record))
    assert read_server_json(server.root).run_id == record["run_id"]
