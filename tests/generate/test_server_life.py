"""The life of a job server: started, killed, restarted, doubled, taken over, stopped, ordered."""

import http.client
import json
import os
import shutil
import signal
import threading
import time

import pytest

from generate.protocol.answers import AllDone, Wait
from generate.protocol.connection import ServerAway, WrongServer
from tests.fakes.own_ports import own_port
from tests.fakes.running_server import finish, granted, order, until, write_sample
from tests.fakes.stranger import reply_with, stranger_on


def test_a_whole_small_run(start):
    """I13: leases shrink to the end, all done is said only when it is, the sum always holds."""
    server = start()
    client = server.client(total=20)
    done = 0
    while not isinstance(answer := client.get_indices(6), AllDone):
        if isinstance(answer, Wait):
            time.sleep(min(answer.retry_after_s, 0.1))
            continue
        assert set(finish(client, answer).values()) == {"accepted"}
        done += len(answer.indices)
        assert server.dataset()["sum_ok"] and server.dataset()["done"] == done
    assert done == 20


def test_missing_files_are_not_accepted(start):
    server = start()
    client = server.client()
    grant = granted(client)
    assert set(finish(client, grant, publish=False).values()) == {"missing"}
    assert set(finish(client, grant).values()) == {"accepted"}
    assert set(finish(client, grant).values()) == {"already_done"}


def test_what_a_bare_client_finished_is_found_in_the_folder(start):
    """Guarantee 7: a published client reports nothing; what it holds is looked up when it asks."""
    server = start()
    folder = server.root / "generated_images" / "storm"
    bare = {
        "slurm_job_id": 4711,
        "chunk_size": 3,
        "total_indices": 20,
        "output_dir": str(folder),
        "expected_samples_per_index": 2,
    }

    def ask():
        status, answer = server.post("/get_indices", bare)
        return answer["indices"] if status == 200 else None

    first = until(ask, "indices")
    for index in first[:2]:
        write_sample(folder, index, 2)
    assert ask() == first[2:] and server.dataset()["done"] == 2
    write_sample(folder, first[2], 2)
    assert not set(ask()) & set(first) and server.dataset()["done"] == 3


def test_kill_and_restart_keeps_everything(start):
    """I5, guarantee 6: what was answered holds; run_id and token stay; the lease lives on.

    The client finds the new address by itself.
    """
    server = start()
    client = server.client()
    first, second = granted(client), granted(client)
    assert set(finish(client, first).values()) == {"accepted"}
    before = server.json
    server.kill()
    server.start()
    after = server.json
    assert (before["run_id"], before["token"]) == (after["run_id"], after["token"]) and after[
        "epoch"
    ] > before["epoch"]
    assert server.dataset()["done"] == len(first.indices)
    client.heartbeat({"leases": [second.lease], "state": "drawing", "drawing": [], "images": 0})
    assert not client.lost
    assert set(finish(client, second).values()) == {"accepted"}
    third = granted(client)
    assert int(third.lease.split("-")[0]) == after["epoch"]
    assert not set(third.indices) & set(first.indices + second.indices)


def test_a_client_waits_for_a_server_that_comes_back(start):
    server = start()
    client = server.client(server_timeout_s=60)
    grant = granted(client)
    server.kill()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(finish(client, grant)))
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    server.start()
    thread.join(30)
    assert set(answers[0].values()) == {"accepted"}


def test_a_client_without_a_server_says_so(start, tmp_path):
    server = start()
    client = server.client(server_timeout_s=1)
    server.kill()
    with pytest.raises(ServerAway, match="does not answer"):
        client.get_indices(1)
    shutil.rmtree(server.root / ".server")
    with pytest.raises(ServerAway, match=r"image_server[.]py"):
        client.check()


def test_the_second_server_refuses_naming_the_first(start):
    server = start()
    second = order(server, "--host", "127.0.0.1")
    assert (
        second.returncode == 1
        and server.json["url"] in second.stderr
        and str(server.process.pid) in second.stderr
        and "--take_over" in second.stderr
    )
    assert len(second.stderr.splitlines()) == 1
    assert server.answers() and server.process.poll() is None


def test_take_over(start):
    """The first notices before its next answer and ends; leases go on in the second."""
    server = start()
    client = server.client()
    grant = granted(client)
    old, old_json = server.process, server.json
    server.start("--take_over")
    assert old.wait(20) == 3 and "later server" in server.log()
    assert server.json["epoch"] == old_json["epoch"] + 1
    assert set(finish(client, grant).values()) == {"accepted"}


def test_a_paused_server_that_was_taken_over_answers_nothing(start):
    """The first is stopped (SIGSTOP), taken over by one with another ledger, and wakes up."""
    server = start()
    client = server.client()
    granted(client)
    old, old_json = server.process, server.json
    line = server.connection()  # proven, and open to the old one
    old.send_signal(signal.SIGSTOP)
    (
        server.root / ".server" / "epochs" / str(old_json["epoch"] + 1)
    ).touch()  # what the second one does first
    old.send_signal(signal.SIGCONT)
    with pytest.raises((OSError, http.client.HTTPException)):
        line.post("/beat", {"client_id": "c", "leases": [], "state": "idle"})
    assert old.wait(20) == 3


def test_two_at_the_same_instant_leave_one(start, tmp_path):
    first, second = start(wait=False), start(wait=False)
    until(
        lambda: (
            first.answers() and (first.process.poll() is None) != (second.process.poll() is None)
        ),
        "one server to be left",
        30,
    )
    client = first.client()
    assert granted(client).indices


def test_a_client_refuses_an_older_server(start):
    server = start()
    client = server.client(server_timeout_s=1)
    client.get_indices(0)
    client.epoch += 1
    client.hang_up()
    with pytest.raises(WrongServer, match="older"):
        client.check()


def test_a_stranger_on_the_port_never_sees_the_token(start):
    """The server is gone, another program listens on its port and logs what it is sent."""
    port = own_port()
    server = start("--port", port)
    token = server.json["token"]
    client = server.client(server_timeout_s=2)
    client.get_indices(
        0
    )  # a connection is open: it must not be reopened to the stranger with the token
    server.kill()
    heard = []
    said = b'{"ok": true, "run_id": "x", "epoch": 99, "time": 5.5, "proof": "00000000000"}'

    def answer(line):
        while data := line.recv(65536):
            heard.append(data)
            line.sendall(reply_with(said))

    with stranger_on(port, answer), pytest.raises(WrongServer, match="another program"):
        client.get_indices(1)
    assert heard and not any(token.encode() in data for data in heard)
    assert not any(b"POST" in data for data in heard), "nothing is asked of a stranger"


def test_drain_resume_and_the_terminal(start):
    server = start()
    client = server.client()
    grant = granted(client)
    assert order(server, "--drain").returncode == 0
    answer = client.get_indices(1)
    assert isinstance(answer, Wait) and "drain" in answer.reason
    assert (
        client.heartbeat({"leases": [grant.lease], "state": "drawing", "drawing": []}).stop
        == "drain"
    )
    assert set(finish(client, grant).values()) == {"accepted"}  # running leases are finished
    assert order(server, "--resume").returncode == 0
    assert granted(client).indices
    shown = order(server, "--status")
    assert (
        shown.returncode == 0
        and "ssh -N -L" in shown.stdout
        and server.json["token"] not in shown.stdout
    )
    # the document is made every two seconds
    (dataset,) = until(
        lambda: json.loads(order(server, "--status", "--json").stdout)["datasets"],
        "the data set in the document",
    )
    assert dataset["total"] == 20
    server.stop()
    for words in (["--status"], ["--drain"], ["--retry_failed"]):
        ended = order(server, *words)
        assert (
            ended.returncode == 1
            and len(ended.stderr.splitlines()) == 1
            and "Traceback" not in ended.stderr
        ), ended.stderr


def test_sigterm_stops_it_cleanly(start):
    server = start()
    grant = granted(server.client())
    assert server.stop() == 0
    assert "stopped" in server.log() and "Traceback" not in server.log()
    server.start()
    assert server.dataset()["leased"] == len(grant.indices)


def test_two_data_sets_keep_apart(start):
    server = start()
    one, two = server.client(total=10, name="one"), server.client(total=7, name="two")
    grants = [granted(one, 10), granted(two, 10)]
    assert max(grants[1].indices) < 7
    finish(one, grants[0])
    assert (
        server.dataset("one")["done"] == len(grants[0].indices)
        and server.dataset("two")["done"] == 0
    )


def test_a_requeue_before_the_time_limit(start, tmp_path):
    """A server that is a SLURM job asks to be requeued, and stops cleanly when SLURM ends it."""
    tools, said = tmp_path / "bin", tmp_path / "said"
    tools.mkdir()
    for name, body in {
        "squeue": 'case "$*" in *%L*) echo 1:00;; esac',
        "scontrol": f'echo "$*" >> {said}',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    server = start(PATH=f"{tools}:{os.environ['PATH']}", SLURM_JOB_ID="4711")
    until(lambda: said.exists() and "requeue 4711" in said.read_text(), "the requeue", 20)
    assert server.stop() == 0


def test_it_stops_when_all_is_done_and_nobody_asks(start):
    server = start("--stop_when_done", IMAGE_SERVER_STOP_AFTER_S="1")
    client = server.client(total=3)
    grant = granted(client)
    time.sleep(2.5)
    assert server.process.poll() is None  # nobody asks, but work is left
    while not isinstance(grant, AllDone):
        if not isinstance(grant, Wait):
            finish(client, grant)
        grant = client.get_indices(3)
    assert server.process.wait(20) == 0 and "no client asks" in server.log()
