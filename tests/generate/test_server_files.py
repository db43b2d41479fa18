"""The small files of a job server, one by one."""

import os

from generate.server.identity import claim_epoch, open_folder, superseded


def test_an_epoch_is_claimed_once(tmp_path, monkeypatch):
    """Two servers that start at the same instant see the same epochs; a number is one's alone."""
    folder = open_folder(tmp_path)
    listdir = os.listdir
    assert claim_epoch(folder) == 1
    seen = [[]]  # what the second one saw: the first had not claimed yet
    monkeypatch.setattr(os, "listdir", lambda path: seen.pop() if seen else listdir(path))
    assert claim_epoch(folder) == 2
    assert not seen
    assert superseded(folder, 1)
    assert not superseded(folder, 2)
