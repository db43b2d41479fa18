"""Samples read by worker processes: the same rows in the same order, and no worker is left."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from generate.dataset.collected import publish_collected
from postprocess_dataset import sample_checks
from postprocess_dataset.to_table import chunk_workers, conversion, sample_files
from tests.postprocess_dataset.conftest import pack

SLEEPS = (SimpleNamespace(ru_nvcsw=n * 1_000) for n in itertools.count())  # of a cold disk
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def by_workers(monkeypatch):
    """by_workers(): from here on chunks of five samples, each read by a worker."""

    def begin():
        monkeypatch.setattr(chunk_workers, "INLINE", 0)
        monkeypatch.setattr(conversion, "CHUNK", 5)

    return begin


def test_the_same_table(folder, to_parquet, by_workers, tmp_path):
    data = folder().fill(range(990, 1020), 3)
    data.add(5000, mood="calm")
    (data.path / "000001/1005_1.json").write_text("{")
    (data.path / "000001/1007_0.json").unlink()
    assert to_parquet(data.path, tmp_path / "here.parquet").status == 3
    by_workers()
    ended = to_parquet(data.path, tmp_path / "workers.parquet")
    assert ended.status == 3 and "89 rows; 1 rejected" in ended.out
    assert (tmp_path / "workers.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    here, there = (
        (tmp_path / f"{name}.parquet.rejects.jsonl").read_text().splitlines()
        for name in ("here", "workers")
    )
    assert sorted(here) == sorted(there)


@pytest.mark.parametrize("kind", ["loose", "packed", "collected", "slow disk"])
@pytest.mark.parametrize("workers", [False, True])
def test_large_jsons_are_read_some_at_a_time(
    folder, to_parquet, by_workers, tmp_path, monkeypatch, kind, workers
):
    """Of 8,192 JSONs of 1 MiB, all at once, no memory is left; rows keep their order."""
    data = folder().fill(range(990, 1003), 3)
    (data.path / "000000/993_1.json").write_text("{")
    if kind == "collected":
        for path in data.path.glob("*/99[68]_*.json"):
            path.write_text(json.dumps(json.loads(path.read_text())) + "\n")
        for index in (996, 998):
            assert publish_collected(data.path, index, 3, "1-1")
    if kind == "packed":
        (data.path / "000000/COMPLETE").write_text("{}")
        assert pack(data.path).status == 3
    if kind == "slow disk":
        monkeypatch.setattr(sample_files, "PROBE", 4)
        monkeypatch.setattr(sample_files, "COLD_S", 0)
        monkeypatch.setattr(resource, "getrusage", lambda who: next(SLEEPS))
    assert to_parquet(data.path, tmp_path / "here.parquet").status == 3
    if workers:
        by_workers()
    read: list[int] = []
    parsed = sample_checks.parse
    monkeypatch.setattr(sample_checks, "parse", lambda some: read.append(len(some)) or parsed(some))
    monkeypatch.setattr(sample_files, "ROOM", 900)
    monkeypatch.setattr(sample_files, "STEP", 2)
    ended = to_parquet(data.path, tmp_path / "large.parquet")
    assert ended.status == 3 and "38 rows; 1 rejected" in ended.out, ended.err
    assert workers or max(read) <= 8
    assert (tmp_path / "large.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_a_small_folder_before_a_large_one(folder, to_parquet, rows_of, monkeypatch, tmp_path):
    """The first is read here, the second by workers: their rows go into one table."""
    data = folder().fill([5, *range(1000, 1020)], 1)
    monkeypatch.setattr(chunk_workers, "INLINE", 5)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    assert len(rows_of(tmp_path / "t.parquet")) == 21


def test_a_worker_that_is_killed(folder, to_parquet, by_workers, tmp_path, monkeypatch):
    data = folder().fill(range(20), 1)

    def die(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(chunk_workers, "read_chunk", die)
    by_workers()
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 1 and "a worker process was killed" in ended.err
    assert ended.err.count("\n") == 1 and not (tmp_path / "t.parquet").exists()


def test_control_c(folder, tmp_path):
    """The parent alone answers, in one line, and takes its workers along."""
    data = folder().fill(range(1000), 1)
    code = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[1:]
from common.command_line import run_script
from postprocess_dataset.to_table import chunk_workers
from postprocess_dataset import convert_json_to_parquet
chunk_workers.INLINE = 0
read_chunk = chunk_workers.read_chunk
def slow(*args):
    print(os.getpid(), file=open(os.environ["MARK"], "a"), flush=True)
    time.sleep(1)
    return read_chunk(*args)
chunk_workers.read_chunk = slow
run_script(convert_json_to_parquet.main)
"""
    mark = tmp_path / "mark"
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT), str(data.path), str(tmp_path / "t.parquet")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "MARK": str(mark)},
    )
    until = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and said.count("\n") == 1 and "interrupted" in said
    assert not any(os.path.exists(f"/proc/{pid}") for pid in mark.read_text().split())
    assert not (tmp_path / "t.parquet").exists()
