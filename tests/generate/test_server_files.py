"""The small files of a job server, one by one."""

import os
from pathlib import Path

import pytest

from common.command_line import UserError
from generate.server.identity import (
    claim_epoch,
    open_folder,
    run_identity,
    superseded,
    write_server_json,
)


def test_an_epoch_is_claimed_once(tmp_path, monkeypatch):
    """Two servers that start at the same instant see the same epochs; a number is one's alone."""
    folder = open_folder(tmp_path)
    listdir = os.listdir
    assert claim_epoch(folder).epoch == 1
    seen = [[]]  # what the second one saw: the first had not claimed yet
    monkeypatch.setattr(os, "listdir", lambda path: seen.pop() if seen else listdir(path))
    assert claim_epoch(folder).epoch == 2
    assert not seen

    assert superseded(folder, 1)
    assert not superseded(folder, 2)


def test_small_files_are_on_disk_before_they_count(tmp_path, monkeypatch):
    """The file before it gets its name, the name's folder after that: a crash loses neither."""
    events = []

    def watch(name, what):
        real = getattr(os, name)

        def call(*args, **kwargs):
            result = real(*args, **kwargs)
            events.append((name, what(*args)))
            return result

        monkeypatch.setattr(os, name, call)

    folder = open_folder(tmp_path)
    watch("fsync", lambda descriptor: Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
    watch("link", lambda source, target: Path(target).name)
    watch("replace", lambda source, target: Path(target).name)
    run_identity(folder)
    written, named, synced = events
    assert written[0] == "fsync" and written[1].startswith(".run.json.")
    assert [named, synced] == [("link", "run.json"), ("fsync", ".server")]
    events.clear()
    write_server_json(folder, {"url": "http://x:1/"})
    written, named, synced = events
    assert written[0] == "fsync" and written[1].startswith(".server.json.")
    assert [named, synced] == [("replace", "server.json"), ("fsync", ".server")]
    events.clear()
    claim_epoch(folder)
    assert events == [("fsync", "epochs")]


def test_the_last_number_of_a_start_is_refused(tmp_path):
    """It had thirteen digits, was not seen among the files, and the start after it never ended."""
    folder = open_folder(tmp_path)
    (folder / "epochs" / "999999999999").touch()
    with pytest.raises(UserError, match="999999999999 is the last number"):
        claim_epoch(folder)
