"""Columns of any Arrow type and value, in every script that reads a table: rows or one line."""

import datetime
import decimal
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postprocess_dataset.column_values import values_of
from tests.postprocess_dataset.conftest import called


def no_utf8(n):
    """Text by its type, and none by its bytes."""
    some = pa.array([b"\xff\xfe bad", None, *[b"\xff"] * (n - 2)], pa.binary())
    return pa.StringArray.from_buffers(n, some.buffers()[1], some.buffers()[2], some.buffers()[0])


def views(n):
    """Text that is kept as views."""
    return pa.array(["a"] * n, pa.string_view())


KINDS = {
    "null": pa.nulls,
    "no utf8": no_utf8,
    "lists of no utf8": lambda n: pa.ListArray.from_arrays(
        pa.array(range(n + 1), pa.int32()), no_utf8(n)
    ),
    "dictionary of no utf8": lambda n: no_utf8(n).dictionary_encode(),
    "binary": lambda n: pa.array([b"\x00\xff"] * n),
    "integers": lambda n: pa.array(range(n)),
    "large unsigned": lambda n: pa.array([2**64 - 1] * n, pa.uint64()),
    "bytes": lambda n: pa.array([n % 100] * n, pa.int8()),
    "halves": lambda n: pa.array([0.5, float("nan"), *[1.5] * (n - 2)], pa.float16()),
    "booleans": lambda n: pa.array([True] * n),
    "lists": lambda n: pa.array([[1, 2]] * n),
    "large lists": lambda n: pa.array([["a"]] * n, pa.large_list(pa.string())),
    "list views": lambda n: pa.array([["a"]] * n, pa.list_view(pa.string())),
    "structs": lambda n: pa.array([{"a": datetime.date(2026, 1, 1), "b": [b"\xff"]}] * n),
    "maps": lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    "dates": lambda n: pa.array([datetime.date(2026, 1, 1)] * n),
    "times": lambda n: pa.array([datetime.datetime(2026, 1, 1, 12)] * n),
    "times beyond all years": lambda n: pa.array([2**62] * n, pa.timestamp("us", "UTC")),
    "seconds beyond all years": lambda n: pa.array([2**60] * n).cast(pa.timestamp("ms")),
    "durations": lambda n: pa.array([2**62] * n, pa.duration("us")),
    "decimals": lambda n: pa.array([decimal.Decimal("1e30")] * n, pa.decimal256(60, 2)),
    "uuids": lambda n: pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([b"0" * 16] * n, pa.binary(16))
    ),
    "views": views,
}
COLUMNS = {
    "__key__",
    "caption",
    "original_prompt",
    "extra",
    "model_name",
    "image_path",
    "image_sha256",
    "source",
    "seed",
    "width",
    "generation_timestamp",
    "more",
}
SCRIPTS = ("make_report", "make_release_forms", "convert_parquet_to_wds", "verify_dataset")


def words_of(script, data, path, out):
    """The command line of a script over a table."""
    base = ("--base_dir", data.path.parent)
    if script == "make_report":
        return path, out / "r.html", *base
    if script == "make_release_forms":
        return path, out / "release", "--num_workers", 1, *base
    if script == "verify_dataset":
        return data.path, "--parquet_file", path, "--report", out / "v.json"
    return "--parquet_file", path, "--output_dir", out / "tars", "--num_workers", 1, *base


def put(rows, name, values):
    """The table with other values in a column."""
    place = rows.schema.get_field_index(name)
    if place < 0:
        return rows.append_column(name, values)
    return rows.set_column(place, name, values)


def ends_in_words(script, ended):
    """Done, or status 1 with the reason in the last line (and what was left out before)."""
    if ended.status in (0, 3):
        return True
    last = [*ended.err.splitlines(), ""][-2 if ended.err else -1]
    told = last.startswith(f"{script}: ") or script == "verify_dataset"
    return ended.status == 1 and told and "Traceback" not in ended.err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_column_of_any_kind_is_read_or_named(table, tmp_path, kind, script):
    """Each third column, so that each is tried with several kinds."""
    data, path = table
    rows = pq.read_table(path)
    first = (list(KINDS).index(kind) + SCRIPTS.index(script)) % 3
    for name in sorted(COLUMNS)[first::3]:
        other = put(rows, name, KINDS[kind](rows.num_rows))
        pq.write_table(other, tmp_path / "other.parquet")
        out = tmp_path / f"out of {name}"
        out.mkdir()
        ended = called(script, words_of(script, data, tmp_path / "other.parquet", out))
        assert ends_in_words(script, ended), (name, ended.status, ended.err)


@pytest.mark.parametrize("name", ["caption", "model_name"])
def test_text_that_is_gigabytes_once_it_is_decoded(table, tmp_path, name):
    """A few kilobytes in the file."""
    data, path = table
    rows = pa.concat_tables([pq.read_table(path)] * 15)
    texts = pa.array(["z" * 4_000_000])
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows.num_rows, pa.int32()), texts)
    pq.write_table(put(rows, name, long), tmp_path / "other.parquet")
    for script in ("make_report", "make_release_forms"):
        ended = called(script, words_of(script, data, tmp_path / "other.parquet", tmp_path))
        assert ends_in_words(script, ended), ended.err
        if ended.status == 1 and script == "make_release_forms":
            assert f"other.parquet: its column {name} cannot be read" in ended.err


def test_a_report_counts_what_is_no_text_as_missing(table, tmp_path):
    data, path = table
    rows = pq.read_table(path)
    pq.write_table(put(rows, "model_name", no_utf8(rows.num_rows)), path)
    ended = called("make_report", words_of("make_report", data, path, tmp_path))
    assert ended.status == 0 and "report of 36 images" in ended.out


def test_what_a_release_says_of_other_types_is_their_text(table, tmp_path):
    """The same in the tars' JSON and in the parquet; dates as ISO 8601, bytes in hexadecimal."""
    data, path = table
    rows = pq.read_table(path)
    texts = {"times": "2026-01-01T12:00:00", "dates": "2026-01-01", "binary": "00ff"}
    for kind in texts:
        rows = put(rows, f"my_{kind}", KINDS[kind](rows.num_rows))
    pq.write_table(put(rows, "lora", pa.nulls(rows.num_rows)), path)
    ended = called("make_release_forms", words_of("make_release_forms", data, path, tmp_path))
    assert ended.status == 0, ended.err
    made = pq.read_table(next(tmp_path.glob("release/data/*.parquet")))
    for kind, text in texts.items():
        assert made[f"my_{kind}"].to_pylist() == [text] * made.num_rows
    assert made.schema.field("lora").type == pa.list_(pa.string())
    with tarfile.open(next(tmp_path.glob("release/webdataset/*.tar"))) as tar:
        name = next(name for name in tar.getnames() if name.endswith(".json"))
        record = json.loads(tar.extractfile(name).read())
    assert {kind: record[f"my_{kind}"] for kind in texts} == texts


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_of_a_release_with_such_columns(table, tmp_path, kind):
    data, path = table
    words = words_of("make_release_forms", data, path, tmp_path)
    assert called("make_release_forms", words).status == 0
    (shard,) = tmp_path.glob("release/data/*.parquet")
    rows = pq.read_table(shard)
    for name in ("model_name", "source", "width", "generation_timestamp", "image", "truncated"):
        pq.write_table(put(rows, name, KINDS[kind](rows.num_rows)), shard)
        words = (tmp_path / "release", "--licence", "HPDv2=CC0-1.0")
        ended = called("make_dataset_card", words)
        assert ends_in_words("make_dataset_card", ended), (name, ended.status, ended.err)


SCORES = {
    "lists": KINDS["lists"],
    "no utf8": no_utf8,
    "integers": KINDS["integers"],
    "no hexadecimal": lambda n: pa.array(["zzz"] * n),
    "null": pa.nulls,
}


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("name", ["__key__", "image_sha256", "dhash"])
def test_a_table_of_scores_with_other_columns_is_named(table, tmp_path, kind, name):
    data, path = table
    scores = tmp_path / "scores"
    assert called("score_images", (data.path, scores, "--scores", "dhash")).status == 0
    (file,) = scores.glob("part*.parquet")
    there = pq.ParquetFile(file)
    rows = there.read()
    facts = {k: v for k, v in there.metadata.metadata.items() if k != b"ARROW:schema"}
    pq.write_table(put(rows, name, SCORES[kind](len(rows))).replace_schema_metadata(facts), file)
    for script, words in (
        ("score_images", (data.path, scores, "--scores", "dhash")),
        ("verify_dataset", (data.path, "--scores", scores, "--report", tmp_path / "v.json")),
        (
            "make_release_forms",
            (*words_of("make_release_forms", data, path, tmp_path), "--scores", scores),
        ),
        (
            "convert_parquet_to_wds",
            (
                *words_of("convert_parquet_to_wds", data, path, tmp_path),
                "--scores",
                scores,
                "--where",
                "dhash_distance > 3",
            ),
        ),
    ):
        ended = called(script, words)
        assert ends_in_words(script, ended), (script, ended.status, ended.err)


def without(name):
    return lambda rows: rows.drop_columns([name])


def twice(name):
    return lambda rows: rows.append_column(name, rows[name])


def embeddings(value):
    return lambda rows: rows.append_column("embedding", pa.array([value] * len(rows)))


FORMS = {
    "it has no column __key__": without("__key__"),
    "it has no column image_sha256": without("image_sha256"),
    "it has no column dhash": without("dhash"),
    "its column dhash is there twice": twice("dhash"),
    "its column dhash_distance is there twice": twice("dhash_distance"),
    "its column embedding is there twice": lambda rows: twice("embedding")(embeddings(b"x")(rows)),
    "its column embedding holds no bytes": embeddings(5),
    "its column embedding holds no bytes ": embeddings("abc"),
    "has more than 65,536 bytes": embeddings(b"x" * 70_000),
}


@pytest.mark.parametrize("says", FORMS)
def test_a_table_of_scores_of_another_form_is_named(table, tmp_path, says):
    data, path = table
    scores = tmp_path / "scores"
    assert called("score_images", (data.path, scores, "--scores", "dhash")).status == 0
    (part,) = scores.glob("part-*")
    rows = pq.read_table(part)
    pq.write_table(FORMS[says](rows).replace_schema_metadata(rows.schema.metadata), part)
    ended = called("score_images", (data.path, scores, "--scores", "dhash"))
    assert ended.status == 1 and says.strip() in ended.err and ended.err.count("\n") == 1
    words = (data.path, "--parquet_file", path, "--scores", scores, "--report", tmp_path / "v.json")
    ended = called("verify_dataset", words)
    assert (says.strip() in ended.out) == ("65,536" not in says), ended.out


@pytest.mark.parametrize("kind", ["binary", "times", "decimals", "structs", "lists"])
def test_what_is_left_out_of_tars_is_told_in_words(table, tmp_path, kind):
    """A hash that is no text: images are left out with their reason, and the tars are finished."""
    path = table[1]
    rows = pq.read_table(path)
    place = rows.schema.names.index("image_sha256")
    some = KINDS[kind](3)
    column = pa.concat_arrays([pa.nulls(len(rows) - 3, some.type), some])
    pq.write_table(rows.set_column(place, "image_sha256", column), path)
    words = ("--parquet_file", path, "--base_dir", tmp_path, "--output_dir", tmp_path / "tars")
    for _ in range(2):
        ended = called("convert_parquet_to_wds", (*words, "--num_workers", 1))
        assert ended.status == 3 and "Error" not in ended.err, ended.err


def test_keys_are_converted_once_whatever_is_no_number(table, tmp_path, monkeypatch):
    data, path = table
    scores = tmp_path / "scores"
    assert called("score_images", (data.path, scores, "--scores", "dhash,sharpness")).status == 0
    (part,) = scores.glob("part-*")
    rows = pq.read_table(part)
    place = rows.schema.names.index("score_sharpness")
    nans = pa.array([float("nan")] * len(rows))
    pq.write_table(rows.set_column(place, rows.schema.field(place), nans), part)
    asked = []
    monkeypatch.setattr(
        "postprocess_dataset.verification.scores.values_of",
        lambda column: asked.append(1) or values_of(column),
    )
    words = (data.path, "--parquet_file", path, "--scores", scores, "--report", tmp_path / "v.json")
    assert "nan_score" in called("verify_dataset", words).out
    assert len(asked) == 3
