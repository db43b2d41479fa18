"""What the tests rely on: they hear of a process's end, have ports of their own, show a failure."""

import ast
import gc
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.own_ports import own_port
from tests.fakes.running_server import RunningServer, until

ROOT = Path(__file__).resolve().parent.parent


def test_a_process_that_has_ended_is_not_waited_for():
    said = "import sys; sys.exit('this is why')"
    process = subprocess.Popen([sys.executable, "-c", said], stderr=subprocess.PIPE, text=True)
    with pytest.raises(AssertionError, match="ended with 1: this is why"):
        until(lambda: False, process.stderr.read, 300, process=process)
    process.stderr.close()


def test_a_server_whose_port_was_taken_is_not_waited_for(tmp_path):
    with (
        socket.create_server(("127.0.0.1", own_port())) as other,
        pytest.raises(AssertionError, match="is in use"),
    ):
        RunningServer(tmp_path / "out", "--port", other.getsockname()[1])


def test_no_other_process_has_the_same_ports():
    code = "from tests.fakes.own_ports import own_port; print(own_port(), own_port())"
    mine = {own_port() for _ in range(100)}
    words = [sys.executable, "-c", code]
    others = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    theirs = {int(word) for word in others.stdout.split()}
    assert len(theirs) == 2 and not theirs & mine


def test_no_source_is_parsed_in_the_middle_of_another_one():
    """As by another thread. CPython 3.11 raises a SystemError then, later versions do not."""

    def parse_another(phase, info):
        ast.parse("another")

    source = Path(ast.__file__).read_text()
    before = gc.get_threshold()
    gc.callbacks.append(parse_another)
    gc.set_threshold(50)
    try:
        assert ast.parse(source).body and gc.isenabled()
    finally:
        gc.callbacks.remove(parse_another)
        gc.set_threshold(*before)
