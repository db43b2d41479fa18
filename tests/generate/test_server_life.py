"""The life of a job server: started, killed, restarted, started twice, taken over, stopped, asked from the command line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import job_client
import pytest
import samples
from job_client import AllDone, ServerAway, Wait, WrongServer
from running_server import ENVIRONMENT, ROOT, RunningServer, finish, granted, until


@pytest.fixture
def start(tmp_path):
    """start(*options, …) -> RunningServer on tmp_path/out; all are stopped at the end."""
    servers = []

    def start_(*options, root=tmp_path / "out", **kwargs):
        servers.append(RunningServer(root, *options, **kwargs))
        return servers[-1]

    yield start_
    for server in servers:
        server.stop()


def order(server, *words):
    return subprocess.run([sys.executable, ROOT / "generate/image_server.py", "--output_root", server.root, *words], env=ENVIRONMENT, capture_output=True, text=True)


def test_a_whole_small_run(start):
    """I13: leases shrink to the end, all done is said only when it is, and the sum holds all along."""
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


def test_kill_and_restart_keeps_everything(start):
    """I5, promise 6: what was answered holds; run_id and token stay; the lease lives on; the client finds the new address by itself."""
    server = start()
    client = server.client()
    first, second = granted(client), granted(client)
    assert set(finish(client, first).values()) == {"accepted"}
    before = server.json
    server.kill()
    server.start()
    after = server.json
    assert (before["run_id"], before["token"]) == (after["run_id"], after["token"]) and after["epoch"] > before["epoch"]
    assert server.dataset()["done"] == len(first.indices)
    client.beat({"leases": [second.lease], "state": "drawing", "drawing": [], "images": 0})
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
    with pytest.raises(ServerAway, match="image_server.py"):
        client.check()


def test_the_second_server_refuses_naming_the_first(start):
    server = start()
    second = order(server, "--host", "127.0.0.1")
    assert second.returncode == 1 and server.json["url"] in second.stderr and str(server.process.pid) in second.stderr and "--take_over" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert server.answers() and server.process.poll() is None


def test_take_over(start):
    """The first notices before its next answer and ends; leases go on in the second; a client refuses the older one."""
    server = start()
    client = server.client()
    grant = granted(client)
    old, old_json = server.process, server.json
    server.start("--take_over")
    assert old.wait(20) == 3 and "later server" in server.log()
    assert server.json["epoch"] == old_json["epoch"] + 1
    assert set(finish(client, grant).values()) == {"accepted"}


def test_a_paused_server_that_was_taken_over_answers_nothing(start):
    """The first is stopped (SIGSTOP), taken over by one with another ledger (its own file lock is held), and wakes up."""
    server = start()
    client = server.client()
    granted(client)
    old, old_json = server.process, server.json
    line = server.connection()  # proven, and open to the old one
    old.send_signal(signal.SIGSTOP)
    (server.root / ".server" / "epochs" / str(old_json["epoch"] + 1)).touch()  # what the second one does first
    old.send_signal(signal.SIGCONT)
    with pytest.raises((OSError, job_client.http.client.HTTPException)):
        while True:
            line.post("/beat", {"client_id": "c", "leases": [], "state": "idle"})
    assert old.wait(20) == 3


def test_two_at_the_same_instant_leave_one(start, tmp_path):
    first, second = start(wait=False), start(wait=False)
    until(lambda: first.answers() and (first.process.poll() is None) != (second.process.poll() is None), "one server to be left", 30)
    client = first.client()
    assert granted(client).indices


def test_a_client_refuses_an_older_server(start):
    server = start()
    client = server.client(server_timeout_s=1)
    client.get_indices(0)
    client.epoch += 1
    client._hang_up()
    with pytest.raises(WrongServer, match="older"):
        client.get_indices(1)


def test_a_stranger_on_the_port_never_sees_the_token(start):
    """The server is gone, another program listens on its port and logs what it is sent."""
    server = start()
    port, token = int(server.json["url"].rsplit(":")[-1].strip("/")), server.json["token"]
    client = server.client(server_timeout_s=2)
    client.get_indices(0)  # a connection is open: it must not be reopened to the stranger with the token
    server.kill()
    heard = []
    with socket.create_server(("127.0.0.1", port)) as stranger:

        def answer():
            while True:
                try:
                    line, _ = stranger.accept()
                except OSError:
                    return
                heard.append(line.recv(65536))
                line.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 62\r\n\r\n{"ok": true, "run_id": "x", "epoch": 99, "proof": "00000000000"}'[: 39 + 62 + 2])
                line.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(WrongServer, match="another program"):
            client.get_indices(1)
    assert heard and not any(token.encode() in data for data in heard)


def test_drain_resume_and_the_terminal(start):
    server = start()
    client = server.client()
    grant = granted(client)
    assert order(server, "--drain").returncode == 0
    answer = client.get_indices(1)
    assert isinstance(answer, Wait) and "drain" in answer.reason
    assert client.beat({"leases": [grant.lease], "state": "drawing", "drawing": []})["stop"] == "drain"
    assert set(finish(client, grant).values()) == {"accepted"}  # running leases are finished
    assert order(server, "--resume").returncode == 0
    assert granted(client).indices
    shown = order(server, "--status")
    assert shown.returncode == 0 and "ssh -N -L" in shown.stdout and server.json["token"] not in shown.stdout
    document = json.loads(order(server, "--status", "--json").stdout)
    assert document["datasets"][0]["total"] == 20
    server.stop()
    for words in (["--status"], ["--drain"], ["--retry_failed"]):
        ended = order(server, *words)
        assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1 and "Traceback" not in ended.stderr, ended.stderr


def test_sigterm_stops_it_cleanly(start):
    server = start()
    grant = granted(server.client())
    assert server.stop() == 0
    assert "stopped" in server.log() and "Traceback" not in server.log()
    server.start()
    assert server.dataset()["leased"] == len(grant.indices)


def test_a_ledger_that_was_lost_is_rebuilt_from_the_folder(start):
    """Promise 15, and the tokens never repeat (promise 3)."""
    server = start()
    client = server.client(total=2500)
    first, second = granted(client, 20), granted(client, 20)
    finish(client, first)
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    server.start()
    until(lambda: server.dataset() and server.dataset()["done"] == len(first.indices), "the rebuild", 20)
    client.beat_stale = client.beat({"leases": [second.lease], "state": "drawing", "drawing": []})["stale"]
    assert client.beat_stale == [second.lease]  # leases are void
    assert finish(client, second) and server.dataset()["sum_ok"]
    third = granted(client, 20)
    assert third.lease not in (first.lease, second.lease) and int(third.lease.split("-")[0]) > int(second.lease.split("-")[0])
    assert not set(third.indices) & set(first.indices)


def test_a_ledger_rolled_back_to_yesterday(start):
    """The folder wins: what was finished since is not drawn again, and no lease's name comes twice."""
    server = start()
    client = server.client()
    granted(client)
    server.stop()
    copy = server.root / "yesterday.sqlite"
    shutil.copy(server.root / ".server" / "ledger.sqlite", copy)
    server.start()
    later = granted(client)
    finish(client, later)
    server.kill()
    for path in (server.root / ".server").glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(copy, server.root / ".server" / "ledger.sqlite")
    copy.unlink()
    server.start()
    seen, names = set(), set()
    while not isinstance(answer := client.get_indices(5), AllDone):
        if isinstance(answer, Wait):
            time.sleep(0.1)
            continue
        assert answer.lease not in names and answer.lease != later.lease
        names.add(answer.lease)
        seen |= set(answer.indices)
        finish(client, answer)
    assert not seen & set(later.indices) and server.dataset()["done"] == 20


def test_a_torn_ledger_is_recognised(start):
    server = start()
    client = server.client()
    finish(client, granted(client))
    server.kill()
    path = server.root / ".server" / "ledger.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    server.start()
    until(lambda: server.dataset() and server.dataset()["done"] == 5, "the rebuild", 20)
    assert "Traceback" not in server.log()


def test_files_that_vanish_are_drawn_again(start):
    """The folder wins: before all is said to be done, its names are compared."""
    server = start()
    client = server.client(total=8)
    while not isinstance(answer := client.get_indices(8), AllDone):
        if not isinstance(answer, Wait):
            finish(client, answer)
        time.sleep(0.05)
    server.stop()
    samples.path_of(server.root / "generated_images" / "storm", 3, 1, ".jpg").unlink()
    server.start()
    grant = granted(client)
    assert grant.indices == [3]
    assert not (server.root / "generated_images" / "storm" / "000000" / "COMPLETE").exists()
    finish(client, grant)
    until(lambda: isinstance(client.get_indices(8), AllDone), "all done")
    assert (server.root / "generated_images" / "storm" / "000000" / "COMPLETE").exists()


def test_extend(start):
    """More images a prompt reopen exactly what is then missing; a smaller definition, or one whose prompts changed, is refused."""
    server = start()
    client = server.client(total=4)
    until(lambda: finish(client, granted(client, 4)) or True, "work")
    while not isinstance(answer := client.get_indices(4), AllDone):
        if not isinstance(answer, Wait):
            finish(client, answer)
        time.sleep(0.05)
    wider = server.client(total=6, images=3)
    with pytest.raises(job_client.Refused, match="--extend"):
        wider.get_indices(1)
    wider.definition |= {"extend": True, "prefix_total": 4, "prefix_sha256": "0" * 64, "prompts_sha256": "1" * 64}
    seen = set()
    while not isinstance(answer := wider.get_indices(6), AllDone):
        if not isinstance(answer, Wait):
            seen |= set(answer.indices)
            finish(wider, answer, images=3)
        time.sleep(0.05)
    assert seen == set(range(6)) and (server.root / "generated_images" / "storm" / "dataset.2.yaml").exists()
    with pytest.raises(job_client.Refused, match="prompts_sha256|total|images_per_prompt"):
        client.get_indices(1)


def test_repair_gives_a_done_index_a_lease(start):
    server = start()
    client = server.client(total=4)
    done = granted(client, 2)
    finish(client, done)
    grant = client.repair(done.indices[:1])
    assert grant.indices == done.indices[:1] and server.dataset()["sum_ok"]
    other = server.client(total=4, host="node2")
    assert isinstance(other.repair(done.indices[:1]), Wait)


def test_two_data_sets_keep_apart(start):
    server = start()
    one, two = server.client(total=10, name="one"), server.client(total=7, name="two")
    grants = [granted(one, 10), granted(two, 10)]
    assert max(grants[1].indices) < 7
    finish(one, grants[0])
    assert server.dataset("one")["done"] == len(grants[0].indices) and server.dataset("two")["done"] == 0


def test_a_requeue_before_the_time_limit(start, tmp_path):
    """A server that is a SLURM job asks to be requeued, by its array_task or job id, and stops cleanly when SLURM ends it."""
    tools, said = tmp_path / "bin", tmp_path / "said"
    tools.mkdir()
    for name, body in {"squeue": 'case "$*" in *%L*) echo 1:00;; esac', "scontrol": f'echo "$*" >> {said}'}.items():
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
    assert server.process.wait(20) == 0 and "nobody asks" in server.log()


def test_money_is_kept_over_restarts_and_paid_llms_stay_off_after_a_lost_ledger(start):
    """Promises 15 and 16 over the wire: a share is durable before it is answered, and never adds up to more than the cap."""
    server = start()
    limits = {"budget_usd": 1.0, "backends": {"paid": {"model": "m", "requests_per_minute": 60}}}
    use = {"reported": 1, "usd": 0.0, "wanted_usd": 0.4, "call_usd": 0.1, "backends": {}}
    clients = [server.client(total=50, host=f"node{i}") for i in range(4)]

    def granted_usd(client, reported):
        client.get_indices(1, llm=limits)
        client.beat({"leases": [], "state": "drawing", "drawing": [], "images": 0, "llm_use": use | {"reported": reported}})
        return client.llm_share["granted_usd"]

    shares = [granted_usd(client, 1) for client in clients]
    assert 0.8 <= sum(shares) <= 1.0
    server.kill()
    server.start()
    assert [granted_usd(client, 2) for client in clients] == shares
    assert order(server, "--llm_budget_usd", "2").returncode == 0
    assert sum(granted_usd(client, 3) for client in clients) <= 2.0
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    server.start()
    granted_usd(clients[0], 4)
    assert "--llm_spent_usd" in clients[0].llm_share["paid_off"]
    assert order(server, "--llm_spent_usd", "0.5").returncode == 0
    granted_usd(clients[0], 5)
    assert not clients[0].llm_share["paid_off"]
