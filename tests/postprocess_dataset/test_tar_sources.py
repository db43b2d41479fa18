"""What the tars are made from.

Images that moved, are missing, torn or generated again, and tables of other hands.
"""

import json
import math
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postprocess_dataset import shard_images


def test_where_images_lie(folder, to_parquet, to_tars, tar_members, tmp_path):
    data = folder().fill([1], 2)
    assert to_parquet(data.path, tmp_path / "relative.parquet", "--relative").status == 0
    assert to_parquet(data.path, tmp_path / "absolute.parquet").status == 0
    (tmp_path / "new").mkdir()
    (tmp_path / "empty").mkdir()
    os.rename(
        data.path, tmp_path / "new" / "HPDv2"
    )  # then image_path is right relative to base_dir, or stale and the key leads there
    for kind in ("relative", "absolute"):
        assert to_tars(tmp_path / f"{kind}.parquet", tmp_path / "new", tmp_path / kind).status == 0
        assert len(tar_members(tmp_path / kind)) == 6
        ended = to_tars(tmp_path / f"{kind}.parquet", tmp_path / "empty", tmp_path / "none")
        assert (
            ended.status == 1
            and "is --base_dir right?" in ended.err
            and ended.err.count("\n") == 1
            and not list((tmp_path / "none").glob("*.tar"))
        )


def test_missing_truncated_and_changed_images(table, to_tars, tar_members, tmp_path, tree):
    data, path = table
    data.place(995, 0).with_suffix(".jpg").unlink()
    image = data.place(1000, 1).with_suffix(".jpg")
    image.write_bytes(image.read_bytes()[:-9])
    data.place(1006, 2).with_suffix(".jpg").write_bytes(data.image(1006, 2, "generated again"))
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert ended.status == 3 and "33 images" in ended.out and "3 left out" in ended.out
    assert (
        "left out HPDv2/000000/995_0: image is missing" in ended.err
        and "1000_1: image is not the one of the table's row (sha256 differs)" in ended.err
        and "1006_2" in ended.err
    )
    members = tar_members(tmp_path / "tars")
    assert len(members) == 99 and not [
        n for n in members if "995_0." in n or "1000_1." in n or "1006_2." in n
    ]
    first = tree(tmp_path / "tars")
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert (
        ended.status == 3 and "(0 written now)" in ended.out and tree(tmp_path / "tars") == first
    )  # still said
    data.add(995, 0)
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert (
        ended.status == 3
        and "(1 written now), 34 images" in ended.out
        and "2 left out" in ended.out
    )


def test_truncated_images_of_published_folders(folder, to_parquet, to_tars, tar_members, tmp_path):
    data = folder("flat", published=True).fill(range(4), 1)  # no sha256 there
    image = data.path / "2_0.jpg"
    image.write_bytes(image.read_bytes()[:-2])
    image = data.path / "3_0.jpg"
    image.write_bytes(b"\0\0" + image.read_bytes()[2:])
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    ended = to_tars(tmp_path / "t.parquet", data.path, tmp_path / "tars")
    assert (
        ended.status == 3
        and "flat/2_0: image is truncated" in ended.err
        and "flat/3_0: image is truncated or no JPEG" in ended.err
    )
    assert "seed" not in json.loads(tar_members(tmp_path / "tars")["flat/1_0.json"])


def test_tables_of_other_hands(table, to_tars, tar_members, tmp_path):
    """Filtered or enlarged by pandas: NaN, dates, categories, nested values, dots in keys; columns
    of ours may be missing.
    """
    import pandas

    _data, path = table
    frame = pandas.read_parquet(path)
    frame = (
        frame[frame.augmentation_idx == 0].drop(columns=["seed", "extra"]).reset_index(drop=True)
    )
    frame["score"], frame["day"], frame["kind"] = (
        [math.nan, *range(1, len(frame))],
        pandas.Timestamp("2026-02-03T04:05:06"),
        pandas.Categorical(["a"] * len(frame)),
    )
    frame["nested"], frame["__key__"] = (
        [{"x": [1, 2]}] * len(frame),
        [f"v1.0/p.{i}" for i in range(len(frame))],
    )
    frame.to_parquet(tmp_path / "other.parquet")
    assert to_tars(tmp_path / "other.parquet", tmp_path, tmp_path / "tars").status == 0
    members = tar_members(tmp_path / "tars")
    first, second = (
        json.loads(members[f"v1.0/p%2E{i}.json"], parse_constant=pytest.fail) for i in (0, 1)
    )
    assert (
        "score" not in first
        and second["score"] == 1
        and second["day"].startswith("2026-02-03T04:05:06")
        and second["kind"] == "a"
        and second["nested"] == {"x": [1, 2]}
    )
    frame[["image_path", "caption"]].to_parquet(tmp_path / "bare.parquet")
    assert to_tars(
        tmp_path / "bare.parquet", tmp_path, tmp_path / "bare"
    ).status == 0 and "000000003.jpg" in tar_members(tmp_path / "bare")
    frame.loc[3, "__key__"] = frame.loc[5, "__key__"]
    frame.to_parquet(tmp_path / "twice.parquet")
    ended = to_tars(tmp_path / "twice.parquet", tmp_path, tmp_path / "twice")
    assert (
        ended.status == 1
        and "occurs twice (rows 3 and 5)" in ended.err
        and not list((tmp_path / "twice").glob("*.tar"))
    )
    frame = frame.drop(index=3)
    frame.loc[5, "caption"], frame.loc[5, "augmented_prompt"], frame.loc[6, "__key__"] = (
        None,
        None,
        None,
    )
    frame.to_parquet(tmp_path / "holes.parquet")
    ended = to_tars(tmp_path / "holes.parquet", tmp_path, tmp_path / "holes")
    assert (
        ended.status == 3
        and "2 left out" in ended.out
        and ended.err.count("no key or no caption") == 2
    )


def test_image_path_comes_before_the_key(folder, to_parquet, to_tars, tar_members, tmp_path):
    """A table whose images were moved by hand: its image_path says where, although another file
    lies where the key leads.
    """
    data, path = folder("flat", published=True).fill([1, 2], 1), tmp_path / "t.parquet"
    assert to_parquet(data.path, path).status == 0
    rows, moved = pq.read_table(path), [data.image(prompt, 0, "moved") for prompt in (1, 2)]
    (tmp_path / "moved").mkdir()
    for n, image in enumerate(moved):
        (tmp_path / f"moved/{n}.jpg").write_bytes(image)
    at = rows.schema.get_field_index("image_path")
    pq.write_table(
        rows.set_column(at, "image_path", pa.array(["moved/0.jpg", f"{tmp_path}/moved/1.jpg"])),
        path,
    )
    assert to_tars(path, tmp_path, tmp_path / "tars").status == 0
    members = tar_members(tmp_path / "tars")
    assert [members["flat/1_0.jpg"], members["flat/2_0.jpg"]] == moved


def test_numbers_that_json_does_not_know(table, to_tars, tar_members, tmp_path):
    """NaN and infinities of other hands' columns are left out like nulls: `datasets` would take
    five nulls for the column's type.
    """
    import datasets

    _data, path = table
    rows = pq.read_table(path)
    scores = [math.nan] * 6 + [math.inf, -math.inf] + [0.5] * (rows.num_rows - 8)
    pq.write_table(
        rows.append_column("score", pa.array(scores)).append_column(
            "half", pa.array(scores, pa.float32())
        ),
        path,
    )
    assert to_tars(path, tmp_path, tmp_path / "tars").status == 0
    members = tar_members(tmp_path / "tars").items()
    records = [
        json.loads(content, parse_constant=pytest.fail)
        for name, content in members
        if name.endswith(".json")
    ]
    assert [record.get("score") for record in records] == [None] * 8 + [0.5] * (len(records) - 8)
    assert all("score" not in record and "half" not in record for record in records[:8])
    where = {
        "data_dir": str(tmp_path / "tars"),
        "data_files": "*.tar",
        "cache_dir": str(tmp_path / "cache"),
    }
    read = datasets.load_dataset("webdataset", split="train", **where)  # reads to the end
    assert read.num_rows == 36


def test_a_slow_disk_is_asked_for_sizes_by_several_threads(tmp_path, monkeypatch):
    for number in range(200):
        if number != 150:
            (tmp_path / f"{number}.jpg").write_bytes(bytes(number))
    places = [(None, str(number)) for number in range(200)]
    sizes = [None if number == 150 else number for number in range(200)]
    images = shard_images.Images(str(tmp_path))
    assert images.sizes(places) == sizes
    monkeypatch.setattr(shard_images, "COLD_S", 0)
    assert images.sizes(places) == sizes
