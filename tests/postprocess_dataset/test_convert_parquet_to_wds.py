"""The tars: the very bytes of every image, readers that nobody here wrote, restarts, and every fault that widely used writers have."""

import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def table(folder, to_parquet, tmp_path):
    """(folder of 12 prompts × 3 images, its table)"""
    data = folder().fill(range(995, 1007), 3)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    return data, tmp_path / "t.parquet"


def small_shards(monkeypatch, samples=7):
    """Shards of a few samples, though --shard_size_mb counts in MB."""
    import shards

    monkeypatch.setattr(shards, "padded", lambda size: ((10**6 - 1024) // samples - 3 * 512) // 3)  # image, text, JSON


def tree(path):
    return {p.name: p.read_bytes() for p in Path(path).iterdir() if p.suffix in (".tar", ".json")}


def test_every_byte_of_every_image(table, to_tars, rows_of, tar_members, tmp_path, monkeypatch):
    small_shards(monkeypatch)
    data, path = table
    ended = to_tars(path, tmp_path, tmp_path / "tars", "--shard_size_mb", 1)
    assert ended.status == 0 and "6 shards (6 written now), 36 images" in ended.out and ended.err.count("output_dataset_0") == 6, ended.err
    members = tar_members(tmp_path / "tars")
    rows = rows_of(path)
    assert list(members) == [f"{r['__key__']}{suffix}" for r in rows for suffix in (".jpg", ".txt", ".json")]
    for row in rows:
        original = json.loads((tmp_path / f"{row['__key__']}.json").read_text())
        metadata = json.loads(members[f"{row['__key__']}.json"])
        assert members[f"{row['__key__']}.jpg"] == (tmp_path / f"{row['__key__']}.jpg").read_bytes()
        assert hashlib.sha256(members[f"{row['__key__']}.jpg"]).hexdigest() == metadata["image_sha256"]
        assert members[f"{row['__key__']}.txt"].decode() == original["augmented_prompt"]
        assert {k: metadata[k] for k in original if k in metadata and k != "image_path"} == {
            k: v for k, v in original.items() if v is not None and k != "image_path"
        }
    names = sorted(p.name for p in (tmp_path / "tars").iterdir())
    assert [n for n in names if n.endswith(".tar")] == [f"output_dataset_{i:06d}.tar" for i in range(6)] and not [
        n for n in names if n.startswith(".")
    ]
    index = json.loads((tmp_path / "tars/index.json").read_text())
    assert [(s["url"], s["nsamples"], s["filesize"]) for s in index["shardlist"]] == [
        (n, min(7, 36 - 7 * i), (tmp_path / "tars" / n).stat().st_size) for i, n in enumerate(n for n in names if n.endswith(".tar"))
    ]


def test_readers_that_nobody_here_wrote(table, to_tars, rows_of, tmp_path, monkeypatch):
    import datasets
    import webdataset
    import wids

    small_shards(monkeypatch)
    data, path = table
    assert to_tars(path, data.path, tmp_path / "tars", "--shard_size_mb", 1).status == 0
    rows, urls = rows_of(path), sorted(map(str, (tmp_path / "tars").glob("*.tar")))
    images = [(tmp_path / f"{r['__key__']}.jpg").read_bytes() for r in rows]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [(s["__key__"], s["jpg"], s["txt"].decode(), json.loads(s["json"])["seed"]) for s in found] == [
        (r["__key__"], image, r["caption"], r["seed"]) for r, image in zip(rows, images)
    ]
    indexed = wids.ShardListDataset(str(tmp_path / "tars/index.json"), cache_dir=str(tmp_path / "wids"), transformations=[])
    assert len(indexed) == 36 and [indexed[i][".jpg"].read() for i in (0, 17, 35)] == [images[i] for i in (0, 17, 35)]
    loaded = datasets.load_dataset("webdataset", data_files=urls, split="train", cache_dir=str(tmp_path / "cache")).cast_column(
        "jpg", datasets.Image(decode=False)
    )
    assert (
        loaded["__key__"][:] == [r["__key__"] for r in rows]
        and [s["bytes"] for s in loaded["jpg"]] == images
        and loaded["txt"][:] == [r["caption"] for r in rows]
    )
    assert [m.get("llm_model_name") for m in loaded["json"]] == [r["llm_model_name"] for r in rows]
    listed = subprocess.run(["tar", "tf", urls[0]], capture_output=True, text=True, check=True).stdout.splitlines()
    assert listed == [f"{r['__key__']}{suffix}" for r in rows[:7] for suffix in (".jpg", ".txt", ".json")]
    subprocess.run(["tar", "xf", urls[5], "-C", str(tmp_path / "wids")], check=True)
    assert (tmp_path / "wids" / f"{rows[35]['__key__']}.jpg").read_bytes() == images[35]


def test_null_in_the_first_samples_only(folder, to_parquet, to_tars, tmp_path):
    """`datasets` guesses columns from five samples and fails when a null turns into text later; so a field without a value is left out."""
    import datasets

    data = folder().fill(range(6), 1)
    data.add(6, llm_model_name="gemma2", gpu_name="H100")
    assert (
        to_parquet(data.path, tmp_path / "t.parquet").status == 0
        and to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars").status == 0
    )
    loaded = datasets.load_dataset(
        "webdataset", data_dir=str(tmp_path / "tars"), data_files="*.tar", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [m["prompt_index"] for m in loaded["json"]] == list(range(7)) and loaded[6]["json"]["gpu_name"] == "H100"


def test_same_table_same_bytes(table, to_tars, process, tmp_path, monkeypatch):
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


def test_workers_share_the_shards(folder, to_parquet, process, tmp_path):
    data = folder().fill(range(4), 1)
    for place in data.path.glob("*/*.jpg"):  # samples of 0.4 MB, so that real shards of 1 MB hold two
        image = place.read_bytes()[:-2] + os.urandom(400_000) + b"\xff\xd9"
        place.write_bytes(image)
        record = json.loads(place.with_suffix(".json").read_text())
        place.with_suffix(".json").write_text(json.dumps(record | {"image_sha256": hashlib.sha256(image).hexdigest()}))
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    for name, workers in (("one", 1), ("two", 2)):
        ended = process(
            "convert_parquet_to_wds",
            "--parquet_file",
            tmp_path / "t.parquet",
            "--base_dir",
            data.path,
            "--output_dir",
            tmp_path / name,
            "--num_workers",
            workers,
            "--shard_size_mb",
            1,
        )
        assert ended.returncode == 0 and "2 shards (2 written now), 4 images" in ended.stdout
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert all(p.stat().st_size <= 10**6 for p in (tmp_path / "two").glob("*.tar"))


def test_where_images_lie(folder, to_parquet, to_tars, tar_members, tmp_path):
    data = folder().fill([1], 2)
    assert to_parquet(data.path, tmp_path / "relative.parquet", "--relative").status == 0
    assert to_parquet(data.path, tmp_path / "absolute.parquet").status == 0
    (tmp_path / "new").mkdir()
    os.rename(data.path, tmp_path / "new" / "HPDv2")  # then image_path is right relative to base_dir, or stale and the key leads there
    for kind in ("relative", "absolute"):
        assert to_tars(tmp_path / f"{kind}.parquet", tmp_path / "new", tmp_path / kind).status == 0
        assert len(tar_members(tmp_path / kind)) == 6
        ended = to_tars(tmp_path / f"{kind}.parquet", tmp_path / "nowhere", tmp_path / "none")
        assert (
            ended.status == 1
            and "is --base_dir right?" in ended.err
            and ended.err.count("\n") == 1
            and not list((tmp_path / "none").glob("*.tar"))
        )


def test_missing_truncated_and_changed_images(table, to_tars, tar_members, tmp_path):
    data, path = table
    data.place(995, 0).with_suffix(".jpg").unlink()
    image = data.place(1000, 1).with_suffix(".jpg")
    image.write_bytes(image.read_bytes()[:-9])
    data.place(1006, 2).with_suffix(".jpg").write_bytes(data.image(1006, 2, "drawn again"))
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert ended.status == 3 and "33 images" in ended.out and "3 left out" in ended.out
    assert (
        "left out HPDv2/000000/995_0: image is missing" in ended.err
        and "1000_1: image is not the one its JSON tells of" in ended.err
        and "1006_2" in ended.err
    )
    members = tar_members(tmp_path / "tars")
    assert len(members) == 99 and not [n for n in members if "995_0." in n or "1000_1." in n or "1006_2." in n]
    first = tree(tmp_path / "tars")
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert ended.status == 3 and "(0 written now)" in ended.out and tree(tmp_path / "tars") == first  # still said
    data.add(995, 0)
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert ended.status == 3 and "(1 written now), 34 images" in ended.out and "2 left out" in ended.out


def test_truncated_images_of_published_folders(folder, to_parquet, to_tars, tar_members, tmp_path):
    data = folder("flat", published=True).fill(range(4), 1)  # no sha256 there
    image = data.path / "2_0.jpg"
    image.write_bytes(image.read_bytes()[:-2])
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    ended = to_tars(tmp_path / "t.parquet", ".", tmp_path / "tars")
    assert ended.status == 3 and "flat/2_0: image is truncated" in ended.err
    assert "seed" not in json.loads(tar_members(tmp_path / "tars")["flat/1_0.json"])


def test_exif_survives(folder, to_parquet, to_tars, tar_members, tmp_path):
    from PIL import Image

    data = folder("flat", published=True)
    place = data.add(1)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.new("RGB", (9, 9)).save(place.with_suffix(".jpg"), exif=exif)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0 and to_tars(tmp_path / "t.parquet", ".", tmp_path / "tars").status == 0
    assert tar_members(tmp_path / "tars")["flat/1_0.jpg"] == place.with_suffix(".jpg").read_bytes()


def test_tables_of_other_hands(table, to_tars, tar_members, tmp_path):
    """Filtered or enlarged by pandas: NaN, dates, categories, nested values, dots in keys; columns of ours may be missing."""
    import pandas

    data, path = table
    frame = pandas.read_parquet(path)
    frame = frame[frame.augmentation_idx == 0].drop(columns=["seed", "extra"]).reset_index(drop=True)
    frame["score"], frame["day"], frame["kind"] = (
        [math.nan, *range(1, len(frame))],
        pandas.Timestamp("2026-02-03T04:05:06"),
        pandas.Categorical(["a"] * len(frame)),
    )
    frame["nested"], frame["__key__"] = [{"x": [1, 2]}] * len(frame), [f"v1.0/p.{i}" for i in range(len(frame))]
    frame.to_parquet(tmp_path / "other.parquet")
    assert to_tars(tmp_path / "other.parquet", tmp_path, tmp_path / "tars").status == 0
    members = tar_members(tmp_path / "tars")
    first, second = (json.loads(members[f"v1.0/p%2E{i}.json"], parse_constant=pytest.fail) for i in (0, 1))
    assert (
        "score" not in first
        and second["score"] == 1
        and second["day"].startswith("2026-02-03T04:05:06")
        and second["kind"] == "a"
        and second["nested"] == {"x": [1, 2]}
    )
    frame[["image_path", "caption"]].to_parquet(tmp_path / "bare.parquet")
    assert to_tars(tmp_path / "bare.parquet", tmp_path, tmp_path / "bare").status == 0 and "000000003.jpg" in tar_members(tmp_path / "bare")
    frame.loc[3, "__key__"] = frame.loc[5, "__key__"]
    frame.to_parquet(tmp_path / "twice.parquet")
    ended = to_tars(tmp_path / "twice.parquet", tmp_path, tmp_path / "twice")
    assert ended.status == 1 and "stands twice (rows 3 and 5)" in ended.err and not list((tmp_path / "twice").glob("*.tar"))
    frame = frame.drop(index=3)
    frame.loc[5, "caption"], frame.loc[5, "augmented_prompt"], frame.loc[6, "__key__"] = None, None, None
    frame.to_parquet(tmp_path / "holes.parquet")
    ended = to_tars(tmp_path / "holes.parquet", tmp_path, tmp_path / "holes")
    assert ended.status == 3 and "2 left out" in ended.out and ended.err.count("no key or no caption") == 2


def test_foreign_shards_and_other_options_are_refused(table, to_tars, to_parquet, folder, tmp_path):
    data, path = table
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "output_dataset_000000.tar").write_bytes(b"x")
    ended = to_tars(path, data.path, tmp_path / "old")
    assert ended.status == 1 and "output_dataset_000000.tar" in ended.err and "another table" in ended.err
    assert to_tars(path, data.path, tmp_path / "tars").status == 0
    before = tree(tmp_path / "tars")
    other = folder("other").fill([1, 2], 20)
    assert to_parquet(other.path, tmp_path / "other.parquet").status == 0
    for args, says in (
        ((tmp_path / "other.parquet", other.path), "another table"),
        ((path, data.path, "--shard_size_mb", 7), "--shard_size_mb 500"),
        ((path, data.path, "--shuffle_seed", 1), "--shuffle_seed None"),
        ((path, data.path, "--split", "a=0.5,b=0.5"), "--split None"),
    ):
        ended = to_tars(args[0], args[1], tmp_path / "tars", *args[2:])
        assert ended.status == 1 and says in ended.err and ended.err.count("\n") == 1 and tree(tmp_path / "tars") == before
    data.place(995, 0).with_suffix(".json").unlink()
    assert to_parquet(data.path, path, "--rebuild").status == 0
    assert "another table" in to_tars(path, data.path, tmp_path / "tars").err and tree(tmp_path / "tars") == before


@pytest.mark.parametrize(
    "args, says",
    [
        (["--split", "a=0.5"], "shares that make 1"),
        (["--split", "a=0.5,a=0.5"], "shares"),
        (["--split", "nonsense"], "shares"),
        (["--num_workers", "0"], "--num_workers"),
        (["--shard_size_mb", "-1"], "--shard_size_mb"),
        (["--part", "4/4"], "--part"),
        (["--finish"], "--part 0/N"),
        (["--shufle_seed", "1"], "--shuffle_seed"),
    ],
)
def test_usage_is_one_line(to_tars, tmp_path, args, says):
    ended = to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars", *args)
    assert ended.status == 2 and says in ended.err and ended.err.count("\n") == 1 and not (tmp_path / "tars").exists()


def test_no_table(to_tars, tmp_path):
    ended = to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars")
    assert ended.status == 1 and "no such table" in ended.err and ended.err.count("\n") == 1
    (tmp_path / "t.parquet").write_bytes(b"not parquet at all")
    ended = to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars")
    assert ended.status == 1 and ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "options", [[], ["--shuffle_seed", 3], ["--split", "train=0.7,val=0.3"], ["--split", "train=0.7,val=0.3", "--shuffle_seed", 3]]
)
def test_after_an_update_only_what_is_new(table, to_parquet, to_tars, tar_members, rows_of, tmp_path, monkeypatch, options):
    small_shards(monkeypatch, 5)
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
    assert len(changed) <= (2 if "--split" in options else 1)  # a split's last one may not have been full
    assert to_tars(path, data.path, tmp_path / "fresh", *options).status == 0 and tree(tmp_path / "fresh") == tree(tmp_path / "tars")
    keys = {r["__key__"] for r in rows_of(path)}
    assert {n.rsplit(".", 1)[0] for n in tar_members(tmp_path / "tars")} == keys and len(keys) == 74
    data.place(1010, 1).with_suffix(".jpg").unlink()  # gone, but in a shard already
    assert to_parquet(data.path, path, "--update").status == 3  # 1019_2 is still no sample
    data.fill([1500], 2)
    to_parquet(data.path, path, "--update")
    data.place(1500, 1).with_suffix(".json").unlink()
    to_parquet(data.path, path, "--update")
    ended = to_tars(path, data.path, tmp_path / "tars", *options)
    assert ended.status == 0 and "1 gone" in ended.out and not [n for n in tar_members(tmp_path / "tars") if "1500_1." in n]


def test_split_and_shuffle(table, to_tars, tar_members, rows_of, tmp_path, monkeypatch):
    import row_order

    small_shards(monkeypatch, 4)
    monkeypatch.setattr(row_order, "PILE", 5)
    data, path = table
    rows = rows_of(path)
    assert (
        to_tars(path, data.path, tmp_path / "tars", "--shard_size_mb", 1, "--split", "train=0.6,val=0.4", "--shuffle_seed", 1).status == 0
    )
    sides = {
        name: [n[:-4] for n in tar_members(tmp_path / "tars", f"output_dataset_{name}") if n.endswith(".txt")] for name in ("train", "val")
    }
    assert sorted(sides["train"] + sides["val"]) == sorted(r["__key__"] for r in rows) and sides["train"] and sides["val"]
    prompts = {name: {key.rsplit("/", 1)[1].split("_")[0] for key in keys} for name, keys in sides.items()}
    assert not prompts["train"] & prompts["val"]
    order = [r["__key__"] for r in rows]
    assert sides["train"] != [key for key in order if key in set(sides["train"])]  # shuffled
    index = json.loads((tmp_path / "tars/index_val.json").read_text())["shardlist"]
    assert sum(s["nsamples"] for s in index) == len(sides["val"]) and all(s["url"].startswith("output_dataset_val_") for s in index)
    assert not (tmp_path / "tars/.rows").exists()
    assert to_tars(path, data.path, tmp_path / "seed2", "--shard_size_mb", 1, "--shuffle_seed", 2).status == 0
    assert to_tars(path, data.path, tmp_path / "seed3", "--shard_size_mb", 1, "--shuffle_seed", 3).status == 0
    two, three = ([n[:-4] for n in tar_members(tmp_path / s) if n.endswith(".txt")] for s in ("seed2", "seed3"))
    assert sorted(two) == sorted(three) == sorted(order) and len({tuple(two), tuple(three), tuple(order)}) == 3


def test_pieces_equal_the_whole(table, to_tars, tmp_path, monkeypatch):
    small_shards(monkeypatch, 5)
    data, path = table
    options = ["--shard_size_mb", 1, "--shuffle_seed", 9]
    assert to_tars(path, data.path, tmp_path / "whole", *options).status == 0
    for i in (2, 0):
        assert to_tars(path, data.path, tmp_path / "parts", *options, "--part", f"{i}/3").status == 0
    ended = to_tars(path, data.path, tmp_path / "parts", *options, "--part", "0/3", "--finish")
    assert (
        ended.status == 1
        and "3 of 8 shards are missing (output_dataset_000001.tar, " in ended.err
        and not (tmp_path / "parts/index.json").exists()
    )
    assert to_tars(path, data.path, tmp_path / "parts", *options, "--part", "1/3").status == 0
    assert to_tars(path, data.path, tmp_path / "parts", *options, "--part", "0/3", "--finish").status == 0
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_die_anywhere(folder, to_parquet, to_tars, dying, tmp_path):
    data = folder().fill(range(6), 1)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    args = ["--split", "a=0.5,b=0.5"]
    assert to_tars(tmp_path / "t.parquet", data.path, tmp_path / "whole", *args).status == 0
    whole, died = tree(tmp_path / "whole"), 0
    for n in range(500):
        status = dying(
            n,
            "convert_parquet_to_wds",
            "--parquet_file",
            tmp_path / "t.parquet",
            "--base_dir",
            data.path,
            "--output_dir",
            tmp_path / "tars",
            *args,
            "--num_workers",
            1,
        )
        for tar in (tmp_path / "tars").glob("*.tar"):
            assert tar.read_bytes() == whole[tar.name]  # under its name only when whole
        if status == 0:
            break
        died += 1
        if n % 3 == 2:  # otherwise the next run goes on from what this one left
            shutil.rmtree(tmp_path / "tars")
    assert died > 20 and tree(tmp_path / "tars") == whole and not list((tmp_path / "tars").glob(".*"))


@pytest.fixture
def heavy(folder, to_parquet, tmp_path):
    """40 samples of 0.3 MB and their table: shards of 1 MB take a moment."""
    data = folder().fill(range(40), 1)
    for place in data.path.glob("*/*.jpg"):
        image = place.read_bytes()[:-2] + bytes(300_000) + b"\xff\xd9"
        place.write_bytes(image)
        record = json.loads(place.with_suffix(".json").read_text())
        place.with_suffix(".json").write_text(json.dumps(record | {"image_sha256": hashlib.sha256(image).hexdigest()}))
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    return data, tmp_path / "t.parquet"


def test_sigkill_of_a_real_run_with_workers(heavy, process, to_tars, tmp_path):
    data, path = heavy
    script = Path(__file__).resolve().parents[2] / "postprocess_dataset/convert_parquet_to_wds.py"
    args = [
        "--parquet_file",
        tmp_path / "t.parquet",
        "--base_dir",
        data.path,
        "--output_dir",
        tmp_path / "tars",
        "--num_workers",
        2,
        "--shard_size_mb",
        1,
    ]
    for _ in range(2):
        run = subprocess.Popen([sys.executable, script, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        had = len(list((tmp_path / "tars").glob("*.tar"))) if (tmp_path / "tars").exists() else 0
        while run.poll() is None and time.monotonic() < until and len(list((tmp_path / "tars").glob("*.tar"))) <= had:
            time.sleep(0.001)
        workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(run.pid)], capture_output=True, text=True).stdout.split()
        run.send_signal(signal.SIGKILL)  # of the parent alone: its workers must not go on as orphans
        run.wait()
        until = time.monotonic() + 30
        while (
            any(os.path.exists(f"/proc/{pid}") and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" for pid in workers)
            and time.monotonic() < until
        ):
            time.sleep(0.01)
        assert not any(os.path.exists(f"/proc/{pid}") and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" for pid in workers)
        for path in (tmp_path / "tars").glob("*.tar"):
            with tarfile.open(path) as tar:
                assert len(tar.getnames()) % 3 == 0
    assert process("convert_parquet_to_wds", *args).returncode == 0
    assert to_tars(tmp_path / "t.parquet", data.path, tmp_path / "whole", "--shard_size_mb", 1).status == 0 and tree(
        tmp_path / "tars"
    ) == tree(tmp_path / "whole")


def test_control_c(heavy, process, tmp_path):
    data, path = heavy
    script = Path(__file__).resolve().parents[2] / "postprocess_dataset/convert_parquet_to_wds.py"
    args = ["--parquet_file", path, "--base_dir", data.path, "--output_dir", tmp_path / "tars", "--num_workers", 2, "--shard_size_mb", 1]
    run = subprocess.Popen([sys.executable, script, *map(str, args)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while run.poll() is None and not list((tmp_path / "tars").glob("*_stats.json")):
        time.sleep(0.001)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of them
    said = run.communicate(timeout=60)[1]
    assert run.returncode in (0, 130) and "Traceback" not in said and (run.returncode == 0 or "interrupted" in said)
    assert process("convert_parquet_to_wds", *args).returncode == 0


def test_a_table_replaced_meanwhile(table, to_tars, tmp_path, monkeypatch):
    import shards
    import table as table_module

    data, path = table
    write = shards.write_shard

    def replaced(*args):
        stats = write(*args)
        monkeypatch.setattr(table_module, "identity", lambda path: "another")
        return stats

    monkeypatch.setattr(shards, "write_shard", replaced)
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert ended.status == 1 and "was replaced while" in ended.err and not list((tmp_path / "tars").glob("*_stats.json"))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300), st.text("abc/", min_size=1, max_size=300)
    ),
    st.one_of(st.integers(0, 2**20), st.integers(8**11 - 2, 8**11 + 2)),
)
def test_headers_are_the_standard_library_s(name, size):
    import shards

    member = tarfile.TarInfo(name)
    member.size = size
    assert shards.header(name, size) == member.tobuf(tarfile.PAX_FORMAT)


def test_long_and_foreign_names(folder, to_parquet, to_tars, tar_members, tmp_path):
    import webdataset

    name = "ein ziemlich langer Name über vieles " * 5
    for deep in ("x" * 120 + "/" + "y" * 90, name):
        data = folder(f"{deep}/HPDv2", published=True)
        data.add(1)
    assert to_parquet(tmp_path / ("x" * 120), tmp_path / name, tmp_path / "t.parquet").status == 0
    assert to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars").status == 0
    keys = [s["__key__"] for s in webdataset.WebDataset(str(tmp_path / "tars/output_dataset_000000.tar"), shardshuffle=False)]
    assert sorted(keys) == sorted([f"{'x' * 120}/{'y' * 90}/HPDv2/1_0", f"{name}/HPDv2/1_0"]) and len(tar_members(tmp_path / "tars")) == 6


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32))
def test_rows_in_tar_order_are_the_rows(tmp_path, count, new, pile, seed):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import row_order

    where = Path(tempfile.mkdtemp(dir=tmp_path))
    prompts = [f"p{random.Random(seed + i).randrange(9)}" for i in range(count + new)]
    files = [str(where / "t.parquet")]
    before, row_order.PILE = row_order.PILE, pile
    try:
        orders = []
        for rows, generations in ((count, [count]), (count + new, [count, new])):
            pq.write_table(pa.table({"caption": prompts[:rows], "idx": range(rows)}), files[0], row_group_size=7)
            found = row_order.ordered(files, generations, {"a": 0.5, "b": 0.3, "c": 0.2}, seed, str(where / f"rows{rows}"))
            orders.append({name: pq.read_table(path[0]).to_pylist() for name, path in found.items()})
    finally:
        row_order.PILE = before
    assert sorted(r["idx"] for rows in orders[1].values() for r in rows) == list(range(count + new))
    side_of = {}
    for name, rows in orders[1].items():
        assert orders[0][name] == rows[: len(orders[0][name])]  # after an update what was there stays first
        assert all(side_of.setdefault(r["caption"], name) == name for r in rows)
