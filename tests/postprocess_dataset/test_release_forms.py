"""make_release_forms.py: two forms of the same rows, nothing private in either, resumable."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postprocess_dataset import hub_features
from postprocess_dataset.manifest.hashed import HashedWriter
from postprocess_dataset.manifest.shards import ShardSample, read_shard
from postprocess_dataset.private_fields import without_folders
from postprocess_dataset.release_forms import parquet_shards, public_rows
from tests.postprocess_dataset.conftest import called

SMALL = ("--shard_size_mb", 1)  # with small_shards()


def forms(table, release, *options):
    ended = called("make_release_forms", [table, release, "--num_workers", 1, *options])
    assert ended.status == 0, ended.err
    return ended


def tar_rows(release, split="train"):
    """[(key, image, caption, metadata)] of the tars of a split."""
    return [
        sample
        for path in sorted(Path(release).glob(f"webdataset/{split}-*.tar"))
        for sample in read_shard(str(path))
    ]


def parquet_rows(release, split="train", folder="data"):
    return [
        row
        for path in sorted(Path(release).glob(f"{folder}/{split}-*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def tree(release):
    """{path: bytes} of all that a release folder holds."""
    found = Path(release).rglob("*")
    return {str(p.relative_to(release)): p.read_bytes() for p in found if p.is_file()}


def test_both_forms_hold_the_same_rows_in_the_same_order(table, tmp_path, small_shards, rows_of):
    _, path = table
    small_shards(samples=7)
    release = tmp_path / "release"
    forms(path, release, *SMALL, "--split", "train=0.7,val=0.3", "--shuffle_seed", 5)
    assert len(list(release.glob("webdataset/train-*.tar"))) > 2
    wanted = {row["__key__"]: row for row in rows_of(path)}
    keys = []
    for split in ("train", "val"):
        tars = tar_rows(release, split)
        rows = parquet_rows(release, split)
        assert [sample.key for sample in tars] == [row["__key__"] for row in rows] and tars
        for sample, row in zip(tars, rows, strict=True):
            image = (tmp_path / f"{sample.key}.jpg").read_bytes()
            assert sample.image == row["image"]["bytes"] == image
            assert sample.caption == row["caption"] == wanted[sample.key]["caption"]
            assert sample.metadata["split"] == row["split"] == split
            for name in ("prompt_index", "source", "seed", "width", "llm_model_name", "idx"):
                assert row[name] == wanted[sample.key][name]
                assert sample.metadata.get(name) == wanted[sample.key][name]
        keys += [sample.key for sample in tars]
    assert sorted(keys) == sorted(wanted)
    assert keys != [row["__key__"] for row in rows_of(path)]  # shuffled
    index = json.loads((release / "webdataset" / "index.json").read_text())["shardlist"]
    assert sum(shard["nsamples"] for shard in index) == len(wanted)
    for shard in index:
        tar = release / "webdataset" / shard["url"]
        assert tar.stat().st_size == shard["filesize"] and tar.stat().st_nlink == 2


WEB = [None, "kept", None, "https://example.org/a/b"]
FEW = [None, None, "1.2.3", "https://x.org/u@1"]


def test_nothing_private_is_published(folder, to_parquet, tmp_path):
    data = folder()
    data.add(
        1,
        model_name="/home/alice/models/own",
        image_path=str(tmp_path / "HPDv2" / "000000" / "1_0.jpg"),
        gpu_uuid="GPU-7d1f",
        site={"node_name": "bob-node", "place": "/scratch/alice", "shelf": 3},
        notes=["/home/alice/x", "kept", "see /home/alice/z", "https://example.org/a/b"],
        **{"/home/alice/key": 7},
        gpu_name="/home/alice/gpu",
        scheduler="as in ~/alice/own.py",
        negative_prompt="and/or, /imagine",
        lora=["org/fast@1:0.8", "/home/alice/l.safetensors@2:1.0"],
        source=["/home/alice/birds.json"],
        user_name="carol",
        email="carol",
        more={"cwd": "carol", "a": "carol@b.org", "b": "see 10.1.2.3:80", "c": "hf_" + "carol" * 6},
        few=["../../carol", "%2Fhome%2Fcarol", "1.2.3", "https://x.org/u@1"],
    )
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    release = tmp_path / "release"
    forms(tmp_path / "t.parquet", release)
    together = b"".join(tree(release).values())
    private = (
        "node1",
        "/home/alice",
        "~/alice",
        "/scratch",
        "GPU-7d1f",
        "bob-node",
        "3-12",
        str(tmp_path),
        "carol",
    )
    assert [word for word in private if word.encode() in together] == []
    (row,) = parquet_rows(release)
    assert row["model_name"] == "own" and row["image_path"] == "HPDv2/000000/1_0.jpg"
    assert json.loads(row["extra"]) == {"site": {"shelf": 3}, "notes": WEB, "more": {}, "few": FEW}
    assert row["lora"] == ["org/fast@1:0.8", "l.safetensors@2:1.0"]
    assert row["source"] == ["birds.json"]
    assert row["gpu_name"] is None and row["negative_prompt"] == "and/or, /imagine"
    (sample,) = tar_rows(release)
    assert sample.metadata["site"] == {"shelf": 3} and "hostname" not in sample.metadata
    forms(tmp_path / "t.parquet", tmp_path / "all", "--keep_private")
    assert parquet_rows(tmp_path / "all")[0]["hostname"] == "node1"


NESTED = {
    "bytes": (b"/home/alice/x", pa.binary()),
    "struct": ({"place": "/home/alice/x", "user": "alice"}, None),
    "structs": ([{"place": "/home/alice/x"}], None),
    "lists": ([["/home/alice/x", "alice@b"]], None),
    "map": ([("/home/alice/x", 1)], pa.map_(pa.string(), pa.int64())),
    "map of names": ([("user", "alice"), ("n", "1")], pa.map_(pa.string(), pa.string())),
    "latin": ("/home/é/alice".encode("latin1"), pa.binary()),
    "wide": ("/home/alice/x".encode("utf-16"), pa.binary()),
    "named": ({"/home/alice": 1, "user": 2}, None),
    "/home/alice/notes": (1, None),
    "coded": (b"/home/alice/x", pa.dictionary(pa.int8(), pa.binary())),
}


def test_further_fields_of_many_levels_are_left_out(table, tmp_path):
    """orjson reads 1,024 levels, and writes 254."""
    rows = pq.read_table(table[1])
    deep = [level * '{"a":' + "1" + level * "}" for level in (1, 300, 1000)]
    extra = pa.array([*deep, *[None] * (len(rows) - len(deep))], pa.string())
    names = rows.schema.names
    rows = (
        rows.set_column(names.index("extra"), "extra", extra)
        if "extra" in names
        else (rows.append_column("extra", extra))
    )
    pq.write_table(rows, tmp_path / "deep.parquet")
    release = tmp_path / "release"
    forms(tmp_path / "deep.parquet", release, "--base_dir", table[0].path.parent)
    found = [row.get("extra") for row in parquet_rows(release)]
    assert [extra for extra in found if extra] == ['{"a":1}'] and len(found) == len(rows)


def test_nothing_private_of_nested_columns_is_published(table, tmp_path):
    rows = pq.read_table(table[1])
    for name, (value, kind) in NESTED.items():
        rows = rows.append_column(name, pa.array([value] * len(rows), kind))
    found = {"labels": ["/imagine a cat", "dog"], "boxes": [1, 2]}
    kept = {
        "hash": [b"\xff\x00\x01"] * len(rows),
        "size": [{"width": 3}] * len(rows),
        "found": [found] * len(rows),
    }
    for name, values in kept.items():
        rows = rows.append_column(name, pa.array(values))
    pq.write_table(rows, tmp_path / "more.parquet")
    release = tmp_path / "release"
    forms(tmp_path / "more.parquet", release, "--base_dir", table[0].path.parent)
    together = b"".join(tree(release).values())
    assert [
        word for word in (b"alice", b"616c696365", b"61006c0069006300") if word in together
    ] == []
    row = parquet_rows(release)[0]
    assert row["hash"] == "ff0001" and row["size"] == {"width": 3}
    assert row["found"] == {"labels": [None, "dog"], "boxes": [1, 2]}, "each keeps its place"
    assert row["map of names"] == '[["n","1"]]'


def test_each_row_group_has_its_own_images(table, tmp_path, monkeypatch):
    """Their memory is used again."""
    monkeypatch.setattr(parquet_shards, "GROUP_ROWS", 5)
    forms(table[1], tmp_path / "release")
    (path,) = (tmp_path / "release/data").iterdir()
    assert pq.ParquetFile(path).num_row_groups == 8
    found = [(row["__key__"], row["image"]["bytes"]) for row in parquet_rows(tmp_path / "release")]
    assert found == [(row.key, row.image) for row in tar_rows(tmp_path / "release")]


def test_images_of_a_row_group_are_written_in_several_pages():
    """In one page they are one write, which costs more, and a reader of one row reads them all."""
    schema = pa.schema([pa.field("image", hub_features.IMAGE), pa.field("__key__", pa.string())])
    group = parquet_shards.RowGroup(schema)
    while not group.full:
        group.add(ShardSample(f"000000/{len(group.keys)}_0", bytes(50_000), "a fox", {}))
    written = io.BytesIO()
    sizes = []
    written.write = sizes.append
    with pq.ParquetWriter(
        HashedWriter(written), schema, **parquet_shards._layout(schema)
    ) as parquet:
        parquet.write_table(group.table())
    pages = [len(piece) for piece in sizes if len(piece) > 100_000]
    assert sum(pages) > parquet_shards.GROUP_BYTES and max(pages) < 2 << 20


def test_an_update_writes_only_new_shards(table, to_parquet, tmp_path, small_shards):
    data, path = table
    small_shards(samples=10)
    release = tmp_path / "release"
    forms(path, release, *SMALL)
    before = {p: p.stat().st_ino for p in release.rglob("*-0*") if p.is_file()}
    assert len(before) == 2 * 4  # 36 samples
    forms(path, release, *SMALL)
    assert before == {p: p.stat().st_ino for p in release.rglob("*-0*")}
    data.fill(range(1007, 1010), 3)
    data.settle()
    assert to_parquet(data.path, path, "--update").status == 0
    forms(path, release, *SMALL)
    after = {p: p.stat().st_ino for p in release.rglob("*-0*")}
    changed = {p.name for p in before if before[p] != after[p]}
    assert changed == {"train-000003.tar", "train-00003.parquet"}  # it was not full
    assert len(parquet_rows(release)) == len(tar_rows(release)) == 45


def test_an_image_that_is_missing_is_missing_in_both(table, tmp_path):
    data, path = table
    data.place(1000, 1).with_suffix(".jpg").unlink()
    release = tmp_path / "release"
    ended = called("make_release_forms", [path, release, "--num_workers", 1])
    assert ended.status == 3 and "1000_1: image is missing" in ended.err
    keys = [row["__key__"] for row in parquet_rows(release)]
    assert keys == [sample.key for sample in tar_rows(release)] and len(keys) == 35


def test_one_form_alone(table, tmp_path):
    release = tmp_path / "release"
    forms(table[1], release)
    forms(table[1], release, "--form", "webdataset")
    assert sorted(p.name for p in release.iterdir()) == ["metadata", "webdataset"]
    rows = parquet_rows(release, folder="metadata")
    assert [row["__key__"] for row in rows] == [sample.key for sample in tar_rows(release)]
    assert "image" not in rows[0]
    forms(table[1], release, "--form", "parquet")
    assert sorted(p.name for p in release.iterdir()) == ["data"]
    from PIL import Image

    assert Image.open(io.BytesIO(parquet_rows(release)[0]["image"]["bytes"])).size == (8, 8)


SOAK = [pytest.param(at, marks=pytest.mark.soak) for at in range(1, 30) if at != 14]


@pytest.mark.parametrize("at", [14, *SOAK])
def test_killed_at_any_instant_it_goes_on(table, tmp_path, dying, at):
    release = tmp_path / "release"
    arguments = (table[1], release, "--num_workers", 1)
    forms(table[1], tmp_path / "undisturbed")
    assert dying(at, "make_release_forms", *arguments) in (-9, 0)  # 0: it does less than that
    assert (
        not {name for name in tree(release) if not name.rpartition("/")[2].startswith(".")}
        - (whole := tree(tmp_path / "undisturbed")).keys()
    )
    for name, content in tree(release).items():
        assert name.rpartition("/")[2].startswith(".") or content == whole[name]
    forms(*arguments[:2])
    assert tree(release) == whole


def test_columns_are_described_as_datasets_itself_describes_them():
    from datasets import Features, Image

    listed = pa.struct([("a", pa.float32()), ("b", pa.list_(pa.date32()))])
    kinds = (pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", "UTC"), listed)
    fields = [(f"of_{place}", kind) for place, kind in enumerate((*kinds, *map(pa.list_, kinds)))]
    schema = pa.schema([("image", hub_features.IMAGE), *fields])
    theirs = Features.from_arrow_schema(schema)
    theirs["image"] = Image()
    note = theirs.arrow_schema.metadata[hub_features.HUGGINGFACE]
    assert json.loads(hub_features.footer_note(schema)) == json.loads(note)
    assert hub_features.yaml_features(schema) == theirs._to_yaml_list()


def test_what_is_wrong_is_one_line(table, tmp_path):
    def says(words, *args):
        ended = called("make_release_forms", args)
        assert ended.status in (1, 2) and ended.err.count("\n") == 1, ended.err
        assert all(word in ended.err for word in words), ended.err

    says(["none.parquet", "no such table"], tmp_path / "none.parquet", tmp_path / "r")
    says(["give webdataset, parquet"], table[1], tmp_path / "r", "--form", "zip")
    says(
        ["is no folder", "--base_dir"],
        table[1],
        tmp_path / "r",
        "--base_dir",
        tmp_path / "elsewhere",
    )
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pq.read_table(table[1]).drop(["original_prompt"]), foreign)
    says(["no table of this project"], foreign, tmp_path / "r", "--base_dir", tmp_path)


def test_paths_of_other_machines_do_not_stay():
    assert public_rows.relative("/data/HPDv2/1_0.jpg", "/data") == "HPDv2/1_0.jpg"
    assert public_rows.relative("/elsewhere/1_0.jpg", "/data") is None
    assert without_folders("/home/a/model/") == "model"
    assert without_folders("org/model") == "org/model"
    assert public_rows.public_extra("{torn") is None
