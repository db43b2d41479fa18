"""A limit of open files that is too low is one line at the start; one that may be raised is."""

import resource
import socket
import subprocess
import sys

import pytest

from generate.client.process import OPEN_FILES
from generate.server.wsgi import OTHER_FILES, THREADS
from tests.fakes.running_server import ROOT, RunningServer

SERVER = OTHER_FILES + THREADS


def limited(soft, hard):
    """Words before a command: it has these limits."""
    return ["prlimit", f"--nofile={soft}:{hard}"]


def start(script, *options, limit):
    words = [*limited(limit, limit), sys.executable, str(ROOT / "generate" / script)]
    return subprocess.run([*words, *map(str, options)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("limit", [12, SERVER - 1])
def test_a_server_with_too_few_does_not_start(tmp_path, limit):
    options = ("--output_root", tmp_path / "out", "--port", 0, "--while_locked", tmp_path / "none")
    ended = start("image_server.py", *options, limit=limit)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    said = f"image_server: the job server needs {SERVER} open files, and this shell or job allows"
    assert ended.stderr.startswith(f"{said} {limit} (`ulimit -n`)")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [12, OPEN_FILES - 1])
@pytest.mark.parametrize("options", [("--dry_run",), ("--is_slurm_task", "--server_timeout", "0")])
def test_a_client_with_too_few_does_not_start(tmp_path, limit, options):
    (tmp_path / "p.txt").write_text("a red circle on a blue background\n")
    given = (tmp_path / "p.txt", "--model", "tiny", "--augment_prompts", "False", *options)
    ended = start("generate_images.py", *given, "--output_root", tmp_path / "out", limit=limit)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    said = f"generate_images: a client needs {OPEN_FILES} open files, and this shell or job allows"
    assert ended.stderr.startswith(f"{said} {limit} (`ulimit -n`)")


def test_a_server_with_just_enough_answers(tmp_path):
    """Though connections are open that ask nothing."""
    server = RunningServer(tmp_path / "out", prefix=limited(SERVER, SERVER))
    try:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(THREADS // 2)]
        assert server.raw("GET", "/healthz")[0] == 200
        for each in idle:
            each.close()
    finally:
        server.stop()


def test_a_limit_that_may_be_raised_is_raised(tmp_path):
    server = RunningServer(tmp_path / "out", prefix=limited(20, 300))
    try:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (300, 300)
        assert server.raw("GET", "/healthz")[0] == 200
    finally:
        server.stop()
