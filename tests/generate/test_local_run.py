"""A run on this machine: its server is shared and looked after, and nothing is left behind it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from generate.client import restart
from generate.launch import client_process
from generate.launch.client_process import ClientProcess
from generate.protocol.connection import Connection, ServerAway, read_server_json
from tests.fakes.running_client import ENVIRONMENT, PIPELINE, ROOT
from tests.fakes.running_server import until


@pytest.fixture
def root(tmp_path):
    (tmp_path / "birds.json").write_text(json.dumps([f"bird number {i}" for i in range(40)]))
    return tmp_path / "out"


def start(root, *words, name="birds", batch_s=0.3, **kwargs):
    """A local run of 40 prompts: at least 20 x batch_s."""
    command = [sys.executable, "-u", f"{ROOT}/generate/generate_images.py"]
    command += [f"{root.parent}/{name}.json", "--pipeline", PIPELINE, "--augment_prompts=False"]
    command += ["--resolution=64", "--batch_size=2", "--max_chunk_size=2", "--output_root", root]
    kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | kwargs
    environment = ENVIRONMENT | {"FAKE_BATCH_S": str(batch_s)}
    return subprocess.Popen(
        [*map(str, command), *words], env=environment, preexec_fn=heed_hangup, **kwargs
    )


def heed_hangup():
    """Under nohup it is ignored, and that is inherited."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def processes(root):
    """{process id: command line} of all that works on an output root."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = (
                Path(f"/proc/{entry}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")
            )
        except OSError:
            continue
        if str(root) in line and "generate/" in line:
            found[int(entry)] = line
    return found


def images(root):
    return len(list(root.glob("generated_images/*/*/*.jpg")))


def answers(root):
    try:
        Connection(root).close()
    except ServerAway:
        return False
    return True


def gone(root):
    until(lambda: not processes(root), lambda: processes(root), 30)
    assert not answers(root)


def test_a_server_that_dies_is_started_again(root):
    run = start(root)
    until(lambda: images(root) >= 4, "images")
    os.kill(read_server_json(root).pid, signal.SIGKILL)
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 0 and images(root) == 40, out
    release = f"release.py {root}/generated_images/birds release/birds"
    assert out.count(release) == 1, out
    assert out.count("the job server has died; starting it again") == 1
    gone(root)


def test_two_runs_share_a_server_and_the_last_one_ends_it(root):
    (root.parent / "cats.json").write_text(json.dumps([f"cat number {i}" for i in range(4)]))
    long = start(root, batch_s=4)
    until(lambda: images(root) >= 2, "images")
    short = start(root, name="cats")
    out, _ = short.communicate(timeout=120)
    assert short.returncode == 0 and "job server: process" not in out, out
    assert answers(root), "the other run goes on"
    long.send_signal(signal.SIGINT)
    out, _ = long.communicate(timeout=120)
    assert long.returncode == 130 and 4 < images(root) < 44, out
    gone(root)


def test_the_run_that_has_started_the_server_may_end_first(root):
    (root.parent / "cats.json").write_text(json.dumps([f"cat number {i}" for i in range(4)]))
    short = start(root, name="cats")
    until(lambda: answers(root), "the server")
    long = start(root)
    short.communicate(timeout=120)
    assert short.returncode == 0 and answers(root)
    out, _ = long.communicate(timeout=120)
    assert long.returncode == 0 and images(root) == 44, out
    gone(root)


def test_a_client_that_ends_too_early_is_no_success(root):
    """A library that calls exit(0) ended the run with status 0, "0 of 40 prompts done"."""
    pipeline = root.parent / "leaves.py"
    pipeline.write_text(
        "import os\n"
        "from tests.fakes.fake_pipeline import FakePipeline\n"
        "class Leaves(FakePipeline):\n"
        "    def __call__(self, *args, **kwargs):\n"
        "        os._exit(0)\n"
    )
    run = start(root, "--pipeline", f"{pipeline}:Leaves")
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 1 and "though 40 prompts are left" in out, out
    gone(root)


def test_a_client_that_may_leave_early_is_no_failure(root):
    """With --max_leases prompts are left on purpose, and the run once ended with 1."""
    run = start(root, "--max_leases", "1")
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 0 and "are left" not in out and 0 < images(root) < 40, out
    gone(root)


def test_a_closed_output_leaves_nothing_behind(root):
    """`generate_images.py … | head -1`: the second line finds nobody who reads it."""
    run = start(root)
    run.stdout.readline()
    run.stdout.close()
    assert run.wait(90) == 141
    gone(root)


@pytest.mark.parametrize("words", [[], ["--dry_run"]])
def test_a_full_output_costs_no_image_and_is_said(root, words):
    """What was printed stands on standard error; so does a run that finds nothing to do."""
    for _ in range(2):
        with open("/dev/full", "w") as full:
            run = start(root, *words, batch_s=0, stdout=full, stderr=subprocess.PIPE)
        said = run.communicate(timeout=90)[1].splitlines()
        assert run.returncode == 1, said
        assert said[-1] == "generate_images: standard output or a file: No space left on device"
        assert len(said) > 1, said
    assert images(root) == (0 if words else 40)
    gone(root)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_a_terminal_that_goes_away_leaves_nothing_behind(root, number):
    run = start(root)
    until(lambda: images(root) >= 2, "images")
    run.send_signal(number)
    run.communicate(timeout=90)
    gone(root)
    assert images(root) < 40


def test_the_status_is_the_signals_also_when_a_client_could_not_leave_in_order(root):
    run = start(root, batch_s=2)
    until(lambda: images(root) >= 2, "images")
    (client,) = (pid for pid, line in processes(root).items() if "--is_slurm_task" in line)
    os.kill(client, signal.SIGSTOP)  # so that it cannot say goodbye
    run.send_signal(signal.SIGTERM)
    time.sleep(2)  # the run has passed the signal on, and waits
    os.kill(client, signal.SIGKILL)
    out, _ = run.communicate(timeout=90)
    assert run.returncode == 128 + signal.SIGTERM and "Type it again to go on" in out, out
    gone(root)


# ---------------------------------------------------------------- clients that die


@pytest.mark.parametrize("name", ["local_runs.lock", "local_start.lock"])
def test_a_lock_that_is_a_pipe_is_named(root, name):
    (root / ".server").mkdir(parents=True, mode=0o700)
    os.mkfifo(root / ".server" / name)
    run = start(root)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 1 and name in output and "pipe" in output, output
    gone(root)


@pytest.mark.parametrize("instead", ["pipe", "sparse", "controls"])
def test_the_log_of_a_client_that_ended_is_a_foreign_file(tmp_path, monkeypatch, capfd, instead):
    """Libraries write into it, and in a group's folder others can put something in its place."""
    script = tmp_path / "ends.py"
    script.write_text("print('dying soon'); raise SystemExit(1)")
    monkeypatch.setattr("sys.argv", [str(script)])
    client = ClientProcess(0, None, tmp_path)
    client.start()
    client.process.wait()
    if instead == "pipe":
        client.log.unlink()
        os.mkfifo(client.log)
    elif instead == "sparse":
        os.truncate(client.log, 30 << 30)
    else:
        client.log.write_bytes(b"dying soon\n\x1b]0;evil\x07\n")
    assert client.ended(leaving=False)
    shown = capfd.readouterr().err
    assert "\x1b" not in shown and "\0" not in shown and shown.count("\n") == 1, shown
    wanted = {"pipe": "ended with status 1", "sparse": "", "controls": "\\x1b]0;evil\\x07"}
    assert wanted[instead] in shown and len(shown) < 3000


def test_a_client_that_dies_again_and_again_is_given_up(tmp_path, monkeypatch):
    script = tmp_path / "dies.py"
    script.write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr("sys.argv", [str(script)])
    monkeypatch.setattr(client_process, "MOST_DEATHS", 3)
    monkeypatch.setattr(client_process, "PAUSE_S", 0.2)
    client = ClientProcess(0, None, tmp_path)
    client.start()
    pids = {client.process.pid}
    began = time.monotonic()
    ended = False
    while not ended:
        before = time.monotonic()
        waits = client.start_at
        ended = client.ended(leaving=False)
        if waits is None and client.start_at:
            assert client.start_at >= before + 0.2, "each new process waits"
        pids.add(client.process.pid)
        assert before - began < 60 and len(pids) <= 4, "it is started for ever"
        time.sleep(0.02)
    assert client.status == -9 and len(pids) == 4


def test_a_fresh_process_waits_first(monkeypatch):
    """A device that fails at once would otherwise be tried without end."""
    events = []
    monkeypatch.setattr(restart.time, "sleep", lambda s: events.append(s))
    monkeypatch.setattr(restart.os, "execv", lambda *_: events.append("new process"))
    monkeypatch.setattr(restart.signal, "signal", lambda *_: None)
    monkeypatch.setenv(restart.RESTARTS, "0")
    for _ in range(3):
        restart.start_again("the device failed")
    assert events == [5, "new process", 10, "new process", 20, "new process"]
