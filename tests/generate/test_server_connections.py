"""Connections that are idle, slow or broken off harm nobody else."""

import socket
import threading
import time

import pytest

from tests.fakes.running_server import RunningServer, granted
from tests.fakes.signed_caller import signer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RunningServer(tmp_path_factory.mktemp("connections") / "out", ttl_s=60)
    granted(server.client(total=3000))  # the data set "storm" is known
    yield server
    server.stop()


def test_idle_and_slow_connections_block_nobody(server):
    """200 that say nothing, 50 that stop in mid-request: more than the server has threads."""
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(250)]
    for line in lines[:50]:
        line.sendall(b"POST /beat HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    client = server.client(total=3000)
    grant = granted(client)
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                client.heartbeat({"leases": [grant.lease], "state": "drawing", "drawing": []})
            )
        )
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 20
    for line in lines:
        line.close()


def test_a_slow_reader_gets_the_whole_answer_and_the_next(server):
    """8 MB, more than a socket takes at once, read slowly; two requests in one go."""
    folder = server.root / "generated_images" / "storm" / "000000"
    folder.mkdir(exist_ok=True)
    content = bytes(range(256)) * 32_768
    (folder / "7_0.jpg").write_bytes(content)
    line = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    head = "HTTP/1.1\r\nHost: x\r\n"
    signed = signer(server.root).sign("GET", "/image/storm/7_0")
    signs = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    first = f"GET /image/storm/7_0 {head}{signs}\r\n"
    line.sendall(f"{first}GET /healthz {head}Connection: close\r\n\r\n".encode())
    answer = b""
    while piece := line.recv(1000 if len(answer) < 20_000 else 1 << 20):
        answer += piece
        time.sleep(0.01 if len(answer) < 20_000 else 0)
    assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
    assert content in answer and b"run_id" in answer[-400:]
    line.close()
    assert (
        server.client(total=3000).heartbeat({"leases": [], "state": "loading", "drawing": []})
        is not None
    )
    (folder / "7_0.jpg").unlink()
