"""A definition's file that others have replaced: its data set alone is concerned, in one line."""

import errno
import logging

import pytest

from generate.server import data_sets
from generate.server.data_sets import DataSets
from generate.server.folders import Folders
from generate.server.ledger.shared_ledger import SharedLedger
from tests.fakes.ledger_run import Run


@pytest.fixture
def sets(tmp_path, caplog):
    """DataSets of "d", which is looked at first, and "e"; both lie in their folders."""
    caplog.set_level(logging.INFO, "image_server")
    run = Run(tmp_path)
    ledger = SharedLedger(run.ledger, clock=lambda: run.now)
    made = DataSets(Folders(tmp_path, ledger), ledger)
    for name in ("d", "e"):
        made.folders.path(name).mkdir(parents=True)
        made.settle(name, run.definition | {"name": name})
    made.look()
    return made


@pytest.mark.parametrize("target", ["itself", "file/x", "x", "/dev/zero"])
@pytest.mark.parametrize("name", ["dataset.yaml", "dataset.2.yaml"])
def test_one_that_is_no_regular_file_is_written_again(sets, caplog, name, target):
    folder = sets.folders.path("d")
    path = folder / name
    (folder / "file").touch()
    path.unlink(missing_ok=True)
    path.symlink_to(name if target == "itself" else target)
    sets.folders.path("e").rename(folder.with_name("away"))
    caplog.clear()
    sets.look()
    sets.look()
    assert path.is_file() and not path.is_symlink()
    assert path.with_name(f"{name}.damaged").is_symlink()
    assert sets.detached == {"e"}, "the others are looked at"
    assert f"{name} is damaged" in caplog.text and len(caplog.records) == 2, "a line for each"


def test_one_that_cannot_be_written_again_is_said_once(sets, caplog, monkeypatch):
    """It is tried at each look, and the others are looked at."""

    def full(folder, definition):
        raise OSError(errno.ENOSPC, "No space left on device", f"{folder}/.{len(caplog.records)}")

    folder = sets.folders.path("d")
    (folder / "dataset.yaml").unlink()
    (folder / "dataset.yaml").symlink_to("dataset.yaml")
    caplog.clear()
    with monkeypatch.context() as disk:
        disk.setattr(data_sets, "restore", full)
        for _ in range(3):
            sets.look()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        sets.folders.path("e").rename(folder.with_name("away"))
        sets.look()
        assert sets.detached == {"e"}
    sets.look()
    assert (folder / "dataset.yaml").is_file()
