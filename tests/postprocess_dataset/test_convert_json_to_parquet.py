"""The table: its rows, the checks, and every fault that widely used converters have."""

import itertools
import json
import os
import re
import time
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


def test_a_run_s_folder(folder, to_parquet, rows_of, tmp_path):
    data = folder().fill(range(998, 1003), 3)
    (data.path / "COMPLETE").write_text("{}")
    (data.path / "000000" / "998.prompts").write_text("{}")
    (data.path / "000000" / "998.prompts2").write_text("{}")
    (data.path / "000000" / "998_1.failed").write_text("{}")  # image and .failed: the image counts
    (data.path / "000000" / ".998_9.jpg.3-1.tmp").write_bytes(b"draft")
    (data.path / "000000" / ".998_9.json").write_bytes(b"draft")
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 0 and "15 rows; 0 rejected" in ended.out
    rows = rows_of(tmp_path / "t.parquet")
    assert [(r["prompt_index"], r["augmentation_idx"], r["idx"]) for r in rows] == [
        (998 + i // 3, i % 3, i) for i in range(15)
    ]
    row = rows[7]
    original = json.loads((tmp_path / row["__key__"]).with_suffix(".json").read_text())
    assert (
        row["__key__"] == "HPDv2/000001/1000_1"
        and row["subdirectory"] == "HPDv2/000001"
        and row["caption"] == original["augmented_prompt"]
    )
    assert row["image_path"] == str(tmp_path / "HPDv2/000001/1000_1.jpg") and os.path.exists(
        row["image_path"]
    )
    assert {k: row[k] for k in original if k != "image_path"} == {
        k: v for k, v in original.items() if k != "image_path"
    }
    assert (
        row["source"] == ["hpd", "sac"]
        and row["seed"] == 2**62 + 1000
        and row["guidance_scale"] == 7.0
        and row["extra"] is None
    )
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.rejects.jsonl"))


def test_the_published_flat_folder(folder, to_parquet, rows_of, tmp_path):
    data = folder("flat", published=True).fill(range(20), 2)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    rows = rows_of(tmp_path / "t.parquet")
    assert [r["__key__"] for r in rows] == [f"flat/{p}_{a}" for p in range(20) for a in range(2)]
    assert (
        rows[0]["llm_model_name"] is None
        and rows[0]["seed"] is None
        and rows[0]["image_sha256"] is None
        and rows[0]["source"] is None
    )
    import pyarrow.parquet as pq

    assert str(pq.read_schema(tmp_path / "t.parquet").field("augmentation_idx").type) == "int64"


def test_a_moved_flat_folder_and_images_elsewhere(folder, to_parquet, rows_of, tmp_path):
    data = folder("flat", published=True).fill(range(3), 1)
    os.rename(
        data.path, tmp_path / "moved"
    )  # image_path is stale, the image stands beside its JSON
    images = tmp_path / "images"
    images.mkdir()
    os.rename(tmp_path / "moved" / "1_0.jpg", images / "x.jpg")
    record = json.loads((tmp_path / "moved" / "1_0.json").read_text())
    (tmp_path / "moved" / "1_0.json").write_text(
        json.dumps(record | {"image_path": str(images / "x.jpg")})
    )
    assert to_parquet(tmp_path / "moved", tmp_path / "t.parquet").status == 0
    assert [r["image_path"] for r in rows_of(tmp_path / "t.parquet")] == [
        str(tmp_path / "moved/0_0.jpg"),
        str(images / "x.jpg"),
        str(tmp_path / "moved/2_0.jpg"),
    ]


@pytest.mark.parametrize(
    "given", [["{}"], ["--output_path", "{}"], ["--output-path", "{}"], ["--output_path={}"]]
)
def test_output_by_position_or_option(folder, to_parquet, tmp_path, given):
    table = tmp_path / "new" / "t.parquet"
    assert (
        to_parquet(folder().fill([1]).path, *[g.format(table) for g in given]).status == 0
        and table.exists()
    )


@pytest.mark.parametrize(
    "args, status, says",
    [
        (["{data}"], 2, "give DIR"),
        (["{data}", "{data}"], 2, "ending in .parquet"),
        (["t.parquet"], 2, "give DIR"),
        (["{data}/no", "t.parquet"], 1, "not a directory"),
        (["{data}", "{data}", "t.parquet"], 1, "given twice"),
        (["{data}", "{data}/000000", "t.parquet"], 1, "lies in"),
        (["{empty}", "t.parquet"], 1, "no sample"),
        (["{data}", "t.parquet", "--part", "3/3"], 2, "--part"),
        (["{data}", "t.parquet", "--update", "--rebuild"], 2, "--rebuild"),
        (["{data}", "t.parquet", "--verifi", "size"], 2, "--verify"),
        (["{data}", "t.parquet", "--finish"], 2, "--part 0/N"),
    ],
)
def test_usage_is_one_line(folder, to_parquet, tmp_path, monkeypatch, args, status, says):
    monkeypatch.chdir(tmp_path)
    folder().fill([1])
    (tmp_path / "empty").mkdir()
    ended = to_parquet(*[a.format(data=tmp_path / "HPDv2", empty=tmp_path / "empty") for a in args])
    assert (ended.status, says in ended.err, ended.err.count("\n")) == (status, True, 1), ended.err
    assert not list(tmp_path.glob("*t.parquet*"))


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


def test_unknown_keys_are_kept_as_json(folder, to_parquet, rows_of, tmp_path):
    data = folder()
    data.add(1, aesthetic={"score": 5.5, "by": "é"}, idx=99), data.add(2)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    first, second = rows_of(tmp_path / "t.parquet")
    assert (
        json.loads(first["extra"]) == {"aesthetic": {"score": 5.5, "by": "é"}, "idx": 99}
        and first["idx"] == 0
        and second["extra"] is None
    )


def test_written_otherwise_but_well(folder, to_parquet, rows_of, tmp_path):
    data = folder()
    for prompt, how in enumerate(
        [dict(indent=2), dict(ensure_ascii=False), dict(separators=(",", ":"))]
    ):
        place = data.add(prompt)
        place.with_suffix(".json").write_text(
            json.dumps(json.loads(place.with_suffix(".json").read_text()), **how) + "\n",
            encoding="utf-8",
        )
    data.add(
        3, source="one string", augmented_prompt="}{ \n\u2028 \x00 \U0001f431" + "long " * 40000
    )
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    rows = rows_of(tmp_path / "t.parquet")
    assert (
        len(rows) == 4
        and rows[3]["source"] == ["one string"]
        and rows[3]["caption"].startswith("}{ \n\u2028 \x00 \U0001f431long")
    )
    assert rows[1]["caption"] == "a café, no. 1, take “0”"


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
        and found.pop("flat/9_9.json") == "an empty file"
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


def test_same_named_directories_and_other_ways_to_name_one(
    folder, to_parquet, rows_of, tmp_path, monkeypatch
):
    folder("one/HPDv2").fill([1]), folder("two/HPDv2", input_file="Alpha.json").fill([1])
    assert (
        to_parquet(tmp_path / "one/HPDv2", tmp_path / "two/HPDv2", tmp_path / "t.parquet").status
        == 0
    )
    keys = [r["__key__"] for r in rows_of(tmp_path / "t.parquet")]
    assert keys == [
        f"{d}/HPDv2/000000/1_{a}" for d in ("two", "one") for a in (0, 1)
    ]  # by input_file: Alpha before HPDv2
    assert all((tmp_path / f"{key}.jpg").exists() for key in keys)
    tables = []
    for cwd, given in (
        (tmp_path, "one/HPDv2"),
        (tmp_path / "one/HPDv2", "."),
        (tmp_path / "one", "./HPDv2/"),
        (tmp_path / "two", "../one/HPDv2"),
    ):
        monkeypatch.chdir(cwd)
        assert to_parquet(given, tmp_path / "same.parquet").status == 0
        tables.append((tmp_path / "same.parquet").read_bytes())
    assert (
        len(set(tables)) == 1
        and rows_of(tmp_path / "same.parquet")[0]["__key__"] == "HPDv2/000000/1_0"
    )


def test_relative(folder, to_parquet, rows_of, tmp_path):
    assert to_parquet(folder().fill([1]).path, tmp_path / "t.parquet", "--relative").status == 0
    assert rows_of(tmp_path / "t.parquet")[0]["image_path"] == "HPDv2/000000/1_0.jpg"


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


def test_read_by_others(folder, to_parquet, process, tmp_path):
    import datasets
    import duckdb
    import pandas
    import pyarrow.parquet as pq

    data = folder().fill(range(3), 2)
    ended = process("convert_json_to_parquet", data.path, tmp_path / "t.parquet")
    assert ended.returncode == 0 and ended.stderr == ""
    data.fill(range(1000, 1003), 2)
    assert (
        to_parquet(data.path, tmp_path / "t.parquet", "--update").status == 0
    )  # its footer is put together from two
    path = str(tmp_path / "t.parquet")
    expected = [f"a café, no. {p}, take “{a}”" for p in (0, 1, 2, 1000, 1001, 1002) for a in (0, 1)]
    assert pandas.read_parquet(path)["caption"].tolist() == expected
    assert [
        row[0] for row in duckdb.sql(f"select caption from '{path}' order by idx").fetchall()
    ] == expected
    assert duckdb.sql(
        f"select count(*), max(idx), sum(length(source)) from '{path}' where prompt_index >= 1000"
    ).fetchall() == [(6, 11, 12)]
    found = datasets.load_dataset(
        "parquet", data_files=path, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found["caption"][:] == expected and found[0]["source"] == ["hpd", "sac"]
    file = pq.ParquetFile(path)
    column = file.metadata.row_group(0).column(file.schema_arrow.names.index("input_file"))
    assert column.compression == "ZSTD" and "RLE_DICTIONARY" in column.encodings


def test_a_slow_disk_is_read_by_several_threads(folder, to_parquet, rows_of, tmp_path, monkeypatch):
    import threading
    import types

    data = folder().fill(range(300), 4)
    readers = set()
    read = sample_files.read_files

    def noted(folder_fd, names):
        readers.add(threading.get_ident())
        time.sleep(0.002)
        return read(folder_fd, names)

    slept = itertools.count(0, 1000)  # a disk's waits, as the kernel would count them
    monkeypatch.setattr(
        sample_files,
        "resource",
        types.SimpleNamespace(
            RUSAGE_THREAD=1, getrusage=lambda who: types.SimpleNamespace(ru_nvcsw=next(slept))
        ),
    )
    monkeypatch.setattr(sample_files, "COLD_S", 0)
    monkeypatch.setattr(sample_files, "read_files", noted)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    assert [
        (r["prompt_index"], r["augmentation_idx"]) for r in rows_of(tmp_path / "t.parquet")
    ] == [divmod(i, 4) for i in range(1200)]
    assert len(readers) > 1
