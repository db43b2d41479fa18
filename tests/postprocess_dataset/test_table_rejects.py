"""What a sample must pass: each fault costs its own sample, which is named with its reason."""

import json
import os
import re
from pathlib import Path

import pytest

REQUIRED = [
    "prompt_index",
    "augmentation_idx",
    "original_prompt",
    "augmented_prompt",
    "is_augmented",
    "model_name",
    "height",
    "width",
    "input_file",
]


def rejects(table):
    return {
        line.get("json") or line["image"]: line["reason"]
        for line in map(json.loads, Path(f"{table}.rejects.jsonl").read_text().splitlines())
    }


FAULTS = {
    "broken": (b'{"prompt_index": 5, ', "not JSON"),
    "empty": (b"", "an empty file"),
    "latin-1": ('{"model_name": "é"}'.encode("latin-1"), "not JSON"),
    "surrogate": (b'{"model_name": "\\ud800"}', "not JSON"),
    "list": (b"[1, 2]", "not a JSON object"),
    "two": (b'{"a": 1}{"b": 2}', "not JSON"),
    "NaN": (b'{"guidance_scale": NaN}', "not JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_json_is_named_and_takes_nothing_with_it(
    folder, to_parquet, rows_of, tmp_path, fault
):
    data = folder().fill(range(4), 2)
    (data.path / "000000" / "2_1.json").write_bytes(FAULTS[fault][0])
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and "1 rejected" in ended.out and "000000/2_1.json" in ended.err
    assert (
        list(rejects(tmp_path / "t.parquet")) == ["HPDv2/000000/2_1.json"]
        and FAULTS[fault][1] in rejects(tmp_path / "t.parquet")["HPDv2/000000/2_1.json"]
    )
    assert [r["idx"] for r in rows_of(tmp_path / "t.parquet")] == list(range(7))


@pytest.mark.parametrize(
    "name, value",
    [(name, value) for name in REQUIRED for value in (None, [], {"a": 1})]
    + [
        ("prompt_index", "5"),
        ("prompt_index", 5.0),
        ("prompt_index", True),
        ("prompt_index", -1),
        ("prompt_index", 2**63),
        ("height", 1.5),
        ("is_augmented", 1),
        ("model_name", 3),
        ("seed", "x"),
        ("guidance_scale", "7"),
        ("source", 5),
        ("source", [1]),
        ("source", [None]),
        ("hostname", 4),
    ],
)
def test_a_wrong_value_costs_its_own_sample_only(
    folder, to_parquet, rows_of, tmp_path, name, value
):
    data = folder()
    data.add(1), data.add(2, **{name: value}), data.add(3)
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and name in rejects(tmp_path / "t.parquet")["HPDv2/000000/2_0.json"]
    assert [r["prompt_index"] for r in rows_of(tmp_path / "t.parquet")] == [1, 3]


def test_missing_required_fields_and_null_places(folder, to_parquet, rows_of, tmp_path):
    data = folder()
    for place in data.add(1), data.add(2):
        record = json.loads(place.with_suffix(".json").read_text())
        for name in (
            ["augmentation_idx"]
            if place.name == "1_0"
            else ["hostname", "gpu_name", "slurm_job_id", "lease", "image_path"]
        ):
            del record[name]
        place.with_suffix(".json").write_text(json.dumps(record))
    data.add(
        3,
        hostname=None,
        gpu_name=None,
        slurm_job_id=None,
        lease=None,
        image_path=None,
        generation_timestamp=None,
    )
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 3
    assert rejects(tmp_path / "t.parquet") == {
        "HPDv2/000000/1_0.json": "augmentation_idx is missing"
    }
    rows = rows_of(tmp_path / "t.parquet")
    assert [(r["prompt_index"], r["hostname"]) for r in rows] == [
        (2, None),
        (3, None),
    ] and os.path.exists(rows[1]["image_path"])


def test_images_missing_orphaned_and_odd_names(folder, to_parquet, rows_of, tmp_path):
    data = folder("flat", published=True).fill(range(3), 1)
    os.unlink(data.path / "1_0.jpg")
    os.unlink(data.path / "2_0.json")
    for name in ("a.b", "007_1", "cat", "x%2Ey"):  # no numbers; a dot would split the key in a tar
        for suffix in (".jpg", ".json"):
            (data.path / f"{name}{suffix}").write_bytes((data.path / f"0_0{suffix}").read_bytes())
    os.mkfifo(data.path / "9_9.json")  # must not hang
    os.mkdir(data.path / "8_8.json")
    (data.path / "lonely.jpg").write_bytes(b"x")
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3
    found = rejects(tmp_path / "t.parquet")
    assert (
        found.pop("flat/1_0.json") == "image is missing"
        and found.pop("flat/9_9.json") == "cannot be read: it is a named pipe"
        and "directory" in found.pop("flat/8_8.json")
    )
    assert (
        found == {"flat/2_0.jpg": "image without JSON", "flat/lonely.jpg": "image without JSON"}
        and "2 images without JSON" in ended.out
    )
    keys = [r["__key__"] for r in rows_of(tmp_path / "t.parquet")]
    assert sorted(keys) == sorted(
        ["flat/0_0", "flat/007_1", "flat/a%2Eb", "flat/cat", "flat/x%252Ey"]
    ) and all("." not in k.rsplit("/", 1)[1] for k in keys)
    assert (data.path / "2_0.jpg").exists() and (data.path / "lonely.jpg").exists()
    ended = to_parquet(data.path, tmp_path / "t.parquet", "--update")  # finds each of them again
    assert "5 rows, 0 of them new" in ended.out and "deleted" not in ended.out


@pytest.mark.parametrize("letter", ["\n", "\x1b", "\u202e", "\u200b"])
def test_a_name_with_characters_that_nobody_sees(folder, to_parquet, rows_of, tmp_path, letter):
    """It would become a key: of the table, of a tar's member, of a list that others read."""
    data = folder("flat", published=True).fill(range(2), 1)
    for suffix in (".jpg", ".json"):
        (data.path / f"cat{letter}s{suffix}").write_bytes((data.path / f"0_0{suffix}").read_bytes())
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 3
    assert len(rows_of(tmp_path / "t.parquet")) == 2
    rejects = (tmp_path / "t.parquet.rejects.jsonl").read_text()
    assert "characters that nobody sees" in rejects


def test_a_name_that_is_not_utf8(folder, to_parquet, rows_of, tmp_path):
    data = folder("flat", published=True).fill(range(2), 1)
    for suffix in (b".jpg", b".json"):
        Path(os.fsdecode(os.fsencode(data.path) + b"/caf\xe9" + suffix)).write_bytes(
            (data.path / f"0_0{suffix.decode()}").read_bytes()
        )
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 3
    assert (
        len(rows_of(tmp_path / "t.parquet")) == 2
        and "not UTF-8" in Path(tmp_path / "t.parquet.rejects.jsonl").read_text()
    )


@pytest.mark.parametrize(
    "level, found",
    [
        ("exists", []),
        ("size", ["0_0"]),
        ("sha256", ["0_0", "1_0", "2_0"]),
        ("decode", ["0_0", "1_0", "2_0", "3_0"]),
    ],
)
def test_verify(folder, to_parquet, tmp_path, level, found):
    import hashlib

    data = folder().fill(range(6), 1)
    images = data.path / "000000"
    (images / "0_0.jpg").write_bytes(b"")
    (images / "1_0.jpg").write_bytes((images / "1_0.jpg").read_bytes()[:-5])
    (images / "2_0.jpg").write_bytes((images / "5_0.jpg").read_bytes())
    garbage = b"\xff\xd8 no picture \xff\xd9"
    (images / "3_0.jpg").write_bytes(garbage)
    record = json.loads((images / "3_0.json").read_text())
    (images / "3_0.json").write_text(
        json.dumps(record | {"image_sha256": hashlib.sha256(garbage).hexdigest()})
    )
    assert to_parquet(data.path, tmp_path / "t.parquet", "--verify", level).status == (
        3 if found else 0
    )
    names = (
        re.findall(r"(\d_0)\.json", Path(tmp_path / "t.parquet.rejects.jsonl").read_text())
        if found
        else []
    )
    assert names == found


def test_strict_publishes_nothing(folder, to_parquet, tmp_path):
    data = folder().fill(range(2), 1)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    before = (tmp_path / "t.parquet").read_bytes()
    (data.path / "000000" / "1_0.json").write_text("{")
    ended = to_parquet(data.path, tmp_path / "t.parquet", "--strict")
    assert (
        ended.status == 3
        and "was not published" in ended.err
        and (tmp_path / "t.parquet").read_bytes() == before
    )
    assert list(rejects(tmp_path / "t.parquet")) == ["HPDv2/000000/1_0.json"]


def test_an_unreadable_folder_is_named(folder, to_parquet, rows_of, tmp_path, monkeypatch):
    from postprocess_dataset import dataset_folder

    data, listed = folder().fill([1, 1001], 1), dataset_folder.list_folder

    def refuse(path):
        if path.endswith("000001"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(dataset_folder, "list_folder", refuse)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 3
    assert (
        rejects(tmp_path / "t.parquet")
        == {"HPDv2/000001": "folder cannot be read: Permission denied"}
        and len(rows_of(tmp_path / "t.parquet")) == 1
    )
