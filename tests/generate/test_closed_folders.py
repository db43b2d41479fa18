"""Rights are taken away in mid-run, and given back: nobody leaves, is blamed, or loses anything."""

import contextlib
import itertools
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.running_client import ROOT, Run
from tests.fakes.running_server import RunningServer, until

AS_MODES_SAY = [sys.executable, str(ROOT / "tests" / "fakes" / "without_override.py")]
PLACES = {
    "data set": "generated_images/birds",
    "sub-folder": "generated_images/birds/000000",
    "all data sets": "generated_images",
    "definition": "generated_images/birds/dataset.yaml",
    "server": ".server",
    "address": ".server/server.json",
    "epochs": ".server/epochs",
    "root": "",
}
MODES = {"closed": 0o000, "not written": 0o555, "not listed": 0o333}
# a client stood still for ever, or left; the server's log had a traceback
SHORT = [("data set", "closed"), ("server", "closed")]


@contextlib.contextmanager
def mode_of(path: Path, mode: int):
    before = path.stat().st_mode & 0o777
    path.chmod(mode)
    yield
    path.chmod(before)


CASES = [
    pytest.param(*case, marks=[] if case in SHORT else pytest.mark.soak)
    for case in itertools.product(PLACES, MODES)
]


@pytest.mark.parametrize("place, mode", CASES)
def test_a_run_goes_on_when_the_rights_are_back(tmp_path, place, mode):
    run = Run(tmp_path, total=16, images=4, FAKE_BATCH_S="0.1")
    server = RunningServer(run.root, "--probe_s", 1, ttl_s=3, prefix=AS_MODES_SAY)
    try:
        client = run.start(prefix=AS_MODES_SAY)
        until(lambda: run.count() >= 4, run.log)
        with mode_of(run.root / PLACES[place], MODES[mode]):
            time.sleep(2)
        until(lambda: client.poll() is not None, run.log)
        assert client.returncode == 0, run.log()[-3000:]
        run.check()
        for log in (run.log(), server.log()):
            assert "Traceback" not in log, log
    finally:
        run.stop()
        server.stop()
