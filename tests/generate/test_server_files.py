"""The small files of a job server, one by one."""

import os

from generate.server import identity as server_files


def test_an_epoch_is_claimed_once(tmp_path, monkeypatch):
    """Two servers that start at the same instant see the same epochs; a number is the first one's alone."""
    folder, listdir = server_files.open_folder(tmp_path), os.listdir
    assert server_files.claim_epoch(folder) == 1
    seen = [[]]  # what the second one saw: the first had not claimed yet
    monkeypatch.setattr(os, "listdir", lambda path: seen.pop() if seen else listdir(path))
    assert server_files.claim_epoch(folder) == 2 and not seen
    assert server_files.overtaken(folder, 1) and not server_files.overtaken(folder, 2)
