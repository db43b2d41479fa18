"""Tars whose making is killed at any step, interrupted, or whose table is replaced meanwhile.

Whole under their names, or absent.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest


def test_die_anywhere(folder, to_parquet, to_tars, dying, tmp_path, tree):
    data = folder().fill(range(6), 1)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    args = ["--split", "a=0.5,b=0.5", "--num_workers", 1]
    assert to_tars(tmp_path / "t.parquet", data.path, tmp_path / "whole", *args).status == 0
    whole, died = tree(tmp_path / "whole"), 0
    words = [
        *args,
        "--parquet_file",
        tmp_path / "t.parquet",
        "--base_dir",
        data.path,
        "--output_dir",
        tmp_path / "tars",
    ]
    for n in range(500):
        status = dying(n, "convert_parquet_to_wds", *words)
        for tar in (tmp_path / "tars").glob("*.tar"):
            assert tar.read_bytes() == whole[tar.name]  # under its name only when whole
        if status == 0:
            break
        died += 1
        if n % 3 == 2:  # otherwise the next run goes on from what this one left
            shutil.rmtree(tmp_path / "tars")
    assert (
        died > 20 and tree(tmp_path / "tars") == whole and not list((tmp_path / "tars").glob(".*"))
    )


@pytest.fixture
def heavy(folder, to_parquet, tmp_path):
    """40 samples of 0.3 MB and their table: shards of 1 MB take a moment."""
    data = folder().fill(range(40), 1).heavier(300_000)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    return data, tmp_path / "t.parquet"


def test_sigkill_of_a_real_run_with_workers(heavy, process, to_tars, tmp_path, tree):
    data, path = heavy
    script = Path(__file__).resolve().parents[2] / "postprocess_dataset/convert_parquet_to_wds.py"
    args = [
        "--parquet_file",
        path,
        "--base_dir",
        data.path,
        "--output_dir",
        tmp_path / "tars",
        "--num_workers",
        2,
        "--shard_size_mb",
        1,
    ]
    for _ in range(2):
        run = subprocess.Popen(
            [sys.executable, script, *map(str, args)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 30
        had = len(list((tmp_path / "tars").glob("*.tar"))) if (tmp_path / "tars").exists() else 0
        while (
            run.poll() is None
            and time.monotonic() < until
            and len(list((tmp_path / "tars").glob("*.tar"))) <= had
        ):
            time.sleep(0.001)
        workers = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(run.pid)], capture_output=True, text=True
        ).stdout.split()
        run.send_signal(
            signal.SIGKILL
        )  # of the parent alone: its workers must not go on as orphans
        run.wait()
        until = time.monotonic() + 30
        while (
            any(
                os.path.exists(f"/proc/{pid}")
                and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
                for pid in workers
            )
            and time.monotonic() < until
        ):
            time.sleep(0.01)
        assert not any(
            os.path.exists(f"/proc/{pid}")
            and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
            for pid in workers
        )
        for shard in (tmp_path / "tars").glob("*.tar"):
            with tarfile.open(shard) as tar:
                assert len(tar.getnames()) % 3 == 0
    assert process("convert_parquet_to_wds", *args).returncode == 0
    assert to_tars(
        tmp_path / "t.parquet", data.path, tmp_path / "whole", "--shard_size_mb", 1
    ).status == 0 and tree(tmp_path / "tars") == tree(tmp_path / "whole")


def test_control_c(heavy, process, tmp_path):
    data, path = heavy
    script = Path(__file__).resolve().parents[2] / "postprocess_dataset/convert_parquet_to_wds.py"
    args = [
        "--parquet_file",
        path,
        "--base_dir",
        data.path,
        "--output_dir",
        tmp_path / "tars",
        "--num_workers",
        2,
        "--shard_size_mb",
        1,
    ]
    run = subprocess.Popen(
        [sys.executable, script, *map(str, args)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while run.poll() is None and not list((tmp_path / "tars").glob("*_stats.json")):
        time.sleep(0.001)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of them
    said = run.communicate(timeout=60)[1]
    assert (
        run.returncode in (0, 130)
        and "Traceback" not in said
        and (run.returncode == 0 or "interrupted" in said)
    )
    assert process("convert_parquet_to_wds", *args).returncode == 0


def test_control_c_while_workers_are_forked(heavy, process, tmp_path):
    """Ctrl-C reaches the whole process group, also a worker that is just born: the parent alone
    answers.
    """
    data, path = heavy
    code = """
import os, signal, sys
# a shell's background job begins with it ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
real = os.fork
def fork():
    pid = real()
    if not pid:
        os.killpg(0, signal.SIGINT)
    return pid
os.fork = fork
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[1:]
from common.command_line import run_script
from postprocess_dataset import convert_parquet_to_wds
run_script(convert_parquet_to_wds.main)
"""
    root = Path(__file__).resolve().parents[2]
    args = [
        "--parquet_file",
        path,
        "--base_dir",
        data.path,
        "--output_dir",
        tmp_path / "tars",
        "--num_workers",
        2,
        "--shard_size_mb",
        1,
    ]
    command = [sys.executable, "-c", code, root, *args]
    ended = subprocess.run(
        list(map(str, command)),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        timeout=60,
    )
    assert (
        ended.returncode == 130 and "interrupted" in ended.stderr and ended.stderr.count("\n") == 1
    ), ended.stderr
    assert process("convert_parquet_to_wds", *args).returncode == 0


def test_a_table_replaced_meanwhile(table, to_tars, tmp_path, monkeypatch):
    from postprocess_dataset import table as table_module
    from postprocess_dataset.to_tars import shard_files

    data, path = table
    write = shard_files.write_shard

    def replaced(*args):
        stats = write(*args)
        monkeypatch.setattr(table_module, "identity", lambda path: "another")
        return stats

    monkeypatch.setattr(shard_files, "write_shard", replaced)
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert (
        ended.status == 1
        and "was replaced while" in ended.err
        and not list((tmp_path / "tars").glob("*_stats.json"))
    )
