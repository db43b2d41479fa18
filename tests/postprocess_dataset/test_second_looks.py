"""What a listing did not show, a clock that lies, folders that cannot be read for a while.

No sample is lost by it, none called deleted.
"""

import errno
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from postprocess_dataset import dataset_folder, increment


@pytest.fixture
def hidden(monkeypatch):
    """hidden(suffix): directory listings miss all numbered files of that kind, as one does that
    began before they were renamed.
    """
    list_folder = dataset_folder.list_folder

    def hide(suffix):
        def listed(path):
            listing = list_folder(path)
            setattr(listing, "images" if suffix == ".jpg" else "jsons", np.empty(0, np.int64))
            return listing

        monkeypatch.setattr(dataset_folder, "list_folder", listed)

    yield hide
    monkeypatch.setattr(dataset_folder, "list_folder", list_folder)


def rejects(table):
    return [json.loads(line) for line in Path(f"{table}.rejects.jsonl").read_text().splitlines()]


def test_an_image_that_the_listing_missed_is_looked_for_by_name(
    folder, to_parquet, hidden, tmp_path
):
    data = folder().fill([1, 2], 1)
    (data.path / "000000/2_0.jpg").unlink()
    hidden(".jpg")
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and "1 rows; 1 rejected" in ended.out
    assert rejects(tmp_path / "t.parquet") == [
        {"json": "HPDv2/000000/2_0.json", "reason": "image is missing"}
    ]


def test_an_image_whose_json_the_listing_missed_is_no_orphan(
    folder, to_parquet, hidden, deleted, tmp_path, monkeypatch
):
    data, table = folder().fill([1, 2], 1), tmp_path / "t.parquet"
    data.add(1001)
    assert to_parquet(data.path, table).status == 0
    (data.path / "000000/2_0.json").unlink()
    hidden(".json")
    ended = to_parquet(data.path, table, "--update")
    assert (
        "0 of them new" in ended.out
        and "1 images without JSON" in ended.out
        and deleted(table) == ["HPDv2/000000/2_0"]
    )
    assert rejects(table) == [{"image": "HPDv2/000000/2_0.jpg", "reason": "image without JSON"}]


def test_a_sample_that_the_listing_missed_is_not_deleted(
    folder, to_parquet, hidden, deleted, tmp_path
):
    data, table = folder().fill([1, 2], 1), tmp_path / "t.parquet"
    assert to_parquet(data.path, table).status == 0
    hidden(".jpg")
    (data.path / "000000/1_0.jpg").unlink()
    ended = to_parquet(data.path, table, "--update")
    assert "1 deleted" in ended.out and deleted(table) == ["HPDv2/000000/1_0"]


def test_a_clock_ahead_of_the_file_server_s(folder, to_parquet, tmp_path, monkeypatch):
    """What counts is the clock that stamps the folders: by this machine's, a day ahead, every
    folder would look long settled.
    """
    data, table, now = folder().fill([1], 1), tmp_path / "t.parquet", time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 86_400 * 10**9)
    monkeypatch.setattr(time, "time", lambda: now() / 1e9 + 86_400)
    assert to_parquet(data.path, table).status == 0
    then = os.stat(data.path / "000000").st_mtime_ns
    data.add(2)
    os.utime(
        data.path / "000000", ns=(then, then)
    )  # the server's clock has a coarse grain, so the mtime shows nothing
    assert "2 rows, 1 of them new" in to_parquet(data.path, table, "--update").out


def test_nowhere_to_ask_the_server_s_clock(folder, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    assert (
        abs(
            increment.server_time_ns(str(folder().path), str(tmp_path / "t.parquet"))
            - time.time_ns()
        )
        < 60 * 10**9
    )


@pytest.mark.parametrize("closed", ["HPDv2/000001", "HPDv2"])
def test_a_folder_that_cannot_be_read_for_a_while(
    closed, folder, to_parquet, rows_of, deleted, tmp_path, monkeypatch
):
    """Its rows, and those of the folders in it, are not deleted, and the update after it looks
    there again, although no mtime has changed.
    """
    data, table, list_folder = (
        folder().fill([1, 1001, 2001], 1),
        tmp_path / "t.parquet",
        dataset_folder.list_folder,
    )
    assert to_parquet(data.path, table).status == 0
    data.add(1002)
    data.settle()

    def refuse(path):
        if path.endswith(closed):
            raise PermissionError(errno.EACCES, "Permission denied")
        return list_folder(path)

    with monkeypatch.context() as away:
        away.setattr(dataset_folder, "list_folder", refuse)
        ended = to_parquet(data.path, table, "--update")
        assert (
            ended.status == 3 and f"{closed}: folder cannot be read: Permission denied" in ended.err
        )
        assert not deleted(table) and "0 of them new" in ended.out
    ended = to_parquet(data.path, table, "--update")
    assert ended.status == 0 and "4 rows, 1 of them new" in ended.out and not deleted(table)


def test_what_is_deleted_stays_so_in_a_folder_that_is_skipped(
    folder, to_parquet, deleted, tmp_path
):
    data, table = folder().fill([1, 2, 1001], 1), tmp_path / "t.parquet"
    assert to_parquet(data.path, table).status == 0
    (data.path / "000000/2_0.json").unlink()
    data.settle()
    assert to_parquet(data.path, table, "--update").status == 0 and deleted(table) == [
        "HPDv2/000000/2_0"
    ]
    ended = to_parquet(data.path, table, "--update")
    assert (
        "3 folders unchanged" in ended.out
        and "1 deleted" in ended.out
        and deleted(table) == ["HPDv2/000000/2_0"]
    )


def test_a_folder_removed_after_the_state_was_lost(folder, to_parquet, deleted, tmp_path):
    """The table itself says then which folders there were."""
    data, table = folder().fill([1, 1001], 1), tmp_path / "t.parquet"
    assert to_parquet(data.path, table).status == 0
    Path(f"{table}.state").unlink()
    shutil.rmtree(data.path / "000001")
    assert ", 1 deleted" in to_parquet(data.path, table, "--update").out and deleted(table) == [
        "HPDv2/000001/1001_0"
    ]


def test_after_strict_no_folder_is_skipped(folder, to_parquet, tmp_path):
    """--strict lists what it found, which is then not what the folders of the table's state had."""
    one, other, table = (
        folder("one").fill([1, 2], 1),
        folder("other").fill([1], 1),
        tmp_path / "t.parquet",
    )
    (one.path / "000000/2_0.json").write_text("{")
    one.settle(), other.settle()
    assert to_parquet(one.path, other.path, table).status == 3
    (other.path / "000000/1_0.json").write_text("{")
    assert to_parquet(other.path, table, "--rebuild", "--strict").status == 3
    (one.path / "000000/2_0.json").write_text(
        json.dumps(one.record(2, 0, one.image(2, 0)))
    )  # fixed in place: no folder's mtime tells
    assert "3 rows, 1 of them new" in to_parquet(one.path, other.path, table, "--update").out


def test_parts_that_do_not_go_together(folder, to_parquet, tmp_path):
    data, table = folder().fill([1, 1001], 1), tmp_path / "t.parquet"
    assert to_parquet(data.path, table, "--part", "0/2", "--relative").status == 0
    assert to_parquet(data.path, table, "--part", "1/2").status == 0
    ended = to_parquet(data.path, table, "--part", "0/2", "--finish")
    assert ended.status == 1 and "with different options" in ended.err and not table.exists()
    assert to_parquet(data.path, table, "--part", "0/2").status == 0
    table.write_bytes(b"mine")
    ended = to_parquet(data.path, table, "--part", "0/2", "--finish")
    assert (
        ended.status == 1
        and "is a file; a table of parts is a directory" in ended.err
        and table.read_bytes() == b"mine"
    )
    table.unlink()
    assert to_parquet(data.path, table, "--part", "0/2", "--finish").status == 0
    shutil.rmtree(table)
