"""Limits on what a server may take: hostile servers over real sockets, with short limits."""

import contextlib
import gzip
import io
import socketserver
import threading
import time

import httpcore2
import httpx2
import pytest

from common import web
from common.hub import client as hub_client

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"
BOMB = gzip.compress(bytes(200 << 20))


class Hostile(socketserver.ThreadingTCPServer):
    """answer(send, request) writes what it likes until the other side has had enough."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(socketserver.StreamRequestHandler):
    def handle(self):
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            request += line
        self.server.requests.append(request)
        with contextlib.suppress(OSError):
            self.server.answer(self.request.sendall, request)


def forever(piece, pause=0.0):
    def send_on(send):
        while True:
            send(piece)
            time.sleep(pause)

    return send_on


def after(start, then):
    def answer(send, request):
        send(start)
        then(send)

    return answer


ANSWERS = {
    "a dripping body": (
        after(HEAD + b"Content-Length: 9999\r\n\r\n", forever(b" ", 0.05)),
        "fewer",
    ),
    "a dripping head": (after(HEAD, forever(b"X-A: b\r\n", 0.05)), "fewer"),
    "interim answers": (
        lambda send, request: forever(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)(send),
        "a head of more than",
    ),
    "a long body": (
        after(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n", lambda s: s(CHUNK * 300 + b"0\r\n\r\n")
        ),
        "more than 1,000,000 bytes",
    ),
    "a small bomb": (
        after(HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + BOMB, lambda send: 0),
        "more than 1,000,000 bytes",
    ),
    "a bomb in a bomb": (
        after(HEAD + b"Content-Encoding: gzip, gzip\r\n\r\n", lambda send: 0),
        "in the encoding gzip, gzip",
    ),
}


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(web, "WINDOW_S", 0.4)
    monkeypatch.setattr(web, "MOST_IN_MEMORY", 1_000_000)
    monkeypatch.setattr(web, "WHOLE_S", 10.0)
    web._meter.begin()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_ends(hurry, name):
    answer, said = ANSWERS[name]
    server = Hostile(answer)
    with web.limited(httpx2.Client()) as client, pytest.raises(web.BadPeer) as ended:
        client.get(server.url, timeout=None)
    server.shutdown()
    assert said in str(ended.value) and "127.0.0.1" in str(ended.value)


def test_an_answer_has_an_end_at_any_speed(hurry, monkeypatch):
    monkeypatch.setattr(web, "WHOLE_S", 0.3)
    answer = after(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        forever(b"3e8\r\n" + b" " * 1000 + b"\r\n", 0.05),
    )
    server = Hostile(answer)
    with web.limited(httpx2.Client()) as client, pytest.raises(web.BadPeer, match="for an answer"):
        client.get(server.url)
    server.shutdown()


def test_a_silent_server_ends_where_the_caller_has_no_limit(hurry, monkeypatch):
    monkeypatch.setattr(web, "QUESTION_S", 0.2)
    server = Hostile(lambda send, request: time.sleep(60))
    with web.limited(httpx2.Client(timeout=None)) as client, pytest.raises(httpx2.ReadTimeout):
        client.get(server.url, timeout=None)
    server.shutdown()


def test_tries_again_do_not_start_the_count_anew(hurry):
    """As huggingface_hub does: a byte, a pause longer than its limit, and the file is resumed."""
    server = Hostile(after(HEAD + b"Content-Length: 9999\r\n\r\n ", lambda send: time.sleep(60)))
    file = io.BytesIO()
    with web.limited(httpx2.Client()) as client, pytest.raises(web.BadPeer, match="fewer"):
        while file.tell() < 9999:
            try:
                with client.stream("GET", server.url, timeout=0.1) as response:
                    for piece in response.iter_bytes():
                        file.write(piece)
            except httpx2.ReadTimeout:
                assert len(server.requests) < 50
    server.shutdown()


def test_a_file_of_no_stated_length_has_an_end(hurry, monkeypatch):
    monkeypatch.setattr(web, "MOST_UNKNOWN", 3_000_000)
    server = Hostile(after(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", forever(CHUNK)))
    came = 0
    with (
        web.limited(httpx2.Client()) as client,
        pytest.raises(web.BadPeer, match="3,000,000"),
        client.stream("GET", server.url) as response,
    ):
        for piece in response.iter_bytes():
            came += len(piece)
    server.shutdown()
    assert came <= 3_000_000


def test_what_is_slow_but_moves_on_passes(hurry):
    """A large file that is streamed; an answer that is long in coming; a large request's body."""

    def answer(send, request):
        time.sleep(0.6)
        send(HEAD + b"Content-Length: 2000000\r\n\r\n")
        for _ in range(20):
            send(b"x" * 100_000)
            time.sleep(0.05)

    server = Hostile(answer)
    with web.limited(httpx2.Client()) as client, client.stream("GET", server.url) as response:
        assert sum(map(len, response.iter_bytes())) == 2_000_000

    def body():
        for _ in range(12):
            time.sleep(0.1)
            yield b"y"

    server.answer = after(
        HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}", lambda send: 0
    )
    with web.limited(httpx2.Client()) as client:
        assert client.post(server.url, content=body()).json() == {}
    server.shutdown()


def test_the_limits_hold_through_a_proxy(hurry):
    server = Hostile(ANSWERS["a dripping body"][0])
    client = web.limited(httpx2.Client(proxy=server.url))
    with client, pytest.raises(web.BadPeer, match="fewer"):
        client.get("http://elsewhere.example/")
    server.shutdown()


def test_the_client_of_the_hub_has_them(hurry, monkeypatch):
    """As does one with a proxy of the environment, and what httpx2 calls its parts stays so."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "hub.example")
    with hub_client() as made:
        pools = [made._transport._pool]
        pools += [each._pool for each in made._mounts.values() if each is not None]
        assert len(pools) > 1 and all(type(each._network_backend) is web._Backend for each in pools)
        assert isinstance(pools[0]._network_backend, httpcore2.NetworkBackend)
