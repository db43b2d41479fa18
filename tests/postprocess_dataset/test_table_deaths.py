"""A conversion that dies at any step leaves the old table; one beside a running writer, whole
samples.
"""

import os
import subprocess
import sys
import time
from pathlib import Path


def crashes(run, *args, after=lambda: None):
    """Let the script die at every n-th write or rename until it once gets through; `after` looks
    at what each crash left.
    """
    for n in range(1000):
        if (status := run(n, *args)) != -9:
            assert status == 0 and n > 5
            return
        after()
    raise AssertionError("never got through")


def test_die_anywhere_in_a_first_conversion(folder, to_parquet, dying, tmp_path):
    data, table = folder().fill([5, 1005], 1), tmp_path / "t.parquet"
    assert to_parquet(data.path, tmp_path / "whole.parquet").status == 0
    whole = (tmp_path / "whole.parquet").read_bytes()

    def after():
        assert not table.exists() or table.read_bytes() == whole  # never a part of it

    crashes(dying, "convert_json_to_parquet", data.path, table, after=after)
    assert table.read_bytes() == whole


def test_die_anywhere_in_an_update(folder, to_parquet, dying, rows_of, deleted, tmp_path):
    import shutil

    data, table = folder().fill([5, 1005, 2005], 2), tmp_path / "t.parquet"
    (data.path / "000002" / "2005_1.json").write_text("{")
    data.settle()
    assert to_parquet(data.path, table).status == 3
    first = tmp_path / "first"
    first.mkdir()
    for path in tmp_path.glob("t.parquet*"):
        shutil.copy(path, first)
    old = rows_of(table)
    data.fill([2005, 7], 2), os.unlink(data.path / "000001" / "1005_0.jpg")
    assert to_parquet(data.path, table, "--update").status == 0
    whole, names = table.read_bytes(), deleted(table)
    assert len(rows_of(table)) == 8 and names == ["HPDv2/000001/1005_0"]
    for n in range(100):
        for path in tmp_path.glob(".t.parquet*"):
            path.unlink()
        for path in first.iterdir():
            shutil.copy(path, tmp_path)
        died = dying(n, "convert_json_to_parquet", data.path, table, "--update")
        assert rows_of(table) == old or table.read_bytes() == whole
        assert (
            to_parquet(data.path, table, "--update").status == 0
        )  # after each crash the same command completes it
        assert (
            table.read_bytes() == whole
            and deleted(table) == names
            and not Path(f"{table}.rejects.jsonl").exists()
        )
        if died != -9:
            return


def test_while_a_run_goes_on(folder, process, to_parquet, rows_of, tmp_path):
    """A real writer publishes images, then their JSON; tables made meanwhile hold whole samples,
    and reject none that soon is.
    """
    data = folder()
    data.add(0)
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            """
import itertools, os, sys, time
folder = sys.argv[1]
image = open(folder + "/0_0.jpg", "rb").read()
record = open(folder + "/0_0.json").read()
for n in itertools.count(1):
    own = record.replace('"prompt_index": 0', f'"prompt_index": {n}')
    for suffix, content in ((".jpg", image), (".json", own.encode())):
        draft = f"{folder}/.{n}_0{suffix}.1-1.tmp"
        with open(draft, "wb") as f:
            f.write(content)
        os.link(draft, f"{folder}/{n}_0{suffix}")
        os.unlink(draft)
    time.sleep(0.0005)
"""[1:],
            str(data.path / "000000"),
        ]
    )
    try:
        table, rows = tmp_path / "t.parquet", []
        for _ in range(8):
            ended = to_parquet(data.path, table, "--update")
            assert ended.status == 0, ended.err
            found = rows_of(table)
            assert found[: len(rows)] == rows and len(found) > len(rows)
            rows = found
            time.sleep(0.05)
    finally:
        writer.kill()
        writer.wait()
    to_parquet(data.path, table, "--update")
    assert {r["prompt_index"] for r in rows_of(table)} == {
        int(p.name.split("_")[0]) for p in (data.path / "000000").glob("[0-9]*.json")
    }
