"""Strangers on the same node: relays, squatters on the port, drippers, crowds.

None learns the token, has a call taken, or keeps clients from their server.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.command_line import UserError
from generate.launch.local_server import LocalServer
from generate.launch.status import fetch, show
from generate.protocol.connection import (
    Closed,
    Connection,
    ServerAway,
    WrongServer,
    lives_here,
)
from generate.server import listen
from generate.server.identity import refuse_if_running
from generate.server.wsgi import CONNECTIONS_OF_ONE, SILENT_S
from tests.fakes.own_ports import own_port
from tests.fakes.running_server import RunningServer, granted
from tests.fakes.signed_caller import known, request, signed, signer
from tests.fakes.stranger import reply_with, stranger_on

RELAY = Path(__file__).resolve().parents[1] / "fakes" / "relay.py"


@pytest.fixture
def start(tmp_path):
    servers = []

    def start_(*options):
        servers.append(RunningServer(tmp_path / "out", *options, ttl_s=60))
        return servers[-1]

    yield start_
    for server in servers:
        server.stop()


@pytest.fixture
def relay(tmp_path):
    """relay(port): a process, of another user where root allows, that passes on what comes.

    It has a port of its own, changes bodies on demand, and notes every byte.
    """
    processes = []

    def relay_(to_port, port=0, change=""):
        (tmp_path / "relay").mkdir(exist_ok=True)
        os.chmod(tmp_path / "relay", 0o777)
        command = [sys.executable, "-S", str(RELAY), str(to_port), str(port), change]
        process = subprocess.Popen(
            command,
            cwd="/",
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process, int(process.stdout.readline())

    yield relay_
    for process in processes:
        process.kill()
        process.wait()


def said_by(process):
    """Everything that went through a relay, once it was ended."""
    process.terminate()
    return process.stdout.read()


def lead_to(server, port):
    """server.json names another port: an old one that a stranger has now."""
    record = server.json | {"url": f"http://127.0.0.1:{port}/"}
    (server.root / ".server" / "server.json").write_text(json.dumps(record))


def test_a_relay_cannot_pass_on_the_proof(start, relay):
    """The stranger on the old port passes everything on to the new server."""
    server = start()
    token = server.json["token"]
    process, port = relay(server.port)
    lead_to(server, port)
    with pytest.raises(WrongServer, match="another program"):
        Connection(server.root)
    passed_on = said_by(process)
    assert "healthz" in passed_on and token not in passed_on and "POST" not in passed_on


def test_a_relay_that_is_believed_can_change_nothing(start, relay):
    """Even where the proof is of the relay's address, calls and answers are whole or refused."""
    server = start()
    calls = {}
    for change in ("", "drain", "answer"):
        process, port = relay(server.port, change=change)
        sign = signer(server.root)
        line = socket.create_connection(("127.0.0.1", port), timeout=20)
        line.settimeout(20)
        body = b'{"resume":true }'
        head = sign.sign("POST", "/admin", body)
        head |= {"Content-Length": str(len(body)), "Connection": "close"}
        words = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        line.sendall(f"POST /admin HTTP/1.1\r\nHost: x\r\n{words}\r\n".encode() + body)
        calls[change] = b"".join(iter(lambda line=line: line.recv(65536), b""))
        line.close()
        assert server.json["token"] not in said_by(process)
    assert b"200 OK" in calls[""]
    assert b"401" in calls["drain"] and b"not the one that was signed" in calls["drain"]
    assert b"200 OK" in calls["answer"]
    head, _, body = calls["answer"].partition(b"\r\n\r\n")
    headers = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
    with pytest.raises(ValueError, match="not signed by this run"):
        sign.check(200, body, headers)


def test_a_call_that_was_overheard_is_not_taken_again(start):
    server = start()
    body = b'{"drain": true}'
    headers = signer(server.root).sign("POST", "/admin", body)
    assert request(server.root, "POST", "/admin", body, headers)[0] == 200
    status, _, said = request(server.root, "POST", "/admin", body, headers)
    assert status == 401 and b"used before" in said
    server.kill()
    server.start()
    assert request(server.root, "POST", "/admin", body, headers)[0] == 401, "another epoch"


@pytest.mark.parametrize("written", ["/%62eat", "/beat#x", "http://elsewhere/beat"])
def test_a_signature_is_for_one_spelling_of_an_address(start, written):
    server = start()
    body = b"{}"
    headers = signer(server.root).sign("POST", "/beat", body)
    status, _, said = request(server.root, "POST", written, body, headers)
    assert status == 401 and b"signature is wrong" in said
    assert request(server.root, "POST", "/beat", body, headers)[0] == 400, "signed, and incomplete"


@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
def test_the_port_is_taken_for_both_families(start, host):
    """A name with an IPv6 address must not lead to somebody else on the same port."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6: nobody can listen there")
    server = start("--host", host)
    for address in ("::", "::1", "127.0.0.1", "0.0.0.0"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as stranger, pytest.raises(OSError, match="in use"):
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind((address, server.port))
    for address in ("127.0.0.1", "[::1]"):
        record = known(server.root) | {"url": f"http://{address}:{server.port}/"}
        line = socket.create_connection((address.strip("[]"), server.port), timeout=5)
        line.close()
        assert record["url"]


def test_a_name_is_published_as_the_address_that_is_listened_on():
    """The name may have an IPv6 address as well, which a stranger could take."""
    assert listen.address("localhost") == "127.0.0.1"
    assert (listen.address("::1"), listen.address("127.0.0.2")) == ("[::1]", "127.0.0.2")


def test_a_stranger_who_drips_bytes_holds_nobody_up(start):
    """A new server, --status and clients give up on the whole answer, not on each byte."""
    port = own_port()
    server = start("--port", port)
    server.kill()
    ended = threading.Event()

    def drip(line):
        threading.Thread(target=slowly, args=(line.dup(),), daemon=True).start()

    def slowly(line):
        with line, contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000:
                line.sendall(bytes([byte]))
                if ended.wait(0.5):
                    return

    with stranger_on(port, drip):
        began = time.monotonic()
        with pytest.raises(ServerAway):
            Connection(server.root)
        assert time.monotonic() - began < 30
        server.start("--port", 0)
        ended.set()
    granted(server.client(total=10))


@pytest.mark.parametrize("said", [b"[" * 99_999, b'{"proof": %b}' % (b"[" * 930 + b"]" * 930)])
def test_a_strangers_answer_ends_nobody(start, said):
    """On the port of a dead server: clients look on, and a new server starts."""
    port = own_port()
    server = start("--port", port)
    client = server.client()
    before = set(threading.enumerate())
    client.start_heartbeats(lambda: {"leases": [], "state": "idle", "drawing": [], "images": 0})
    (heartbeats,) = set(threading.enumerate()) - before
    held = granted(client).lease
    server.kill()
    asked = threading.Event()

    def answer(line):
        line.recv(65536)
        line.sendall(reply_with(said))
        asked.set()

    with stranger_on(port, answer):
        assert asked.wait(20), "a heartbeat reached the stranger"
        with pytest.raises(WrongServer, match="another program has its port; or its token was"):
            client.check()
        release = threading.Thread(target=client.release, args=(held,))
        release.start()
        server.start("--port", 0)
        release.join(20)
    lives = heartbeats.is_alive()
    client.stop_heartbeats()
    assert lives and not release.is_alive()


@pytest.mark.parametrize("said", [b"A" * 65_000, b"HTTP/1.1 " + b"9" * 65_000])
def test_a_strangers_words_are_cut(start, said):
    """A local run prints why the server does not answer: a status line has up to 64 kB."""
    port = own_port()
    server = start("--port", port)
    server.kill()

    def answer(line):
        line.recv(65536)
        line.sendall(said + b"\r\n\r\n")

    with stranger_on(port, answer):
        why = fetch(server.root).why
    assert "does not answer" in why and said[:100].decode() in why and len(why) < 1000


def test_strangers_bodies_are_not_kept(start):
    """A body without a right signature is refused when its headers are there."""
    server = start()
    for method, more, says in (
        ("POST", "", b"not signed"),
        ("PUT", "", b"has no body here"),
        ("GET", "", b"has no body here"),
        ("POST", "Expect: 100-continue\r\n", b"not signed"),
    ):
        line = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        head = f"{method} /beat HTTP/1.1\r\nHost: x\r\n{more}Content-Length: 4000000\r\n\r\n"
        line.sendall(head.encode())
        said = b"".join(iter(lambda line=line: line.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 401 Unauthorized"), said
        assert says in said
        line.close()


def test_headers_that_cannot_be_read_are_answered(start):
    """More digits than Python reads as a number: an answer, and no word of it in the log."""
    server = start()
    before = server.log()
    for length in ("9" * 5000, "9" * 30, "-1", "1e3", "٣"):
        line = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        line.sendall(f"POST /beat HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        said = b"".join(iter(lambda line=line: line.recv(65536), b""))
        assert re.match(rb"HTTP/1.1 4(00|01|13) ", said), (length, said)
        line.close()
    assert server.log() == before


def test_a_crowd_from_one_address_leaves_room_for_others(start):
    """More connections than one address may have; a client elsewhere is served at once."""
    server = start("--host", "0.0.0.0")
    crowd = []
    for _ in range(CONNECTIONS_OF_ONE + 50):
        line = socket.socket()
        line.bind(("127.0.0.9", 0))
        line.connect(("127.0.0.1", server.port))
        crowd.append(line)
    crowd[-1].settimeout(SILENT_S / 2)
    assert crowd[-1].recv(1) == b"", "the one too many is closed at once"
    client = server.client(total=10)
    grant = granted(client)
    assert grant.indices
    crowd[0].settimeout(30)
    assert crowd[0].recv(1) == b"", "a connection that asks nothing is closed"
    for line in crowd:
        line.close()


def test_a_server_with_a_crowd_before_it_is_not_dead(start):
    """Its reset connections were taken for its death: a second one started, and the first ended."""
    server = start("--host", "127.0.0.1")
    with contextlib.ExitStack() as crowd:
        for _ in range(CONNECTIONS_OF_ONE + 1):
            crowd.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        with pytest.raises(Closed):
            Connection(server.root)
        assert LocalServer(server.root)._answers()
        with pytest.raises(UserError, match="runs already"):
            refuse_if_running(server.root)
        with pytest.raises(UserError, match="alive, busy or stopped"):
            show(server.root)
    server.kill()
    assert not lives_here(server.root) and not LocalServer(server.root)._answers()
    refuse_if_running(server.root)
    with pytest.raises(UserError, match="start it first"):
        show(server.root)


def test_a_new_token_ends_what_the_old_one_opened(start):
    server = start()
    client = server.client(total=10)
    grant = granted(client)
    old = server.json["token"]
    link = json.loads(signed(server.root, "GET", "/page_link")[2])["url"]
    status, _, said = signed(server.root, "POST", "/admin", b'{"rotate_token": true}')
    assert status == 200 and b"a new token" in said
    assert server.json["token"] != old and old not in server.log()
    assert "INFO an order was carried out: a new token" in server.log()
    assert signed(server.root, "POST", "/beat", b"{}", token=old)[0] == 401
    assert request(server.root, "GET", "/" + link.rpartition("/")[2])[0] == 401
    answer = client.heartbeat({"leases": [grant.lease], "state": "drawing", "drawing": []})
    assert answer, "a client that runs takes the new token"


def test_the_metrics_secret_opens_the_metrics_alone(start):
    server = start()
    secret = (server.root / ".server" / "metrics_secret").read_text()
    bearer = {"Authorization": f"Bearer {secret}"}
    assert request(server.root, "GET", "/metrics", headers=bearer)[0] == 200
    for path in ("/", "/status", "/page_link", "/image/x/0_0"):
        assert request(server.root, "GET", path, headers=bearer)[0] == 401, path
    assert request(server.root, "POST", "/beat", b"{}", bearer)[0] == 401
    token = {"Authorization": f"Bearer {server.json['token']}"}
    assert request(server.root, "GET", "/metrics", headers=token)[0] == 401
    assert request(server.root, "POST", "/beat", b"{}", token)[0] == 401
