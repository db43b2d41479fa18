"""Which sample goes into which shard.

The same for one worker, many or partitions, after an update, split or shuffled.
"""

import json
import random
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def test_same_table_same_bytes(table, to_tars, process, tmp_path, tree):
    data, path = table
    for name, workers in (("one", 1), ("three", 3)):
        ended = process(
            "convert_parquet_to_wds",
            "--parquet_file",
            path,
            "--base_dir",
            data.path,
            "--output_dir",
            tmp_path / name,
            f"--num_workers={workers}",
        )
        assert ended.returncode == 0, ended.stderr
    assert (
        tree(tmp_path / "one") == tree(tmp_path / "three") and len(tree(tmp_path / "one")) == 4
    )  # tar, stats, plan, index: more workers than shards makes no empty one


def test_workers_share_the_shards(folder, to_parquet, process, tmp_path, tree):
    data = folder().fill(range(4), 1).heavier(400_000)  # so that real shards of 1 MB hold two
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    for name, workers in (("one", 1), ("two", 2)):
        args = [
            "--parquet_file",
            tmp_path / "t.parquet",
            "--base_dir",
            data.path,
            "--output_dir",
            tmp_path / name,
        ]
        ended = process(
            "convert_parquet_to_wds", *args, "--num_workers", workers, "--shard_size_mb", 1
        )
        assert ended.returncode == 0 and "2 shards (2 written now), 4 images" in ended.stdout
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert all(p.stat().st_size <= 10**6 for p in (tmp_path / "two").glob("*.tar"))


def test_partitions_equal_the_whole(table, to_tars, tmp_path, small_shards, tree):
    small_shards(5)
    data, path = table
    options = ["--shard_size_mb", 1, "--shuffle_seed", 9]
    assert to_tars(path, data.path, tmp_path / "whole", *options).status == 0
    for i in (2, 0):
        assert (
            to_tars(path, data.path, tmp_path / "parts", *options, "--part", f"{i}/3").status == 0
        )
    ended = to_tars(path, data.path, tmp_path / "parts", *options, "--part", "0/3", "--finish")
    assert (
        ended.status == 1
        and "3 of 8 shards are missing (output_dataset_000001.tar, " in ended.err
        and not (tmp_path / "parts/index.json").exists()
    )
    assert to_tars(path, data.path, tmp_path / "parts", *options, "--part", "1/3").status == 0
    assert (
        to_tars(path, data.path, tmp_path / "parts", *options, "--part", "0/3", "--finish").status
        == 0
    )
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--shuffle_seed", 3],
        ["--split", "train=0.7,val=0.3"],
        ["--split", "train=0.7,val=0.3", "--shuffle_seed", 3],
    ],
)
def test_after_an_update_only_what_is_new(
    table, to_parquet, to_tars, tar_members, rows_of, tmp_path, small_shards, tree, options
):
    small_shards(5)
    data, path = table
    options = ["--shard_size_mb", 1, *options]
    assert to_tars(path, data.path, tmp_path / "tars", *options).status == 0
    before = {p.name: (p.stat().st_ino, p.read_bytes()) for p in (tmp_path / "tars").glob("*.tar")}
    data.fill(range(1007, 1020), 3)
    data.place(1019, 2).with_suffix(".jpg").unlink()
    to_parquet(data.path, path, "--update")
    assert to_tars(path, data.path, tmp_path / "tars", *options).status == 0
    after = {p.name: (p.stat().st_ino, p.read_bytes()) for p in (tmp_path / "tars").glob("*.tar")}
    changed = [name for name in before if after[name] != before[name]]
    assert len(changed) <= (
        2 if "--split" in options else 1
    )  # a split's last one may not have been full
    assert to_tars(path, data.path, tmp_path / "fresh", *options).status == 0 and tree(
        tmp_path / "fresh"
    ) == tree(tmp_path / "tars")
    keys = {r["__key__"] for r in rows_of(path)}
    assert {n.rsplit(".", 1)[0] for n in tar_members(tmp_path / "tars")} == keys and len(keys) == 74
    data.place(1010, 1).with_suffix(".jpg").unlink()  # deleted, but in a shard already
    assert to_parquet(data.path, path, "--update").status == 3  # 1019_2 is still no sample
    data.fill([1500], 2)
    to_parquet(data.path, path, "--update")
    data.place(1500, 1).with_suffix(".json").unlink()
    to_parquet(data.path, path, "--update")
    ended = to_tars(path, data.path, tmp_path / "tars", *options)
    assert (
        ended.status == 0
        and "1 deleted" in ended.out
        and not [n for n in tar_members(tmp_path / "tars") if "1500_1." in n]
    )


def test_an_update_between_two_partitions(
    table, to_parquet, to_tars, tar_members, rows_of, tmp_path, small_shards
):
    """A partition leaves the shuffled rows for the others; a table that grew has other ones."""
    small_shards(5)
    data, path = table
    options = ["--shard_size_mb", 1, "--shuffle_seed", 3]
    assert (
        to_tars(path, data.path, tmp_path / "tars", *options, "--part", "0/2").status == 0
        and (tmp_path / "tars/.rows").exists()
    )
    data.fill(range(1007, 1012), 3)
    assert to_parquet(data.path, path, "--update").status == 0
    for part in (["--part", "1/2"], ["--part", "0/2"], ["--part", "0/2", "--finish"]):
        assert to_tars(path, data.path, tmp_path / "tars", *options, *part).status == 0
    assert {name.rsplit(".", 1)[0] for name in tar_members(tmp_path / "tars")} == {
        row["__key__"] for row in rows_of(path)
    }


def test_a_table_of_other_hands_that_has_grown(table, to_tars, tar_members, tmp_path, small_shards):
    """It says nothing of its generations: the rows that are in shards already keep their places
    all the same.
    """
    small_shards(5)
    data, path = table
    rows, options = (
        pq.read_table(path).replace_schema_metadata(),
        ["--shard_size_mb", 1, "--shuffle_seed", 3],
    )
    for count in (20, rows.num_rows):
        pq.write_table(rows.slice(0, count), tmp_path / "other.parquet")
        assert (
            to_tars(tmp_path / "other.parquet", data.path, tmp_path / "tars", *options).status == 0
        )
        assert len(tar_members(tmp_path / "tars")) == 3 * count


def test_a_plan_that_gets_shorter_leaves_no_old_shard(
    folder, to_parquet, to_tars, tar_members, tmp_path
):
    data, path = folder().fill(range(4), 1).heavier(400_000), tmp_path / "t.parquet"
    assert to_parquet(data.path, path).status == 0
    assert to_tars(path, tmp_path, tmp_path / "tars", "--shard_size_mb", 1).status == 0
    assert len(list((tmp_path / "tars").glob("*.tar"))) == 2
    for prompt in (2, 3):
        data.place(prompt, 0).with_suffix(".json").unlink()
    data.add(5)
    assert ", 2 deleted" in to_parquet(data.path, path, "--update").out
    data.place(5, 0).with_suffix(".jpg").unlink()
    ended = to_tars(path, tmp_path, tmp_path / "tars", "--shard_size_mb", 1)
    assert ended.status == 3 and "1 shard (" in ended.out
    left = [
        f"HPDv2/000000/{prompt}_0.{kind}" for prompt in (0, 1) for kind in ("jpg", "json", "txt")
    ]
    assert sorted(tar_members(tmp_path / "tars")) == left
    assert not (tmp_path / "tars/output_dataset_000001_stats.json").exists()


def test_a_prompt_s_side_is_for_ever():
    """Another order of the table, another release: what was validation stays so."""
    from postprocess_dataset.to_tars.row_order import side

    split = {"train": 0.5, "val": 0.5}
    assert [side(prompt, split) for prompt in ("a cat", "a dog", "ein Café", "")] == [
        "train",
        "val",
        "val",
        "val",
    ]


def test_split_and_shuffle(
    table, to_tars, tar_members, rows_of, tmp_path, monkeypatch, small_shards
):
    from postprocess_dataset.to_tars import row_order

    small_shards(4)
    monkeypatch.setattr(row_order, "BUCKET", 5)
    data, path = table
    rows = rows_of(path)
    assert (
        to_tars(
            path,
            data.path,
            tmp_path / "tars",
            "--shard_size_mb",
            1,
            "--split",
            "train=0.6,val=0.4",
            "--shuffle_seed",
            1,
        ).status
        == 0
    )
    sides = {
        name: [
            n[:-4]
            for n in tar_members(tmp_path / "tars", f"output_dataset_{name}")
            if n.endswith(".txt")
        ]
        for name in ("train", "val")
    }
    assert (
        sorted(sides["train"] + sides["val"]) == sorted(r["__key__"] for r in rows)
        and sides["train"]
        and sides["val"]
    )
    prompts = {
        name: {key.rsplit("/", 1)[1].split("_")[0] for key in keys} for name, keys in sides.items()
    }
    assert not prompts["train"] & prompts["val"]
    order = [r["__key__"] for r in rows]
    assert sides["train"] != [key for key in order if key in set(sides["train"])]  # shuffled
    index = json.loads((tmp_path / "tars/index_val.json").read_text())["shardlist"]
    assert sum(s["nsamples"] for s in index) == len(sides["val"]) and all(
        s["url"].startswith("output_dataset_val_") for s in index
    )
    assert not (tmp_path / "tars/.rows").exists()
    assert (
        to_tars(
            path, data.path, tmp_path / "seed2", "--shard_size_mb", 1, "--shuffle_seed", 2
        ).status
        == 0
    )
    assert (
        to_tars(
            path, data.path, tmp_path / "seed3", "--shard_size_mb", 1, "--shuffle_seed", 3
        ).status
        == 0
    )
    two, three = (
        [n[:-4] for n in tar_members(tmp_path / s) if n.endswith(".txt")]
        for s in ("seed2", "seed3")
    )
    assert (
        sorted(two) == sorted(three) == sorted(order)
        and len({tuple(two), tuple(three), tuple(order)}) == 3
    )


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32))
def test_rows_in_tar_order_are_the_rows(tmp_path, count, new, bucket, seed):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from postprocess_dataset.to_tars import row_order

    where = Path(tempfile.mkdtemp(dir=tmp_path))
    prompts = [f"p{random.Random(seed + i).randrange(9)}" for i in range(count + new)]
    files = [str(where / "t.parquet")]
    before, row_order.BUCKET = row_order.BUCKET, bucket
    try:
        orders = []
        for rows, generations in ((count, [count]), (count + new, [count, new])):
            pq.write_table(
                pa.table({"caption": prompts[:rows], "idx": range(rows)}),
                files[0],
                row_group_size=7,
            )
            found = row_order.ordered(
                files, generations, {"a": 0.5, "b": 0.3, "c": 0.2}, seed, str(where / f"rows{rows}")
            )
            orders.append(
                {name: pq.read_table(path[0]).to_pylist() for name, path in found.items()}
            )
    finally:
        row_order.BUCKET = before
    assert sorted(r["idx"] for rows in orders[1].values() for r in rows) == list(range(count + new))
    side_of = {}
    for name, rows in orders[1].items():
        assert (
            orders[0][name] == rows[: len(orders[0][name])]
        )  # after an update what was there stays first
        assert all(side_of.setdefault(r["caption"], name) == name for r in rows)
