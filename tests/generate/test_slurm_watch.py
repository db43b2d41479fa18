"""What the server makes of SLURM, over a fake squeue and scontrol; tests/cluster has the real ones.

Nodes of quarantined workers go onto the array's ExcNodeList and come off again, the user's own
stay; a squeue that fails says nothing.
"""

import json
import os
from argparse import Namespace

import pytest

from common.command_line import UserError
from common.slurm import seconds
from generate.launch.submit import waiting_server
from generate.server.ledger.shared_ledger import SharedLedger
from generate.server.slurm_watch import SlurmWatch
from tests.fakes.fake_slurm import FakeSlurm
from tests.fakes.ledger_run import A, Run


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return FakeSlurm(tmp_path / "bin")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture
def new_watch(run, tmp_path):
    """new_watch() -> a SlurmWatch, as each start of the server makes one."""
    (tmp_path / ".server").mkdir()
    ledger = SharedLedger(run.ledger, clock=lambda: run.now)
    return lambda: SlurmWatch(tmp_path / ".server", ledger)


def test_a_quarantined_node_is_excluded_and_comes_back(slurm, run, new_watch):
    """Worker A runs on node0 as a task of array 7, whose user excluded n3 and n4."""
    slurm.set(arrays={"7": "n[3-4]"})
    watch = new_watch()
    watch.step()
    assert slurm.excluded("7") == "n[3-4]" and not slurm.calls("scontrol")
    run.quarantine()
    watch.step()
    assert slurm.excluded("7") == "n3,n4,node0"
    before = slurm.calls("scontrol")
    watch.step()
    assert slurm.calls("scontrol") == before, "asked once"
    run.ledger.blame.release_quarantine("node0")
    watch.step()
    assert slurm.excluded("7") == "n3,n4"
    watch.step()
    assert slurm.excluded("7") == "n3,n4"


def test_a_node_that_the_user_excluded_stays_excluded(slurm, run, new_watch):
    slurm.set(arrays={"7": "node0,n3"})
    run.quarantine()
    watch = new_watch()
    watch.step()
    watch.step()
    assert len(slurm.calls("show job")) == 1, "asked once"
    run.ledger.blame.release_quarantine("node0")
    watch.step()
    new_watch().step()
    assert slurm.excluded("7") == "node0,n3" and not slurm.calls("update")


def test_the_next_server_takes_off_what_this_one_put_on(slurm, run, new_watch, tmp_path):
    slurm.set(arrays={"7": "n3"})
    run.quarantine()
    new_watch().step()
    assert slurm.excluded("7") == "n3,node0" and json.loads(
        (tmp_path / ".server" / "excluded_nodes.json").read_text()
    ) == [["7", "node0"]]
    new_watch().step()
    assert len(slurm.calls("update")) == 1, "it knows that the node is there, and by whom"
    run.ledger.blame.release_quarantine("node0")
    new_watch().step()
    assert (
        slurm.excluded("7") == "n3"
        and json.loads((tmp_path / ".server" / "excluded_nodes.json").read_text()) == []
    )


@pytest.mark.parametrize("damage", ["", "{", "7", "[1]", '[["7"]]', "[" * 100_000])
def test_a_damaged_record_of_excluded_nodes(slurm, run, new_watch, tmp_path, damage, caplog):
    """It is kept, and the watch goes on; nodes that it does not know of are left alone."""
    slurm.set(arrays={"7": "n3"})
    run.quarantine()
    new_watch().step()
    path = tmp_path / ".server" / "excluded_nodes.json"
    path.write_text(damage)
    run.ledger.blame.release_quarantine("node0")
    watch = new_watch()
    watch.step()
    assert slurm.excluded("7") == "n3,node0" and "scontrol update" in caplog.text
    assert path.with_name("excluded_nodes.json.damaged").read_text() == damage


@pytest.mark.parametrize("fails", ["job", "hostnames", "update"])
def test_a_slurm_that_does_not_answer_loses_no_node(slurm, run, new_watch, fails):
    """Neither the one that is to come off again, nor those of the user."""
    slurm.set(arrays={"7": "n3"}, scontrol_fails=fails)
    run.quarantine()
    watch = new_watch()
    watch.step()
    assert slurm.excluded("7") == "n3"
    slurm.set(scontrol_fails=None)
    watch.step()
    assert slurm.excluded("7") == "n3,node0"
    run.ledger.blame.release_quarantine("node0")
    slurm.set(scontrol_fails=fails)
    for _ in range(3):
        watch.step()
    assert slurm.excluded("7") == "n3,node0"
    slurm.set(scontrol_fails=None)
    new_watch().step()
    assert slurm.excluded("7") == "n3"


ODD = ["4711", "slurm_load_jobs error: Socket timed out", f"71 {'9' * 5000} RUNNING", "a b\nc"]


@pytest.mark.parametrize("said", ODD)
def test_an_answer_of_another_form_is_none(slurm, run, new_watch, said):
    """The job was seen and its client is silent: its lease stays."""
    grant = run.lease(slurm=("71", 0))
    watch = new_watch()
    slurm.set(queue=[["71", 0, "RUNNING"]])
    watch.step()
    run.now += 60
    slurm.set(queue=said)
    for _ in range(3):
        watch.step()
    assert run.held_by("a") == {grant.lease: ("d", grant.indices)}


@pytest.mark.parametrize("said", ODD)
def test_a_queue_of_another_form_names_no_server(slurm, tmp_path, said):
    slurm.set(queue=said)
    with pytest.raises(UserError, match="or add --start_server"):
        waiting_server(Namespace(start_server=False), tmp_path)


def test_numbers_of_another_form_are_unknown():
    assert seconds("9" * 5000) is None and seconds("1-0:0:0") == 86400


def test_nothing_waits_yet(slurm, run, new_watch):
    """SLURM refuses: it is asked again at the next step, and by then a task waits."""
    run.quarantine()
    watch = new_watch()
    watch.step()
    assert not slurm.calls("update")
    slurm.set(arrays={"7": ""})
    watch.step()
    assert slurm.excluded("7") == "node0"


def test_a_worker_outside_of_slurm(slurm, run, new_watch, monkeypatch):
    monkeypatch.setitem(A, "array_job", None)
    run.quarantine()
    new_watch().step()
    assert slurm.calls() == slurm.calls("squeue --noheader --me")


def test_a_failing_squeue_is_unknown(slurm, run, new_watch):
    """The job was seen and its client is silent; squeue fails ten times: the lease stays.

    Two answers without the job end it.
    """
    grant = run.lease(slurm=("71", 0))
    watch = new_watch()
    slurm.set(queue=[["71", 0, "RUNNING"], ["9", 2, "PENDING"]])
    watch.step()
    run.now += 60
    slurm.set(queue=[], squeue_fails=True)
    for _ in range(10):
        watch.step()
    assert run.held_by("a") == {grant.lease: ("d", grant.indices)}
    slurm.set(squeue_fails=False)
    watch.step()
    assert run.held_by("a"), "one answer is not enough"
    watch.step()
    assert not run.held_by("a") and run.counts()["given_back"] == {"expired": 1}


def test_without_slurm_nothing_is_watched(slurm, tmp_path, monkeypatch):
    assert SlurmWatch.possible()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert SlurmWatch.possible()
    (tmp_path / "bin" / "scontrol").unlink()
    assert not SlurmWatch.possible()
