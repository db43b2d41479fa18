"""`--part I/N` and `--finish`.

Partitions equal the whole, and a death anywhere costs only saying it again.
"""

import os
import resource
import shutil
from pathlib import Path

import pytest


def test_partitions_equal_the_whole(folder, to_parquet, rows_of, tmp_path):
    ours, flat = (
        folder("ours").fill([1, 999, 1000, 2500, 7001], 2),
        folder("flat", published=True, input_file="Alpha.json").fill([2, 1500, 3000], 2),
    )
    for name in ("cat", "dog"):
        for suffix in (".jpg", ".json"):
            (flat.path / f"{name}{suffix}").write_bytes((flat.path / f"2_0{suffix}").read_bytes())
    (ours.path / "000002" / "2500_1.json").write_text("{")
    os.unlink(flat.path / "1500_0.json")
    whole, table = tmp_path / "whole.parquet", tmp_path / "t.parquet"
    assert to_parquet(ours.path, flat.path, whole).status == 3
    folders = [ours.path, flat.path]
    for i in (2, 0, 3):
        to_parquet(*folders, table, "--part", f"{i}/4")
    ended = to_parquet(*folders, table, "--part", "0/4", "--finish")
    assert ended.status == 1 and "1 of 4 parts are missing: 1;" in ended.err and not table.exists()
    to_parquet(*folders, table, "--part", "1/4")
    ended = to_parquet(*folders, table, "--part", "0/4", "--finish")
    assert (
        ended.status == 3
        and rows_of(table) == rows_of(whole)
        and len(list(table.glob("*.parquet"))) == 4
    )
    listed = Path(f"{table}.rejects.jsonl").read_text().splitlines()
    assert listed == sorted(Path(f"{whole}.rejects.jsonl").read_text().splitlines())
    assert not Path(f"{table}.parts").exists()
    import datasets
    import pandas

    assert pandas.read_parquet(table)["idx"].tolist() == list(range(len(rows_of(whole))))
    assert len(
        datasets.load_dataset(
            "parquet", data_dir=str(table), split="train", cache_dir=str(tmp_path / "cache")
        )
    ) == len(rows_of(whole))
    (ours.path / "000002" / "2500_1.json").unlink()
    old = rows_of(table)
    ours.add(1, 5)
    ended = to_parquet(*folders, table, "--update")  # grows by a part file
    assert (
        ended.status == 0
        and rows_of(table)[:-1] == old
        and rows_of(table)[-1]["idx"] == len(old)
        and "1 of them new" in ended.out
    )
    assert "0 of them new" in to_parquet(*folders, table, "--update").out
    assert "directory of part files" in to_parquet(*folders, table, "--rebuild").err
    for i in range(2):  # again, over the old one
        to_parquet(*folders, table, "--part", f"{i}/2")
    assert to_parquet(*folders, table, "--part", "0/2", "--finish").status == 0
    assert to_parquet(*folders, whole, "--rebuild").status == 0 and rows_of(table) == rows_of(whole)


def test_die_anywhere_while_parts_are_put_together(folder, to_parquet, dying, rows_of, tmp_path):
    data, made, table = folder().fill([5, 1005], 2), tmp_path / "made", tmp_path / "run/t.parquet"
    (data.path / "000001" / "1005_1.json").write_text("{")
    for i in (0, 1):
        to_parquet(data.path, made / "t.parquet", "--part", f"{i}/2")
    finish = ["--part", "0/2", "--finish"]
    for n in range(100):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(made, tmp_path / "run")
        died = dying(n, "convert_json_to_parquet", data.path, table, *finish)
        ended = to_parquet(data.path, table, *finish)
        assert ended.status == 3 and "3 rows" in ended.out and "1 rejected" in ended.out, (
            n,
            ended.err,
        )
        assert [row["idx"] for row in rows_of(table)] == [0, 1, 2]
        assert sorted(path.name for path in table.parent.iterdir()) == [
            "t.parquet",
            "t.parquet.rejects.jsonl",
            "t.parquet.state",
        ]
        if died != -9:
            assert died == 3 and n > 10 and "put together before" in ended.out
            return


def test_a_table_comes_back_after_a_kill_between_two_names(folder, to_parquet, rows_of, tmp_path):
    """Also where the parts of the new one are not whole any more."""
    data, table = folder().fill([5, 1005], 2), tmp_path / "t.parquet"
    finish = (data.path, table, "--part", "0/2", "--finish")
    for i in (0, 1):
        to_parquet(data.path, table, "--part", f"{i}/2")
    assert to_parquet(*finish).status == 0
    to_parquet(data.path, table, "--part", "0/2")
    table.rename(tmp_path / ".t.parquet.old")
    ended = to_parquet(*finish)
    assert ended.status == 1 and "1 of 2 parts are missing" in ended.err
    assert len(rows_of(table)) == 4


def test_parts_of_another_data_set_are_not_put_together(folder, to_parquet, rows_of, tmp_path):
    """Two data sets beside each other: half of the one and half of the other is none."""
    birds, cats = (folder(name).fill([5, 1005], 2).path for name in ("birds", "cats"))
    table = tmp_path / "t.parquet"
    for i in (0, 1):
        to_parquet(birds, table, "--part", f"{i}/2")
    ended = to_parquet(cats, table, "--part", "0/2", "--finish")
    assert ended.status == 1 and "than were given now" in ended.err
    to_parquet(cats, table, "--part", "0/2")
    for given in (birds, cats):
        ended = to_parquet(given, table, "--part", "0/2", "--finish")
        assert ended.status == 1 and "different folders" in ended.err and not table.exists()
    to_parquet(cats, table, "--part", "1/2")
    assert to_parquet(cats, table, "--part", "0/2", "--finish").status == 0
    assert {row["__key__"].split("/")[0] for row in rows_of(table)} == {"cats"}


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))


@pytest.mark.parametrize("why", ["full", "gone"])
def test_an_earlier_part_does_not_stand_for_one_that_failed(
    folder, to_parquet, process, tmp_path, why
):
    data, table = folder().fill([5, 1005], 2), tmp_path / "t.parquet"
    for i in (0, 1):
        to_parquet(data.path, table, "--part", f"{i}/2")
    data.fill([7, 1007], 2)
    if why == "full":
        part = (data.path, table, "--part", "1/2")
        assert process("convert_json_to_parquet", *part, preexec_fn=small_files).returncode == 1
    else:
        assert to_parquet(tmp_path / "unmounted", table, "--part", "1/2").status == 1
    to_parquet(data.path, table, "--part", "0/2")
    ended = to_parquet(data.path, table, "--part", "0/2", "--finish")
    assert ended.status == 1 and "1 of 2 parts are missing: 1;" in ended.err
