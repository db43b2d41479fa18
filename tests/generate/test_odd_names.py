"""Names that others put into a data set folder: they hold up neither the server nor a client."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from generate.client.job_client import Grant
from generate.dataset.definition import (
    extended_since,
    had_rule,
    newest_file,
    rule_fields,
    stored_definition,
)
from generate.dataset.layout import path_of
from generate.server.folder_check import trusted
from generate.server.folders import Folders
from tests.fakes.running_server import definition, finish, until
from tests.generate.test_server_folders import folder_of, no_trace, work_to_the_end


def test_a_definition_of_a_far_number_is_none(tmp_path, monkeypatch):
    """Each number up to it was looked for, under the lock of all data sets."""
    from generate.dataset import definition as definitions

    definitions.settle(tmp_path, definition("storm", 4, 2))
    for number in (10**9, 10**9 - 1, 10**40):
        shutil.copy(tmp_path / "dataset.yaml", tmp_path / f"dataset.{number}.yaml")
    assert newest_file(tmp_path) == (1, tmp_path / "dataset.yaml")
    shutil.copy(tmp_path / "dataset.yaml", tmp_path / "dataset.3.yaml")  # a second one was lost
    assert newest_file(tmp_path)[0] == 3
    looked = []
    real = definitions.read_definition
    monkeypatch.setattr(
        definitions, "read_definition", lambda path: looked.append(path) or real(path)
    )
    other = stored_definition(tmp_path) | {"accept": "clip > 0.9", "seed": 77}
    assert extended_since(tmp_path, other | {"model": "another"}) is None
    assert not had_rule(tmp_path, rule_fields(other)) and len(looked) < 9


def test_a_folder_called_complete_is_no_mark(start):
    """It is renamed; what is lost beside it is generated again."""
    server = start(ttl_s=3)
    client = server.client()
    work_to_the_end(client)
    mark = folder_of(server) / "000000" / "COMPLETE"
    until(mark.is_file, "the mark")
    server.stop()
    mark.unlink()
    mark.mkdir()
    path_of(folder_of(server), 3, 0, ".json").unlink()
    server.start()
    client = server.client()
    grant = until(lambda: isinstance(got := client.get_indices(5), Grant) and got, "work", 30)
    assert grant.indices == [3]
    finish(client, grant)
    assert mark.with_name("COMPLETE.foreign").is_dir()
    no_trace(server)


@pytest.mark.parametrize(
    "less",
    [
        {"9" * 5000: [1, 0]},  # more digits than int() takes
        {"7": [1, 0]},  # of another folder
        {"²": [1, 0]},
        {"1": [10**30, 0]},
        {"1": [-1, 0]},
        {"1": [1, 0, 0]},
        {"1": [True, 0]},
        {"1": None},
        [],
    ],
)
def test_a_mark_of_another_form_is_no_mark(tmp_path, less):
    mark = tmp_path / "COMPLETE"
    record = {"indices": 3, "images_per_prompt": 2, "less": {"1": [1, 0]}}
    mark.write_text(json.dumps(record))
    assert trusted(mark, range(3), 2) == {0: (2, 0), 1: (1, 0), 2: (2, 0)}
    mark.write_text(json.dumps(record | {"less": less}))
    assert trusted(mark, range(3), 2) is None


def test_a_mark_that_cannot_be_read_is_no_mark(tmp_path):
    """Its folder is compared, name by name."""
    (tmp_path / "file").write_text("{}")
    (tmp_path / "file").chmod(0)  # root reads it, and it has another form
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "loop", "file/COMPLETE"):
        assert trusted(tmp_path / name, range(3), 2) is None


def test_each_sub_folder_is_listed_once_for_all_failed_prompts(tmp_path, monkeypatch):
    """A listing of 400,000 names for each of 1,000 prompts would take minutes."""
    folder = tmp_path / "generated_images" / "storm" / "000000"
    folder.mkdir(parents=True)
    for index in range(100):
        for name in (f"{index}_0.failed", f"{index}_1.failed", f"{index}_1.jpg"):
            (folder / name).touch()
    listed = []
    for name in ("scandir", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, real=real: listed.append(path) or real(path))
    Folders(tmp_path, None)._remove_failed("storm", set(range(50)))
    assert len(listed) == 1
    monkeypatch.undo()
    left = {path.name for path in folder.glob("*.failed")}
    assert left == {f"{index}_{aug}.failed" for index in range(50, 100) for aug in (0, 1)}
    assert len(list(folder.glob("*.jpg"))) == 100


def test_a_failed_that_may_not_be_removed_keeps_no_other_from_being_retried(
    tmp_path, monkeypatch, caplog
):
    """Another user's, in a folder with the sticky bit."""
    folder = tmp_path / "generated_images" / "storm" / "000000"
    folder.mkdir(parents=True)
    for name in ("1_0.failed", "2_0.failed", "1.samples", "2.samples"):
        (folder / name).touch()
    real = Path.unlink

    def unlink(path, missing_ok=False):
        if path.name[0] == "1":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    failed = {1, 2}

    class Ledger:
        """Two failed prompts, in pages of one."""

        def retry_failed(self, dataset, indices):
            failed.difference_update(indices)
            return len(indices)

        def read(self, function, *args):
            return function(self, *args)

    def page(self, name, offset):
        return [{"index": index} for index in sorted(failed)[offset : offset + 1]]

    monkeypatch.setattr(Folders, "_failed", page)
    monkeypatch.setattr("generate.server.folders.Ledger", Ledger)
    assert Folders(tmp_path, Ledger()).retry_failed("storm") == (1, 1)
    assert failed == {1}  # its image would be given up at once
    assert sorted(path.name for path in folder.iterdir()) == ["1.samples", "1_0.failed"]
    assert caplog.text.count("is in the way (Operation not permitted)") == 2


@pytest.mark.parametrize("odd", ["file", "pipe", "link", "no folder"])
def test_a_sub_folder_that_is_none_keeps_no_other_from_being_retried(tmp_path, odd, caplog):
    """The order ended with an error, and the prompts of all other sub-folders stayed failed."""
    data = tmp_path / "generated_images" / "storm"
    (data / "000001").mkdir(parents=True)
    for name in ("1001_0.failed", "1001.samples"):
        (data / "000001" / name).touch()
    place = data / "000000"
    make = {"file": place.touch, "pipe": lambda: os.mkfifo(place), "no folder": lambda: None}
    make.get(odd, lambda: place.symlink_to(place))()
    folders = Folders(tmp_path, None)
    folders.unmark("storm", [5, 1001])
    assert folders._remove_failed("storm", {5, 1001}) == (set() if odd == "no folder" else {5})
    assert not list((data / "000001").iterdir())
    assert (odd in ("file", "pipe")) == (
        "000000" in caplog.text and "cannot be used" in caplog.text
    )


def test_nothing_is_removed_behind_a_link(tmp_path):
    """A link in the place of a sub-folder leads to another data set."""
    other = tmp_path / "other" / "000001"
    other.mkdir(parents=True)
    for name in ("1001_0.failed", "1001.samples", "COMPLETE"):
        (other / name).touch()
    data = tmp_path / "generated_images" / "storm"
    data.mkdir(parents=True)
    (data / "000001").symlink_to(other)
    folders = Folders(tmp_path, None)
    assert folders._remove_failed("storm", {1001}) == {1001}
    folders.unmark_all("storm")
    folders.unmark("storm", [1001])
    assert len(list(other.iterdir())) == 3


def test_a_mark_that_may_not_be_removed_stops_nothing(tmp_path, monkeypatch, caplog):
    """Another user's, in a folder with the sticky bit; the others are removed."""
    marks = [tmp_path / "generated_images/storm" / f"00000{n}" / "COMPLETE" for n in range(3)]
    for mark in marks:
        mark.parent.mkdir(parents=True)
        mark.touch()
    real = Path.unlink

    def unlink(path, missing_ok=False):
        if path == marks[1]:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    Folders(tmp_path, None).unmark_all("storm")
    Folders(tmp_path, None).unmark("storm", [1, 2001])
    assert [mark.exists() for mark in marks] == [False, True, False]
    assert len(caplog.messages) == 1 and str(marks[1]) in caplog.text
