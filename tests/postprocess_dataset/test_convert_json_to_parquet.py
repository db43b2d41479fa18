"""The table: its rows, the checks, and every fault that widely used converters have."""

import itertools
import json
import os
import time

import pytest

from postprocess_dataset.to_table import chunk_workers, sample_files


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
    ended = to_parquet(tmp_path / "moved", tmp_path / "t.parquet")
    assert ended.status == 3 and "1_0.json: image cannot be read: it lies outside" in ended.err
    args = tmp_path / "moved", tmp_path / "t.parquet", "--image_dir", images
    assert to_parquet(*args).status == 0
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
        (["", "t.parquet"], 2, "it is empty"),
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

    def noted(folder_fd, names, room):
        readers.add(threading.get_ident())
        time.sleep(0.002)
        return read(folder_fd, names, room)

    slept = itertools.count(0, 1000)  # a disk's waits, as the kernel would count them
    monkeypatch.setattr(
        sample_files,
        "resource",
        types.SimpleNamespace(
            RUSAGE_THREAD=1, getrusage=lambda who: types.SimpleNamespace(ru_nvcsw=next(slept))
        ),
    )
    monkeypatch.setattr(sample_files, "COLD_S", 0)
    monkeypatch.setattr(chunk_workers, "INLINE", 1200)  # in this process
    monkeypatch.setattr(sample_files, "read_files", noted)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    assert [
        (r["prompt_index"], r["augmentation_idx"]) for r in rows_of(tmp_path / "t.parquet")
    ] == [divmod(i, 4) for i in range(1200)]
    assert len(readers) > 1
