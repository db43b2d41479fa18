"""The ledger shared by threads, files that are seen a moment later, errors of the disk."""

import errno
import threading
from types import SimpleNamespace

import pytest
from flask import Flask

from generate.server import folders as folders_module
from generate.server.folders import Folders
from generate.server.ledger.shared_ledger import SharedLedger
from generate.server.routes import answer_errors, guarded
from tests.fakes.ledger_run import Run
from tests.fakes.running_server import until, write_sample


class Committing(threading.Thread):
    """A thread that commits, and what came of it."""

    def __init__(self, shared, function):
        super().__init__(daemon=True)
        self.shared = shared
        self.function = function
        self.result = None
        self.start()

    def run(self):
        try:
            self.result = self.shared.commit(self.function)
        except Exception as error:
            self.result = error


def fails(ledger, now):
    ledger.store.run("UPDATE server SET draining = 1")
    raise KeyError("at fault")


def test_one_failing_request_fails_alone(tmp_path):
    """Three wait for the ledger together; what the one at fault had changed is undone."""
    run = Run(tmp_path)
    shared = SharedLedger(run.ledger, clock=lambda: run.now)
    functions = [lambda ledger, now: "first", fails, lambda ledger, now: "last"]
    with shared.lock:
        threads = [Committing(shared, function) for function in functions]
        until(lambda: len(shared._pending) == 3, "all three to wait", 10)
    for thread in threads:
        thread.join(10)
    first, fault, last = (thread.result for thread in threads)
    assert (first, last) == ("first", "last")
    assert isinstance(fault, KeyError)


def test_those_who_wait_together_share_one_commit(tmp_path):
    run = Run(tmp_path)
    shared = SharedLedger(run.ledger, clock=lambda: run.now)
    before = run.ledger.store.one("SELECT changes FROM server")[0]

    def change(ledger, now):
        ledger.store.run("UPDATE server SET next_lease = next_lease + 1")

    with shared.lock:
        threads = [Committing(shared, change) for _ in range(5)]
        until(lambda: len(shared._pending) == 5, "all to wait", 10)
    for thread in threads:
        thread.join(10)
    assert run.ledger.store.one("SELECT changes FROM server")[0] == before + 1


def test_files_that_are_seen_a_moment_later_are_there(tmp_path, monkeypatch):
    """A network file system shows the names of another node with a delay."""
    run = Run(tmp_path, per=2)
    shared = SharedLedger(run.ledger, clock=lambda: run.now)
    folder = tmp_path / "generated_images" / "d"
    write_sample(folder, 3, 2)
    monkeypatch.setattr(folders_module.time, "sleep", lambda seconds: write_sample(folder, 4, 2))
    found = Folders(tmp_path, shared).done("d", [3, 4, 5])
    assert found == {3: True, 4: True, 5: False}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOSPC, errno.ENOTDIR])
def test_an_error_of_the_disk_is_an_answer_with_its_cause(number, caplog):
    """Not 500: a client tries again, and the log has it once, however many do."""
    app = Flask("test")
    answer_errors(app)

    def call(fields):
        raise OSError(number, "cannot do that", "/data/000003")

    server = SimpleNamespace(was_asked=lambda: None)
    app.add_url_rule("/call", view_func=guarded(server, call), methods=["POST"])
    client = app.test_client()
    for _ in range(5):
        answer = client.post("/call", json={})
        assert answer.status_code == 503
        assert "/data/000003: cannot do that" in answer.json["error"]
    assert len(caplog.records) == 1
