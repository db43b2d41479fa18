"""What a user sees of a run: a bar, a line a minute in each log, --tail_log, --dry_run."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from common.command_line import OUTPUT_CLOSED

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "generate" / "generate_images.py"
NOT_OURS = ("SLURM", "FAKE_", "UNIDISC_DIR", "OLLAMA_HOST")
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(NOT_OURS)}
FAST_CLOCK = """
import time
real = time.monotonic
if b"--is_slurm_task" in open("/proc/self/cmdline", "rb").read():  # a client, not its server
    time.monotonic = lambda: 40 * real()
"""


def on_a_terminal(command, seconds, until=None, **environment):
    """Run a command on a terminal of 120 columns, or until it has shown a text.

    What it shows, and its exit status (None: it was ended).
    """
    process, terminal = pty.fork()
    if not process:
        termios.tcsetwinsize(0, (40, 120))
        os.execvpe(command[0], [str(word) for word in command], ENVIRONMENT | environment)
    shown, end = b"", time.monotonic() + seconds
    while time.monotonic() < end and not (until and until in shown):
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # EIO: the other end is closed
                break
    ended, status = os.waitpid(process, os.WNOHANG if until or time.monotonic() >= end else 0)
    if not ended:
        os.kill(process, 9)
        os.waitpid(process, 0)
    os.close(terminal)
    return shown.decode(errors="replace"), os.waitstatus_to_exitcode(status) if ended else None


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "birds.json").write_text(json.dumps([f"bird number {i}" for i in range(40)]))
    return tmp_path / "birds.json"


def drawing(prompts):
    return [
        sys.executable,
        CLIENT,
        prompts,
        "--pipeline",
        f"{ROOT}/tests/fakes/fake_pipeline.py:FakePipeline",
        "--augment_prompts=False",
        "--num_workers=2",
        "--resolution=64",
        "--batch_size=2",
        "--max_chunk_size=5",
        "--output_root",
        prompts.parent / "out",
    ]


def test_what_was_set_aside_is_said_each_time(prompts):
    """At the end of the run, and by the next call, which finds nothing to do: both end with 3."""
    for says in (
        "39 of 40 prompts done, 39 images\n1 prompts failed",
        "birds: all indices are done, but for 1 set aside",
    ):
        shown = subprocess.run(
            [*map(str, drawing(prompts))],
            capture_output=True,
            text=True,
            env=ENVIRONMENT | {"FAKE_BLACK": "number 3$"},
        )
        assert shown.returncode == 3 and says in shown.stdout and not shown.stderr, (
            shown.stdout + shown.stderr
        )


def test_a_bar_on_a_terminal_and_a_line_a_minute_in_each_log(tmp_path, prompts):
    """The clients' clocks run 40 times as fast, so that a minute takes 1.5 s."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(FAST_CLOCK)
    began = time.monotonic()
    shown, status = on_a_terminal(
        drawing(prompts), 90, FAKE_BATCH_S="0.6", PYTHONPATH=str(tmp_path / "clock")
    )
    assert status == 0, shown
    bars = [int(done) for done in re.findall(r"\| (\d+)/40 \[", shown)]
    assert bars == sorted(bars) and bars[-1] == 40 and len(set(bars)) >= 2, shown
    assert "\nbirds: 40 of 40 prompts done, 40 images\r" in shown, "the last line is one of its own"
    minutes = (time.monotonic() - began) * 40 / 60
    counts = []
    for path in (tmp_path / "out").glob("local_*.out"):
        lines = re.findall(
            r"^[\d-]+ \d\d:\d\d:\d\dZ INFO (\d+) images, .* prompts done; .*; device busy",
            path.read_text(),
            re.M,
        )
        assert lines == sorted(lines, key=int), path.read_text()
        counts.append(len(lines) - 1)  # one more when it leaves
    assert len(counts) == 2 and 2 <= max(counts) <= minutes, (counts, minutes)


def test_the_server_shows_its_link_and_tunnel_on_a_terminal_only(tmp_path):
    server = ROOT / "generate" / "image_server.py"
    shown, _ = on_a_terminal(
        [sys.executable, server, "--host", "127.0.0.1", "--output_root", tmp_path],
        60,
        until=b"from elsewhere: ssh",
    )
    known = json.loads((tmp_path / ".server" / "server.json").read_text())
    assert re.search(re.escape(known["url"]) + r"\?code=\S{32}\r\nfrom elsewhere: ssh", shown)
    assert known["token"] not in shown
    assert (
        "INFO job server" in (tmp_path / "image_server.out").read_text()
        and known["token"] not in (tmp_path / "image_server.out").read_text()
    )


def test_tail_log_follows_the_newest_logs_of_the_data_sets_arrays(tmp_path, prompts):
    """Of the last submission only: a split array has two numbers; other logs lie beside them."""
    root = tmp_path / "out"
    (root / ".server").mkdir(parents=True)
    rows = [
        ("birds", "7", "old"),
        ("cats", "8", "cats"),
        ("birds", "9", "new"),
        ("birds", "10", "new"),
    ]
    (root / ".server" / "arrays.jsonl").write_text(
        "".join(
            json.dumps({"dataset": d, "array": a, "tasks": "0-1%1", "server": None, "script": s})
            + "\n"
            for d, a, s in rows
        )
    )
    for log in ("7_0", "8_0", "9_0", "10_1"):
        (root / f"{log}.out").write_text(f"this is {log}\n")
    command = [sys.executable, CLIENT, prompts, "--output_root", root, "--tail_log"]
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    shown = []
    try:
        while "this is 9_0\n" not in shown or "this is 10_1\n" not in shown:
            shown.append(tail.stdout.readline())
            assert shown[-1], shown
        with open(root / "9_0.out", "a") as log:
            log.write("one more line\n")
        while shown[-1] != "one more line\n":
            shown.append(tail.stdout.readline())
            assert shown[-1], shown
    finally:
        tail.kill()
        tail.wait()
    assert "this is 7_0\n" not in shown and "this is 8_0\n" not in shown


def test_tail_log_ends_when_no_task_is_left_that_could_write_a_log(tmp_path, prompts):
    """The array was cancelled before its first task began: no log will ever come."""
    root = tmp_path / "out"
    (root / ".server").mkdir(parents=True)
    entry = {"dataset": "birds", "array": "7", "tasks": "0-1%1", "server": None, "script": "s"}
    (root / ".server" / "arrays.jsonl").write_text(json.dumps(entry) + "\n")
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\ncat {tmp_path}/queue\n")
    squeue.chmod(0o755)
    queue = tmp_path / "queue"
    queue.write_text("7 generate_parallel_birds\n")
    tail = subprocess.Popen(
        [sys.executable, CLIENT, prompts, "--output_root", root, "--tail_log"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    try:
        assert tail.stdout.readline() == "array 7: no task has started yet\n"
        queue.write_text("8 generate_parallel_cats\n")
        _, said = tail.communicate(timeout=60)
    finally:
        tail.kill()
        tail.wait()
    assert tail.returncode == 1 and "array 7 has left the queue (cancelled?)" in said


def most_kb(process):
    """The most memory that a process has had."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def test_tail_log_shows_plain_files_alone_and_harmless(tmp_path, prompts):
    """Libraries write into the logs, too, and a colleague can put a link or a pipe beside them."""
    root = tmp_path / "out"
    root.mkdir()
    (root / "local_a.out").write_bytes(b"a\x1b[31mred\x1b]0;t\x07 \xff\n")
    (tmp_path / "private").write_text("my secret\n")
    (root / "local_b.out").symlink_to(tmp_path / "private")
    os.mkfifo(root / "local_c.out")
    command = [sys.executable, CLIENT, prompts, "--output_root", root, "--tail_log"]
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        assert tail.stdout.readline() == "a\\x1b[31mred\\x1b]0;t\\x07 \\xff\n"
        with open(root / "local_a.out", "a") as log:
            log.write("the end\n")
        assert tail.stdout.readline() == "the end\n"
        before = most_kb(tail.pid)
        with open(root / "local_a.out", "a") as log:
            log.truncate(48 << 20)
            log.write("\nafter it\n")
        assert tail.stdout.readline().startswith("\\x00")
        assert tail.stdout.readline() == "after it\n"
        assert most_kb(tail.pid) - before < 20_000
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 130
    finally:
        tail.kill()
        tail.wait()
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert tail.stdout.readline()
    tail.stdout.close()  # as of `| head -1`, while no line comes any more
    assert tail.wait(30) == OUTPUT_CLOSED
    (root / "local_a.out").unlink()
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert ended.returncode == 1 and "is no plain file, so it is not shown" in ended.stderr


def test_dry_run_shows_the_script_first(tmp_path, prompts):
    """Then the estimate, and the model's licence; nothing is written, and no SLURM is needed."""
    shown = subprocess.run(
        [
            sys.executable,
            CLIENT,
            prompts,
            "--output_root",
            tmp_path / "out",
            "--use_slurm",
            "--dry_run",
        ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=tmp_path,
    )
    assert shown.returncode == 0 and not shown.stderr, shown.stderr
    script, _, estimate = shown.stdout.partition("\nestimate ")
    assert (
        script.startswith("#!/bin/bash\n#SBATCH ")
        and "--dry_run" not in script
        and "note on" not in script
    )
    assert (
        "4,000 images: 40 prompts x 100" in estimate
        and "Stability AI Community License" in estimate
    )
    assert not (tmp_path / "out").exists()
