"""The tars.

The very bytes of every image, in the order of the table, for readers that nobody here wrote.
"""

import hashlib
import json
import subprocess
import tarfile

from hypothesis import example, given, settings
from hypothesis import strategies as st


def test_every_byte_of_every_image(table, to_tars, rows_of, tar_members, tmp_path, small_shards):
    small_shards()
    _data, path = table
    ended = to_tars(path, tmp_path, tmp_path / "tars", "--shard_size_mb", 1)
    assert (
        ended.status == 0
        and "6 shards (6 written now), 36 images" in ended.out
        and ended.err.count("output_dataset_0") == 6
    ), ended.err
    members = tar_members(tmp_path / "tars")
    rows = rows_of(path)
    assert list(members) == [
        f"{r['__key__']}{suffix}" for r in rows for suffix in (".jpg", ".txt", ".json")
    ]
    for row in rows:
        original = json.loads((tmp_path / f"{row['__key__']}.json").read_text())
        metadata = json.loads(members[f"{row['__key__']}.json"])
        assert members[f"{row['__key__']}.jpg"] == (tmp_path / f"{row['__key__']}.jpg").read_bytes()
        assert (
            hashlib.sha256(members[f"{row['__key__']}.jpg"]).hexdigest() == metadata["image_sha256"]
        )
        assert members[f"{row['__key__']}.txt"].decode() == original["augmented_prompt"]
        assert {k: metadata[k] for k in original if k in metadata and k != "image_path"} == {
            k: v for k, v in original.items() if v is not None and k != "image_path"
        }
    names = sorted(p.name for p in (tmp_path / "tars").iterdir())
    assert [n for n in names if n.endswith(".tar")] == [
        f"output_dataset_{i:06d}.tar" for i in range(6)
    ] and not [n for n in names if n.startswith(".")]
    index = json.loads((tmp_path / "tars/index.json").read_text())
    assert [(s["url"], s["nsamples"], s["filesize"]) for s in index["shardlist"]] == [
        (n, min(7, 36 - 7 * i), (tmp_path / "tars" / n).stat().st_size)
        for i, n in enumerate(n for n in names if n.endswith(".tar"))
    ]


def test_readers_that_nobody_here_wrote(table, to_tars, rows_of, tmp_path, small_shards):
    import datasets
    import webdataset
    import wids

    small_shards()
    data, path = table
    assert to_tars(path, data.path, tmp_path / "tars", "--shard_size_mb", 1).status == 0
    rows, urls = rows_of(path), sorted(map(str, (tmp_path / "tars").glob("*.tar")))
    images = [(tmp_path / f"{r['__key__']}.jpg").read_bytes() for r in rows]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [
        (s["__key__"], s["jpg"], s["txt"].decode(), json.loads(s["json"])["seed"]) for s in found
    ] == [
        (r["__key__"], image, r["caption"], r["seed"])
        for r, image in zip(rows, images, strict=True)
    ]
    indexed = wids.ShardListDataset(
        str(tmp_path / "tars/index.json"), cache_dir=str(tmp_path / "wids"), transformations=[]
    )
    assert len(indexed) == 36 and [indexed[i][".jpg"].read() for i in (0, 17, 35)] == [
        images[i] for i in (0, 17, 35)
    ]
    loaded = datasets.load_dataset(
        "webdataset", data_files=urls, split="train", cache_dir=str(tmp_path / "cache")
    ).cast_column("jpg", datasets.Image(decode=False))
    assert (
        loaded["__key__"][:] == [r["__key__"] for r in rows]
        and [s["bytes"] for s in loaded["jpg"]] == images
        and loaded["txt"][:] == [r["caption"] for r in rows]
    )
    assert [m.get("llm_model_name") for m in loaded["json"]] == [r["llm_model_name"] for r in rows]
    listed = subprocess.run(
        ["tar", "tf", urls[0]], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert listed == [
        f"{r['__key__']}{suffix}" for r in rows[:7] for suffix in (".jpg", ".txt", ".json")
    ]
    subprocess.run(["tar", "xf", urls[5], "-C", str(tmp_path / "wids")], check=True)
    assert (tmp_path / "wids" / f"{rows[35]['__key__']}.jpg").read_bytes() == images[35]


def test_null_in_the_first_samples_only(folder, to_parquet, to_tars, tmp_path):
    """`datasets` guesses columns from five samples and fails when a null, or an empty list, turns
    into text later; so a field without a value is left out.
    """
    import datasets

    data = folder()
    for index in range(6):
        data.add(index, truncated=[])
    data.add(6, llm_model_name="gemma2", gpu_name="H100", truncated=["text_encoder"])
    assert (
        to_parquet(data.path, tmp_path / "t.parquet").status == 0
        and to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars").status == 0
    )
    loaded = datasets.load_dataset(
        "webdataset",
        data_dir=str(tmp_path / "tars"),
        data_files="*.tar",
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert [m["prompt_index"] for m in loaded["json"]] == list(range(7)) and loaded[6]["json"][
        "gpu_name"
    ] == "H100"


def test_exif_survives(folder, to_parquet, to_tars, tar_members, tmp_path):
    from PIL import Image

    data = folder("flat", published=True)
    place = data.add(1)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.new("RGB", (9, 9)).save(place.with_suffix(".jpg"), exif=exif)
    assert (
        to_parquet(data.path, tmp_path / "t.parquet").status == 0
        and to_tars(tmp_path / "t.parquet", data.path, tmp_path / "tars").status == 0
    )
    assert tar_members(tmp_path / "tars")["flat/1_0.jpg"] == place.with_suffix(".jpg").read_bytes()


@settings(max_examples=300, deadline=None)
@example("a" * 99, 1)
@example("a" * 100, 1)
@example("a" * 101, 1)  # no longer fits
@given(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300),
        st.text("abc/", min_size=1, max_size=300),
    ),
    st.one_of(st.integers(0, 2**20), st.integers(8**11 - 2, 8**11 + 2)),
)
def test_headers_are_the_standard_library_s(name, size):
    from postprocess_dataset import tar_header

    member = tarfile.TarInfo(name)
    member.size = size
    assert tar_header.header(name, size) == member.tobuf(tarfile.PAX_FORMAT)


def test_long_and_foreign_names(folder, to_parquet, to_tars, tar_members, tmp_path):
    import webdataset

    name = "ein ziemlich langer Name über vieles " * 5
    for deep in ("x" * 120 + "/" + "y" * 90, name):
        data = folder(f"{deep}/HPDv2", published=True)
        data.add(1)
    assert to_parquet(tmp_path / ("x" * 120), tmp_path / name, tmp_path / "t.parquet").status == 0
    assert to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars").status == 0
    keys = [
        s["__key__"]
        for s in webdataset.WebDataset(
            str(tmp_path / "tars/output_dataset_000000.tar"), shardshuffle=False
        )
    ]
    assert (
        sorted(keys) == sorted([f"{'x' * 120}/{'y' * 90}/HPDv2/1_0", f"{name}/HPDv2/1_0"])
        and len(tar_members(tmp_path / "tars")) == 6
    )
