"""The five processors and broken files: named in one line each, and the others go on."""

import os
import sqlite3

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.combine_prompts.processing import counts, process, run
from tests.fakes.forked_script import ROOT


def broken(tmp_path, source, path, *says, others=None):
    """The broken file is named in one line; the others go on; without others nothing is written."""
    ended, prompts = process(
        source,
        [path, *([others] if others else [])],
        tmp_path / "broken.json",
        status=3 if others else 1,
    )
    lines = [line for line in ended.stderr.splitlines() if line]
    assert len(lines) == 1 and path.name in lines[0], ended.stderr
    for words in says:
        assert words in lines[0], lines[0]
    assert (prompts is None) == (others is None)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_truncated_parquet(tmp_path):
    whole = (ROOT / "examples" / "image_reward" / "metadata-train.parquet").read_bytes()
    (tmp_path / "metadata-train.parquet").write_bytes(whole[: len(whole) // 2])
    broken(
        tmp_path,
        "image_reward",
        tmp_path / "metadata-train.parquet",
        "cannot be read",
        others=ROOT / "examples" / "image_reward" / "metadata-test.parquet",
    )


def test_parquet_torn_in_a_later_row_group(tmp_path):
    path = tmp_path / "train-0.parquet"
    pq.write_table(
        pa.table({"caption": [f"a prompt with number {i}" for i in range(60_000)]}),
        path,
        row_group_size=30_000,
        compression="zstd",
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(data)
    ended, prompts = process("pickscore", [path], tmp_path / "out.json", status=3)
    assert "train-0.parquet: stopped after row" in ended.stderr and 20_000 <= len(prompts) <= 30_000


def test_parquet_without_the_column(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "train.parquet")
    broken(
        tmp_path,
        "pickscore",
        tmp_path / "train.parquet",
        "no column 'caption'",
        "its columns are text",
    )


def test_null_invalid_and_endless_rows(tmp_path):
    bad = pa.array([b"a good prompt", b"bad \xff\xfe bytes", None, b"x" * 30_000], pa.binary())
    table = pa.table({"caption": pa.Array.from_buffers(pa.string(), 4, bad.buffers())})
    pq.write_table(table, tmp_path / "train.parquet")
    ended, prompts = process("pickscore", tmp_path, tmp_path / "out.json", status=3)
    assert prompts == ["a good prompt"] and counts(ended)["dropped: no prompt (null)"] == 1
    assert (
        "train.parquet: row 1: not UTF-8" in ended.stderr
        and "row 3: longer than 20,000 characters" in ended.stderr
        and "row 2" not in ended.stderr
    )


def test_sqlite_locked_empty_other(tmp_path):
    path = tmp_path / "sac.sqlite"
    path.write_bytes(b"")
    broken(tmp_path, "sac", path, "no such table: generations")
    path.write_bytes(b"this is no database " * 100)
    broken(tmp_path, "sac", path, "not a database")
    path.write_bytes((ROOT / "examples" / "sac" / "sac_public_2022_06_29.sqlite").read_bytes())
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    broken(tmp_path, "sac", path, "database is locked")
    lock.close()


@pytest.mark.parametrize("beside", ["-journal", "-wal", "-shm"])
def test_a_pipe_beside_a_sqlite_file_is_not_waited_for(tmp_path, beside):
    """SQLite would wait for its writer, for ever; it looks beside the file that a link leads to."""
    (tmp_path / "real").mkdir()
    path = tmp_path / "real/sac 100%.sqlite"
    path.write_bytes((ROOT / "examples" / "sac" / "sac_public_2022_06_29.sqlite").read_bytes())
    link = tmp_path / "sac.sqlite"
    link.symlink_to(path)
    assert process("sac", [link], tmp_path / "out.json", status=0)[1]
    os.mkfifo(f"{path}{beside}")
    broken(tmp_path, "sac", link, f"sac 100%.sqlite{beside} is no regular file")


def test_sqlite_row_that_is_not_utf8(tmp_path):
    database = sqlite3.connect(tmp_path / "sac.sqlite")
    database.execute("CREATE TABLE generations (id INTEGER PRIMARY KEY, prompt TEXT)")
    database.executemany(
        "INSERT INTO generations VALUES (?, CAST(? AS TEXT))",
        [(1, b"a fox"), (7, b"\xc3("), (9, None), (11, b"a hare")],
    )
    database.commit()
    database.close()
    ended, prompts = process("sac", tmp_path, tmp_path / "out.json", status=3)
    assert prompts == ["a fox", "a hare"] and "sac.sqlite: row 7: not UTF-8" in ended.stderr


@pytest.mark.parametrize(
    "statement, says",
    [
        (
            "CREATE VIEW generations AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1"
            " FROM r) SELECT n AS id, 'a fox' AS prompt FROM r",
            "generations is a view or a virtual table",
        ),
        (
            "CREATE VIEW Generations AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1"
            " FROM r) SELECT n AS rowid, n AS id, 'a fox' AS prompt FROM r",
            "generations is a view or a virtual table",
        ),
        (
            "CREATE TABLE generations (id INTEGER, prompt TEXT GENERATED ALWAYS AS"
            " (printf('%.*c', 900000000, 'x')) VIRTUAL)",
            "a column that is computed",
        ),
        (
            "CREATE VIRTUAL TABLE Generations USING fts5(id, prompt)",
            "generations is a view or a virtual table",
        ),
        (  # each row would be looked for among all: 40,000 rows took minutes
            "CREATE TABLE generations (RowID INTEGER, id INTEGER, prompt TEXT)",
            "a column called rowid",
        ),
    ],
)
def test_rows_that_are_computed(tmp_path, statement, says):
    """They may have no end, or any size, in a file of 8 kB."""
    path = tmp_path / "sac.sqlite"
    database = sqlite3.connect(path)
    database.execute(statement)
    database.close()
    broken(tmp_path, "sac", path, says)


def test_the_case_of_a_tables_name_does_not_count(tmp_path):
    """As for SQLite."""
    database = sqlite3.connect(tmp_path / "sac.sqlite")
    database.execute("CREATE TABLE Generations (id INTEGER PRIMARY KEY, prompt TEXT)")
    database.execute("INSERT INTO generations VALUES (1, 'a fox')")
    database.commit()
    database.close()
    assert process("sac", tmp_path, tmp_path / "out.json", status=0)[1] == ["a fox"]


def test_a_giant_row_costs_itself(tmp_path):
    database = sqlite3.connect(tmp_path / "sac.sqlite")
    database.execute("CREATE TABLE generations (id INTEGER PRIMARY KEY, prompt)")
    database.execute("INSERT INTO generations VALUES (1, 'a fox'), (11, 'a hare'), (12, 'an owl')")
    database.execute(
        "INSERT INTO generations VALUES (7, zeroblob(3000000)), (13, zeroblob(3000000))"
    )
    database.commit()
    database.close()
    ended, prompts = process("sac", tmp_path, tmp_path / "out.json", status=3)
    assert prompts == ["a fox", "a hare", "an owl"]
    assert "row 7: longer than" in ended.stderr and "row 13: longer than" in ended.stderr


def test_csv(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("id,text\n1,a fox\n")
    broken(tmp_path, "gecko", path, "no column 'prompt'", "id, text")
    path.write_text("")
    broken(tmp_path, "gecko", path, "empty")
    path.write_bytes(
        b"id,prompt\n1,a fox\n2,bad \xff\n3,a hare\n4," + b"x" * 10_000_000 + b"\n5,an owl\n"
    )
    ended, prompts = process("gecko", path, tmp_path / "out.json", status=3)
    assert prompts == ["a fox", "a hare", "an owl"]
    assert "prompts.csv: row 3: not UTF-8" in ended.stderr and "row 5: longer than" in ended.stderr


@pytest.mark.parametrize(
    "content, says",
    [
        (b'{"prompt": "a"}', "not a JSON list"),
        (b'["a fox", "a', "not JSON"),
        (b'["\xff"]', "not UTF-8"),
        (b"", "not JSON"),
        (b'["' + b"x" * 10_000_000 + b'"]', "longer than"),
        (b"[7]", "not a string (int)"),
    ],
)
def test_json(tmp_path, content, says):
    (tmp_path / "anime.json").write_bytes(content)
    broken(tmp_path, "hpdv2", tmp_path / "anime.json", says)
    broken(
        tmp_path,
        "hpdv2",
        tmp_path / "anime.json",
        says,
        others=ROOT / "examples" / "hpdv2" / "photo.json",
    )


def test_folder_without_the_files(tmp_path):
    ended = run(
        "process_image_reward", "--input", tmp_path, "--output", tmp_path / "out.json", status=1
    )
    assert (
        "no metadata-train.parquet in this folder" in ended.stderr
        and not (tmp_path / "out.json").exists()
    )
    assert (
        "no such file"
        in run(
            "process_sac",
            "--input",
            tmp_path / "nowhere",
            "--output",
            tmp_path / "out.json",
            status=1,
        ).stderr
    )


def test_output_that_is_a_pipe_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    words = ["--input", ROOT / "examples" / "gecko", "--output", tmp_path / "pipe"]
    ended = run("process_gecko", *words, status=1)
    assert "it is no regular file" in ended.stderr and (tmp_path / "pipe").is_fifo()


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    ended = run(
        "process_gecko",
        "--input",
        ROOT / "examples" / "gecko",
        "--output",
        tmp_path / "file" / "out.json",
        status=1,
    )
    assert "cannot write" in ended.stderr and len(ended.stderr.splitlines()) == 1
