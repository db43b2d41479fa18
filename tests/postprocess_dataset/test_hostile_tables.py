"""Tables of others, and broken notes beside our own: each costs its rows or one line."""

import decimal
import json
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postprocess_dataset import table as table_module
from tests.postprocess_dataset.conftest import called


def told(ended):
    """One line on standard error, and no traceback."""
    return ended.status == 1 and ended.err.count("\n") == 1 and "Traceback" not in ended.err


def names_in(folder):
    return [name for path in sorted(folder.glob("*.tar")) for name in tarfile.open(path).getnames()]


BAD_KEYS = [
    "../../../tmp/x",
    "/tmp/x",
    "a/../../x",
    "a\0b",
    "a\0c",
    "a//b",
    "./a",
    "a/",
    "",
]


def test_keys_that_lead_elsewhere(table, to_tars, tmp_path):
    data, _path = table
    images = sorted(str(path) for path in data.path.glob("*/*.jpg"))
    keys = [*BAD_KEYS, *(f"good/{n}" for n in range(len(images) - len(BAD_KEYS)))]
    rows = {"__key__": keys, "image_path": images, "caption": ["a"] * len(images)}
    pq.write_table(pa.table(rows), tmp_path / "other.parquet")
    ended = to_tars(tmp_path / "other.parquet", data.path, tmp_path / "tars")
    assert ended.status == 3 and f"{len(BAD_KEYS)} left out" in ended.out, ended.err
    names = names_in(tmp_path / "tars")
    assert len(names) == 3 * (len(images) - len(BAD_KEYS))
    assert all(name.startswith("good/") for name in names)


def test_keys_that_no_reader_can_name_or_unpack(table, to_tars, tmp_path):
    data, _path = table
    images = sorted(str(path) for path in data.path.glob("*/*.jpg"))[:8]
    bad = ["a/0\n1/0_0", "a\x1b[31m", "a\x85b", "x" * 251, "é" * 126, "a/" * 2050 + "a"]
    good = ["x" * 250, "é" * 125 + "/" + "y" * 250]
    rows = {"__key__": [*bad, *good], "image_path": images, "caption": ["a"] * 8}
    pq.write_table(pa.table(rows), tmp_path / "other.parquet")
    ended = to_tars(tmp_path / "other.parquet", data.path, tmp_path / "tars")
    assert ended.status == 3 and f"{len(bad)} left out" in ended.out, ended.err
    assert "left out a/0\\x0a1/0_0: its key has a control character" in ended.err
    assert f"left out {'x' * 200}…: its key is too long for a file's name" in ended.err
    assert len(names_in(tmp_path / "tars")) == 3 * len(good)
    for path in (tmp_path / "tars").glob("*.tar"):
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")
    assert len(list(tmp_path.glob("unpacked/**/*.jpg"))) == len(good)


@pytest.mark.parametrize("base", ["/", ".."])
def test_image_paths_that_lead_elsewhere(table, folder, to_tars, tmp_path, base):
    data, _path = table
    private = folder("home").add(1).with_suffix(".jpg")
    paths = [str(private), f"../home/000000/{private.name}", "000000/\0.jpg", "000000/995_0.jpg"]
    note = json.dumps({"base": base, "relative": False, "generations": [4]})
    rows = pa.table({"image_path": paths, "caption": ["a"] * 4})
    pq.write_table(rows.replace_schema_metadata({table_module.KEY: note}), tmp_path / "o.parquet")
    ended = to_tars(tmp_path / "o.parquet", data.path, tmp_path / "tars")
    assert ended.status == 3 and "3 left out" in ended.out and "1 images" in ended.out
    assert ended.err.count("lies outside") == 2 and "null byte" in ended.err


@pytest.mark.parametrize(
    "path",
    [
        "\0/c.jpg",
        "000000\0/995_0.jpg",
        "\0",
        "000000/995_0.jpg/c.jpg",
        "000000",
        "a" * 300 + "/c.jpg",
        "a/" * 2050 + "c.jpg",
        "/" * 5000,
        "\ud7ff\uffff/c.jpg",
        "000000/../../../../../../etc/hostname",
    ],
)
def test_a_path_that_no_disk_has_costs_its_own_row(table, to_tars, tmp_path, path):
    data, _path = table
    images = sorted(str(path) for path in data.path.glob("*/*.jpg"))[:3]
    images[1] = path
    pq.write_table(pa.table({"image_path": images, "caption": ["a"] * 3}), tmp_path / "o.parquet")
    ended = to_tars(tmp_path / "o.parquet", data.path, tmp_path / "tars")
    assert ended.status == 3 and "2 images" in ended.out, ended.err
    assert ended.err.count("\n") <= 3 and "Traceback" not in ended.err


def foreign(**columns):
    rows = {"image_path": ["000000/995_0.jpg"] * 2, "caption": ["a"] * 2} | columns
    return pa.table({name: values for name, values in rows.items() if values is not None})


@pytest.mark.parametrize(
    "columns, says",
    [
        ({"__key__": [1, 2]}, "its column __key__ is int64, not text"),
        ({"image_path": [1, 2]}, "its column image_path is int64, not text"),
        ({"__key__": [[1], [2]]}, "not text"),
        ({"image_path": [b"x", b"y"]}, "not text"),
        ({"__key__": ["a", "\x1b[31ma"][:1] * 2}, "the key 'a' occurs twice"),
        ({"__key__": ["\x1b[31m"] * 2}, "the key '\\x1b[31m' occurs twice"),
    ],
)
def test_columns_of_other_types(table, to_tars, tmp_path, columns, says):
    data, _path = table
    pq.write_table(foreign(**columns), tmp_path / "other.parquet")
    ended = to_tars(tmp_path / "other.parquet", data.path, tmp_path / "tars")
    assert told(ended) and says in ended.err, ended.err


@pytest.mark.parametrize(
    "columns",
    [
        {"extra": ["[1]", "{}"]},
        {"extra": ["5", None]},
        {"extra": ["{", "{}"]},
        {"extra": ["null", ""]},
        {"extra": ['{"a": ' + "[" * 300 + "]" * 300 + "}", None]},
        {"extra": [1, None]},
        {"caption": [5, 6], "augmented_prompt": [None, "a"]},
        {"__key__": [None, "a"]},
        {"image_sha256": [5, 6]},
    ],
)
def test_values_of_other_types_cost_their_rows(table, to_tars, tmp_path, columns):
    data, _path = table
    rows = foreign(**columns)
    pq.write_table(pa.concat_tables([rows, rows.slice(1)]), tmp_path / "other.parquet")
    if "__key__" in columns:
        pq.write_table(rows, tmp_path / "other.parquet")
    ended = to_tars(tmp_path / "other.parquet", data.path, tmp_path / "tars")
    assert ended.status in (1, 3) and "left out" in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize("name", ["caption", "original_prompt", "image_path", "__key__"])
def test_text_that_is_not_utf8(table, to_tars, tmp_path, name):
    data, _path = table
    bad = pa.Array.from_buffers(
        pa.string(), 2, pa.array([b"\xff\xfe", b"000000/995_0.jpg"], pa.binary()).buffers()
    )
    rows = foreign(__key__=["a", "b"]) if name != "__key__" else foreign()
    rows = rows.drop_columns([name]) if name in rows.column_names else rows
    pq.write_table(rows.append_column(name, bad), tmp_path / "other.parquet")
    ended = to_tars(tmp_path / "other.parquet", data.path, tmp_path / "tars")
    assert ended.status in (0, 1, 3) and "Traceback" not in ended.err, ended.err
    assert names_in(tmp_path / "tars")


def test_dates_that_python_has_none_for(table, to_tars, tmp_path):
    data, _path = table
    when = pa.array([2**62, 0], pa.timestamp("us"))
    pq.write_table(foreign(when=when, __key__=["a", "b"]), tmp_path / "other.parquet")
    assert to_tars(tmp_path / "other.parquet", data.path, tmp_path / "tars").status == 0


def test_a_directory_of_part_files_that_leads_elsewhere(table, to_tars, tmp_path):
    data, path = table
    parts = tmp_path / "parts.parquet"
    parts.mkdir()
    (parts / "part-0.parquet").symlink_to(path)
    ended = to_tars(parts, data.path, tmp_path / "tars")
    assert told(ended) and "lies outside" in ended.err
    (parts / "part-0.parquet").unlink()
    os.mkfifo(parts / "part-0.parquet")
    ended = to_tars(parts, data.path, tmp_path / "tars")
    assert told(ended) and "named pipe" in ended.err


@pytest.mark.parametrize(
    "note",
    [b"[]", b"{", b"5", b'{"base": 5}', b'{"base": "/", "relative": false, "generations": 5}'],
)
def test_footer_facts_of_other_hands(table, to_parquet, to_tars, tmp_path, note):
    data, path = table
    pq.write_table(pq.read_table(path).replace_schema_metadata({table_module.KEY: note}), path)
    assert to_tars(path, data.path, tmp_path / "tars").status == 0
    ended = to_parquet(data.path, path, "--update")
    assert told(ended) and "not a table of this script" in ended.err
    assert to_parquet(data.path, path, "--rebuild").status == 0


def test_footer_facts_of_ours_over_other_columns(table, to_parquet, tmp_path):
    data, path = table
    note = json.dumps({"base": str(tmp_path), "relative": False, "generations": [2]})
    pq.write_table(foreign().replace_schema_metadata({table_module.KEY: note}), path)
    ended = to_parquet(data.path, path, "--update")
    assert told(ended) and "its columns are not those of this script" in ended.err


BROKEN = [b"[]", b"{", b"5\n", b"\xff\n", b"null\n", b'{"json": 5}\n', b"[" * 5000, b'"x"\n']


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("note", ["state", "rejects.jsonl", "gone.jsonl"])
def test_broken_notes_beside_a_table(
    folder, to_parquet, to_tars, deleted, rows_of, tmp_path, content, note
):
    """An update looks at every folder again and writes them anew."""
    data, path = folder().fill([1, 2, 1001], 1), tmp_path / "t.parquet"
    data.settle()
    assert to_parquet(data.path, path).status == 0
    (data.path / "000000/2_0.json").unlink()
    (data.path / "000001/1002_0.json").write_text("{")
    assert to_parquet(data.path, path, "--update").status == 3
    data.settle()
    (tmp_path / f"t.parquet.{note}").write_bytes(content)
    if note == "gone.jsonl":
        assert told(to_tars(path, data.path, tmp_path / "tars"))
    ended = to_parquet(data.path, path, "--update")
    assert ended.status == 3 and "3 rows, 0 of them new" in ended.out, ended.err
    assert "0 folders unchanged" in ended.out and deleted(path) == ["HPDv2/000000/2_0"]
    assert "1002_0" in (tmp_path / "t.parquet.rejects.jsonl").read_text()
    assert (tmp_path / f"t.parquet.{note}.damaged").read_bytes() == content


@pytest.mark.parametrize("content", [*BROKEN, b"{}", b'{"shards": [{"name": "../x"}]}'])
def test_broken_plan_and_stats(table, to_tars, tmp_path, content):
    data, path = table
    assert to_tars(path, data.path, tmp_path / "tars").status == 0
    (tmp_path / "tars/output_dataset_000000_stats.json").write_bytes(content)
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert ended.status == 0 and "(1 written now)" in ended.out
    (tmp_path / "tars/output_dataset_plan.json").write_bytes(content)
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert told(ended) and "choose an empty --output_dir" in ended.err


def test_a_plan_that_names_files_elsewhere(table, to_tars, tmp_path):
    """A shard that a shorter plan no longer has is removed: never by a name that leads out."""
    data, path = table
    precious = tmp_path / "precious.tar"
    precious.write_bytes(b"mine")
    assert to_tars(path, data.path, tmp_path / "tars").status == 0
    plan = tmp_path / "tars/output_dataset_plan.json"
    record = json.loads(plan.read_text())
    record["shards"].append({**record["shards"][0], "name": "../precious.tar"})
    plan.write_text(json.dumps(record | {"identity": 64 * "0"}))
    assert told(to_tars(path, data.path, tmp_path / "tars")) and precious.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "change",
    [
        {"split": "zz", "name": "output_dataset_zz_000000.tar"},
        {"name": "output_dataset_000001.tar"},
        {"start": 1},
        {"stop": 0},
        {"stop": 37},
    ],
)
def test_a_plan_whose_shards_are_not_those_of_its_rows(table, to_tars, tmp_path, change):
    data, path = table
    assert to_tars(path, data.path, tmp_path / "tars").status == 0
    plan = tmp_path / "tars/output_dataset_plan.json"
    record = json.loads(plan.read_text())
    record["shards"][0] |= change
    plan.write_text(json.dumps(record))
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert told(ended) and "output_dataset_plan.json is damaged" in ended.err


KINDS = {
    "binary": lambda n: pa.array([b"\xff"] * n),
    "list": lambda n: pa.array([["a"]] * n),
    "struct": lambda n: pa.array([{"a": 1}] * n),
}


@pytest.mark.parametrize("name", ["caption", "__key__", "seed", "prompt_index"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_another_kind_is_unreadable(table, tmp_path, name, kind):
    data, path = table
    rows = pq.read_table(path)
    column = rows.schema.get_field_index(name)
    pq.write_table(rows.set_column(column, name, KINDS[kind](rows.num_rows)), path)
    words = (data.path, "--parquet_file", path, "--report", tmp_path / "v.json")
    ended = called("verify_dataset", words)
    assert ended.status == 1 and "Traceback" not in ended.err
    assert "unreadable_shard: 1 (" in ended.out and f"its column {name} is " in ended.out


def test_a_column_that_stands_twice_is_unreadable(table, tmp_path):
    data, path = table
    rows = pq.read_table(path)
    twice = pa.Table.from_arrays([*rows.columns, rows["caption"]], [*rows.schema.names, "caption"])
    pq.write_table(twice, path)
    words = (data.path, "--parquet_file", path, "--report", tmp_path / "v.json")
    ended = called("verify_dataset", words)
    assert ended.status == 1 and "or occur twice" in ended.out and "Traceback" not in ended.err


FURTHER = {
    "timestamp": lambda n: pa.array([2**62] * n, pa.timestamp("us")),
    "decimal": lambda n: pa.array([decimal.Decimal("1e30")] * n, pa.decimal256(60, 2)),
    "map": lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    "uuid": lambda n: pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([b"0" * 16] * n, pa.binary(16))
    ),
}


@pytest.mark.parametrize("kind", FURTHER)
def test_a_further_column_of_any_kind_is_published_or_refused(table, tmp_path, kind):
    _, path = table
    rows = pq.read_table(path)
    pq.write_table(rows.append_column("more", FURTHER[kind](rows.num_rows)), path)
    ended = called("make_release_forms", (path, tmp_path / "out", "--num_workers", 1))
    assert ended.status in (0, 3) or told(ended), ended.err
