"""What is no folder, no table or no sample as we write them.

One line that names it, and the good data is not lost.
"""

import datetime
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TORN = b"PAR1" + bytes(40) + b"\x10\0\0\0PAR1"


@pytest.mark.parametrize(
    "content", [b"", b"garbage, garbage", TORN], ids=["empty", "garbage", "torn"]
)
def test_a_table_that_is_none(folder, process, tmp_path, content):
    data, path = folder().fill([1]), tmp_path / "t.parquet"
    path.write_bytes(content)
    for ended in (
        process("convert_json_to_parquet", data.path, path),
        process("convert_json_to_parquet", data.path, path, "--update"),
        process(
            "convert_parquet_to_wds", "--parquet_file", path, "--output_dir", tmp_path / "tars"
        ),
    ):
        assert (
            ended.returncode == 1
            and f"{path} cannot be read as a parquet file" in ended.stderr
            and ended.stderr.count("\n") == 1
        )
    assert path.read_bytes() == content


def test_a_torn_table(table, process, tmp_path):
    data, path = table
    path.write_bytes(path.read_bytes()[:-100])
    ended = process(
        "convert_parquet_to_wds",
        "--parquet_file",
        path,
        "--base_dir",
        data.path,
        "--output_dir",
        tmp_path / "tars",
    )
    assert (
        ended.returncode == 1
        and f"{path} cannot be read as a parquet file" in ended.stderr
        and ended.stderr.count("\n") == 1
    )


def test_a_table_without_rows(table, to_tars, tmp_path):
    data, path = table
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert (
        ended.status == 1
        and f"{path}: the table has no rows" in ended.err
        and not list((tmp_path / "tars").glob("*.json"))
    )


def test_parts_without_a_sample(folder, to_parquet, tmp_path):
    data, path = folder(), tmp_path / "t.parquet"
    place = data.add(1)
    place.with_suffix(".json").write_text("{")
    for i in (0, 1):
        assert to_parquet(data.path, path, "--part", f"{i}/2").status == (3 if i == 0 else 0)
    ended = to_parquet(data.path, path, "--part", "0/2", "--finish")
    assert (
        ended.status == 1
        and "no good sample in 2 parts; 1 rejected" in ended.err
        and not path.exists()
    )
    assert (
        json.loads((tmp_path / "t.parquet.rejects.jsonl").read_text())["json"]
        == "HPDv2/000000/1_0.json"
    )
    data.add(1)
    for i in (0, 1):
        assert to_parquet(data.path, path, "--part", f"{i}/2").status == 0
    assert to_parquet(data.path, path, "--part", "0/2", "--finish").status == 0


def test_a_folder_that_is_not_utf8(folder, process, to_parquet, rows_of, tmp_path):
    data = folder().fill([1, 2])
    odd = os.fsencode(data.path) + b"/caf\xe9"
    shutil.copytree(os.fsencode(data.path / "000000"), odd)
    ended = process("convert_json_to_parquet", data.path, tmp_path / "t.parquet")
    assert (
        ended.returncode == 3
        and "its name is not UTF-8" in ended.stderr
        and "Traceback" not in ended.stderr
    )
    assert len(rows_of(tmp_path / "t.parquet")) == 4 and "1 rejected" in ended.stdout
    shutil.move(odd, os.fsencode(tmp_path) + b"/caf\xe9")
    ended = to_parquet(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"), tmp_path / "odd.parquet")
    assert (
        ended.status == 1
        and "its name is not UTF-8" in ended.err
        and not (tmp_path / "odd.parquet").exists()
    )


def test_a_sample_whose_name_is_not_utf8_is_left_out_by_all(folder, process, tmp_path):
    """The converter's own list of it is read back by the next step."""
    data, table = folder().fill([1, 2], 1), tmp_path / "t.parquet"
    for suffix in (b".json", b".jpg"):
        (data.path / "000000" / os.fsdecode(b"\xff" + suffix)).write_bytes(b"{}")
    assert process("convert_json_to_parquet", data.path, table).returncode == 3
    assert process("convert_json_to_parquet", data.path, table, "--update").returncode == 3
    report = process("make_report", table, tmp_path / "r.html")
    assert report.returncode == 0, report.stderr
    scored = process("score_images", data.path, tmp_path / "scores", "--scores", "sharpness")
    assert scored.returncode == 3 and "name is not UTF-8" in scored.stdout, scored.stderr
    assert "2 images scored" in scored.stdout + scored.stderr


@pytest.mark.parametrize("letter", ["\n", "\x1b", "\u202e", "\x7f"])
def test_a_folder_whose_name_nobody_sees(folder, rows_of, to_parquet, tmp_path, letter):
    """Its name would stand in keys and in the tars' members."""
    data = folder().fill([1, 2])
    shutil.copytree(data.path / "000000", data.path / f"a{letter}b")
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and "characters that nobody sees" in ended.err
    assert len(rows_of(tmp_path / "t.parquet")) == 4


def test_a_folder_below_the_root(folder, to_parquet, tmp_path, monkeypatch):
    """/data in a container: the base folder is then "/"."""
    from postprocess_dataset.to_table import build_table

    data = folder().fill([1, 1001])
    place = os.path.relpath(data.path, "/")
    monkeypatch.setattr(build_table, "base_of", lambda *args: "/")
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    shutil.rmtree(data.path / "000001")
    assert ", 2 deleted" in to_parquet(data.path, tmp_path / "t.parquet", "--update").out
    deleted = [
        json.loads(line)["__key__"]
        for line in (tmp_path / "t.parquet.gone.jsonl").read_text().splitlines()
    ]
    assert deleted == [f"{place}/000001/1001_0", f"{place}/000001/1001_1"]


def test_values_that_json_does_not_know(table, process, tar_members, tmp_path):
    """Nanoseconds as older pandas writes them, bytes, durations: in a real process, where pyarrow
    finds no pandas.
    """
    _data, path = table
    rows = pq.read_table(path)
    n = rows.num_rows
    rows = rows.append_column(
        "nanoseconds", pa.array([1_700_000_000_123_456_789] * n, pa.timestamp("ns"))
    )
    rows = rows.append_column("zone", pa.array([1_700_000_000] * n, pa.timestamp("s", "UTC")))
    rows = rows.append_column("day", pa.array([datetime.date(2026, 2, 3)] * n)).append_column(
        "raw", pa.array([b"\xff\x00"] * n)
    )
    pq.write_table(rows.append_column("took", pa.array([datetime.timedelta(seconds=90)] * n)), path)
    ended = process(
        "convert_parquet_to_wds",
        "--parquet_file",
        path,
        "--base_dir",
        tmp_path,
        "--output_dir",
        tmp_path / "tars",
    )
    assert ended.returncode == 0, ended.stderr
    record = json.loads(tar_members(tmp_path / "tars")["HPDv2/000000/995_0.json"])
    assert datetime.datetime.fromisoformat(record["nanoseconds"]) == datetime.datetime(
        2023, 11, 14, 22, 13, 20, 123456
    )
    assert datetime.datetime.fromisoformat(record["zone"]).timestamp() == 1_700_000_000
    assert (record["day"], record["raw"], record["took"]) == ("2026-02-03", "ff00", "0:01:30")


def test_keys_named_like_the_table_s_own(folder, to_parquet, to_tars, tar_members, tmp_path):
    data = folder()
    data.add(1, idx=99, subdirectory="elsewhere", caption="mine", mood="calm")
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    assert to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars").status == 0
    record = json.loads(tar_members(tmp_path / "tars")["HPDv2/000000/1_0.json"])
    assert (record["idx"], record["subdirectory"], record["caption"], record["mood"]) == (
        0,
        "HPDv2/000000",
        "mine",
        "calm",
    )


def test_generated_again_after_the_table(table, to_parquet, to_tars, tmp_path):
    data, path = table
    image = data.image(1000, 1, tag="again")
    data.place(1000, 1).with_suffix(".jpg").write_bytes(image)
    data.place(1000, 1).with_suffix(".json").write_text(json.dumps(data.record(1000, 1, image)))
    ended = to_tars(path, tmp_path, tmp_path / "tars")
    assert (
        ended.status == 3
        and "1000_1: image is not the one of the table's row" in ended.err
        and "--rebuild the table" in ended.err
    )
    assert to_parquet(data.path, path, "--rebuild").status == 0
    assert to_tars(path, tmp_path, tmp_path / "anew").status == 0


def test_tars_inside_a_dataset_folder(table, to_parquet, to_tars, tmp_path):
    data, path = table
    assert to_tars(path, tmp_path, data.path / "tars").status == 0
    ended = to_parquet(data.path, path)
    assert (
        ended.status == 0 and "HPDv2/tars: holds tars made here, no samples; skipped" in ended.err
    )
    assert "36 rows; 0 rejected, 0 images without JSON" in ended.out


@pytest.mark.parametrize("place", ["", "000001"])
def test_a_plan_of_tars_among_samples_hides_none(folder, to_parquet, tmp_path, place):
    data, path = folder().fill([5, 1005], 2), tmp_path / "t.parquet"
    assert to_parquet(data.path, path).status == 0
    (data.path / place / "output_dataset_plan.json").write_text("{}")
    ended = to_parquet(data.path, path, "--update")
    assert ended.status == 3 and "deleted" not in ended.out and "1 rejected" in ended.out
    ended = to_parquet(data.path, path, "--rebuild")
    assert ended.status == 3 and "4 rows; 1 rejected" in ended.out
