"""--update, --rebuild, --part and crashes.

Old rows never move, new ones are appended, a killed run leaves the old table.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postprocess_dataset import table


def test_new_samples_are_appended(folder, to_parquet, rows_of, tmp_path):
    table, data = tmp_path / "t.parquet", folder().fill([5, 1005, 2005])
    data.settle()
    assert to_parquet(data.path, table).status == 0
    old, inode = rows_of(table), table.stat().st_ino
    ended = to_parquet(data.path, table, "--update")
    assert (
        "6 rows, 0 of them new; 4 folders unchanged" in ended.out and table.stat().st_ino == inode
    )  # not even rewritten
    data.fill([3, 1002], 1), data.add(1005, 7)
    ended = to_parquet(data.path, table, "--update")
    assert ended.status == 0 and "9 rows, 3 of them new; 2 folders unchanged" in ended.out
    rows = rows_of(table)
    assert rows[:6] == old and [r["__key__"] for r in rows[6:]] == [
        "HPDv2/000000/3_0",
        "HPDv2/000001/1002_0",
        "HPDv2/000001/1005_7",
    ]
    assert [r["idx"] for r in rows] == list(range(9))
    ended = to_parquet(data.path, table)
    assert (
        ended.status == 1
        and "has grown by --update 1 times" in ended.err
        and rows_of(table) == rows
    )
    assert to_parquet(data.path, table, "--rebuild").status == 0
    assert [r["__key__"] for r in rows_of(table)] == sorted(
        (r["__key__"] for r in rows), key=lambda k: [int(n) for n in k.rsplit("/", 1)[1].split("_")]
    )
    fresh = tmp_path / "fresh.parquet"
    assert to_parquet(data.path, fresh).status == 0 and fresh.read_bytes() == table.read_bytes()


def test_a_folder_changed_a_moment_ago_is_listed_again(folder, to_parquet, tmp_path):
    data = folder().fill([5], 1)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    folder_mtime = os.stat(data.path / "000000").st_mtime_ns
    data.add(6)
    os.utime(
        data.path / "000000", ns=(folder_mtime, folder_mtime)
    )  # within the clock's grain: the mtime shows nothing
    assert (
        "2 rows, 1 of them new; 0 folders unchanged"
        in to_parquet(data.path, tmp_path / "t.parquet", "--update").out
    )


def test_what_is_deleted_and_what_is_fixed(folder, to_parquet, rows_of, deleted, tmp_path):
    table, data = tmp_path / "t.parquet", folder().fill([1, 1001, 2001])
    (data.path / "000002" / "2001_1.json").write_text("{")
    os.unlink(data.path / "000001" / "1001_1.json")  # an orphan
    data.settle()
    assert to_parquet(data.path, table).status == 3
    old = rows_of(table)
    os.unlink(data.path / "000000" / "1_0.jpg"), os.unlink(data.path / "000000" / "1_1.json")
    ended = to_parquet(data.path, table, "--update")
    assert (
        ended.status == 3
        and "0 of them new" in ended.out
        and "1 rejected" in ended.out
        and "2 deleted" in ended.out
    )
    assert rows_of(table) == old and deleted(table) == ["HPDv2/000000/1_0", "HPDv2/000000/1_1"]
    data.settle()
    place = data.place(2001, 1)
    place.with_suffix(".json").write_text(
        json.dumps(data.record(2001, 1, data.image(2001, 1)))
    )  # fixed in place: no folder's mtime tells
    data.settle()
    data.add(1, 0)  # generated again
    ended = to_parquet(data.path, table, "--update")
    assert (
        ended.status == 0
        and "5 rows, 1 of them new" in ended.out
        and "2 images without JSON" in ended.out
        and rows_of(table)[:4] == old
    )
    assert (
        deleted(table) == ["HPDv2/000000/1_1"]
        and rows_of(table)[4]["__key__"] == "HPDv2/000002/2001_1"
    )
    import shutil

    shutil.rmtree(data.path / "000002")
    assert to_parquet(data.path, table, "--update").status == 0 and deleted(table) == [
        "HPDv2/000000/1_1",
        "HPDv2/000002/2001_0",
        "HPDv2/000002/2001_1",
    ]
    assert (
        to_parquet(data.path, table, "--rebuild").status == 0
        and len(rows_of(table)) == 2
        and not deleted(table)
    )
    assert not Path(f"{table}.gone.jsonl").exists()


def test_update_of_one_of_two_folders(folder, to_parquet, rows_of, deleted, tmp_path):
    first, second, table = (
        folder("a").fill([1], 1),
        folder("b", published=True).fill([1, 2], 1),
        tmp_path / "t.parquet",
    )
    os.unlink(second.path / "2_0.jpg")
    assert to_parquet(first.path, second.path, table).status == 3
    os.unlink(second.path / "1_0.jpg")
    first.add(2)
    ended = to_parquet(
        first.path, table, "--update"
    )  # says nothing of b: its rows and rejects stand
    assert [r["__key__"] for r in rows_of(table)] == [
        "a/000000/1_0",
        "b/1_0",
        "a/000000/2_0",
    ] and not deleted(table)
    assert "b/2_0.json" in Path(f"{table}.rejects.jsonl").read_text() and ended.status == 0
    elsewhere = folder("elsewhere/c").fill([1], 1)
    assert (
        to_parquet(elsewhere.path, table, "--update").status == 0
        and rows_of(table)[-1]["__key__"] == "elsewhere/c/000000/1_0"
    )
    ended = to_parquet(Path(tempfile.mkdtemp(dir=tmp_path.parent)), table, "--update")
    assert ended.status == 1 and "lies outside" in ended.err


def test_update_of_tables_that_cannot_be(folder, to_parquet, tmp_path):
    import pandas

    data = folder().fill([1], 1)
    pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign.parquet")
    ended = to_parquet(data.path, tmp_path / "foreign.parquet", "--update")
    assert ended.status == 1 and "not a table of this script" in ended.err
    assert (
        to_parquet(data.path, tmp_path / "t.parquet", "--update").status == 0
    )  # none yet: a first conversion
    ended = to_parquet(data.path, tmp_path / "t.parquet", "--update", "--relative")
    assert ended.status == 1 and "--relative" in ended.err


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "add",
                    "remove image",
                    "remove json",
                    "break",
                    "fix",
                    "settle",
                    "update",
                    "lose state",
                ]
            ),
            st.integers(0, 11),
        ),
        max_size=25,
    )
)
def test_any_history_against_a_model(folder, to_parquet, rows_of, deleted, tmp_path, history):
    """Rows only ever grow at the end; whatever is whole is a row, whatever is not is deleted,
    rejected, or nothing.
    """
    with tempfile.TemporaryDirectory(dir=tmp_path) as where:
        data, table = folder(f"{Path(where).name}/HPDv2"), Path(where) / "t.parquet"
        data.add(100), data.settle()
        assert to_parquet(data.path, table).status == 0
        rows = rows_of(table)
        for verb, number in [*history, ("update", 0)]:
            place = data.place(number * 500, 0)
            image, record = place.with_suffix(".jpg"), place.with_suffix(".json")
            if verb in ("add", "fix"):
                data.add(number * 500)
            elif verb == "remove image":
                image.unlink(missing_ok=True)
            elif verb == "remove json":
                record.unlink(missing_ok=True)
            elif (
                verb == "break"
                and record.exists()
                and not any(r["prompt_index"] == number * 500 for r in rows)
            ):
                record.write_text("{")
            elif verb == "settle":
                data.settle()
            elif verb == "lose state":
                Path(f"{table}.state").unlink(missing_ok=True)
            elif verb == "update":
                records = {json_path for json_path in data.path.glob("*/*.json")}
                there = {path for path in records if path.with_suffix(".jpg").exists()}
                whole = {int(path.name.split("_")[0]) for path in there if path.read_text() != "{"}
                known = {r["prompt_index"] for r in rows}
                rejected = {
                    path for path in records if int(path.name.split("_")[0]) not in known | whole
                }
                ended = to_parquet(data.path, table, "--update")
                found = rows_of(table)
                assert found[: len(rows)] == rows and [r["idx"] for r in found] == list(
                    range(len(found))
                )
                assert [r["prompt_index"] for r in found[len(rows) :]] == sorted(whole - known)
                assert ended.status == (3 if rejected else 0), ended.err
                rows = found
                assert sorted(deleted(table)) == sorted(
                    r["__key__"] for r in rows if r["prompt_index"] not in whole
                )


def test_a_table_that_changes_while_it_is_copied_is_named(
    folder, to_parquet, tmp_path, monkeypatch
):
    data, path = folder().fill([1, 2], 2), tmp_path / "t.parquet"
    assert to_parquet(data.path, path).status == 0
    data.add(3)
    size_of = table.footer_size

    def cutting(file):
        size = size_of(file)
        if sys._getframe(1).f_code.co_name == "_copy_row_groups":
            os.truncate(path, 9)
        return size

    monkeypatch.setattr(table, "footer_size", cutting)
    ended = to_parquet(data.path, path, "--update")
    assert ended.status == 1 and "was changed while it was read" in ended.err
    assert path.stat().st_size == 9
