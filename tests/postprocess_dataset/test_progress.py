"""A log gets a line every half minute, a terminal a bar, and both say how fast it goes and how
long it will take.
"""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from postprocess_dataset import progress

SCRIPTS = Path(__file__).resolve().parents[2] / "postprocess_dataset"


def test_a_line_every_half_minute(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    work = progress.Progress("images", 50_000)
    for _ in range(35):  # 35 s, 400 images and 20 MB in each
        now[0] += 1
        work.add(400, 20_000_000)
    assert capsys.readouterr().err == "12,400 of 50,000 images, 400 images/s, 20 MB/s, 94 s left\n"
    for _ in range(35):
        now[0] += 1
        work.add(400, 20_000_000)
    assert (
        capsys.readouterr().err.startswith("24,800 of 50,000 images")
        and "left" not in progress.Progress("samples").line()
    )


@pytest.mark.parametrize("script", ["convert_json_to_parquet", "convert_parquet_to_wds"])
def test_a_bar_on_a_terminal(table, tmp_path, script):
    data, path = table
    args = {
        "convert_json_to_parquet": [data.path, tmp_path / "again.parquet"],
        "convert_parquet_to_wds": [
            "--parquet_file",
            path,
            "--base_dir",
            data.path,
            "--output_dir",
            tmp_path / "tars",
            "--num_workers",
            2,
        ],
    }[script]
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 120))
    command = [sys.executable, SCRIPTS / f"{script}.py", *args]
    run = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=side, text=True)
    os.close(side)
    out, seen = run.communicate(timeout=60)[0], b""
    try:
        while piece := os.read(terminal, 65536):
            seen += piece
    except OSError:  # the other side is closed and all is read
        pass
    os.close(terminal)
    shown = seen.decode()
    assert run.returncode == 0 and re.search(
        r"36(/36)? (samples|images)?.*(samples|images)/s", shown
    ), shown
    assert "36 rows" in out or "36 images" in out
    if script == "convert_parquet_to_wds":
        assert "MB/s" in shown and "output_dataset_000000.tar: 36 images" in shown
