"""The server's calls from outside: who may call, what is refused and how, and that no input of any kind gives a 500."""

import http.client
import json
import socket
import stat
import string
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.running_server import RunningServer, granted, until
from tests.fakes.storm_client import definition


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RunningServer(tmp_path_factory.mktemp("http") / "out", ttl_s=60)
    granted(server.client(total=3000))  # the data set "storm" is known
    yield server
    server.stop()


def asked(server, total=3000, **changes):
    body = {
        "slurm_job_id": "77",
        "chunk_size": 5,
        "total_indices": total,
        "output_dir": str(server.root / "generated_images" / "storm"),
        "expected_samples_per_index": 2,
        "client_id": "tester",
        "request_id": f"r{time.monotonic_ns()}",
        "dataset": definition("storm", total, 2),
    }
    return body | changes


def raw(server, method, path, body=None, token=None, headers=()):
    """(status, headers, body) without any of JobClient's manners."""
    line = http.client.HTTPConnection(
        "127.0.0.1", server.json["url"].rsplit(":")[-1].strip("/"), timeout=20
    )
    headers = dict(headers) | ({"Authorization": f"Bearer {token}"} if token else {})
    line.request(method, path, body, headers)
    response = line.getresponse()
    data = response.read()
    line.close()
    return response.status, dict(response.getheaders()), data


def test_only_with_the_token(server):
    token = server.json["token"]
    for path in ("/get_indices", "/beat", "/complete", "/fail", "/release", "/repair", "/admin"):
        for wrong in (None, "", "x", token[:-1], token + "x", "é"):
            status, _, data = raw(
                server, "POST", path, b"{}", wrong and wrong.encode("utf-8").decode("latin-1")
            )
            assert status == 401 and token not in data.decode()
    for path in ("/", "/status", "/metrics", "/image/storm/0_0"):
        assert raw(server, "GET", path)[0] == raw(server, "GET", path + "?token=x")[0] == 401
    assert raw(server, "GET", "/healthz")[0] == 200
    assert token not in raw(server, "GET", "/healthz?nonce=abc")[2].decode()


def test_secrets_are_the_owners_alone(server):
    folder = server.root / ".server"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("server.json", "run.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert server.json["token"] not in server.log()


@pytest.mark.parametrize(
    "field, value",
    [
        ("chunk_size", "10"),
        ("chunk_size", -1),
        ("chunk_size", 10**12),
        ("chunk_size", True),
        ("chunk_size", 1.5),
        ("chunk_size", None),
        ("chunk_size", [1]),
        ("total_indices", 0),
        ("total_indices", "5"),
        ("total_indices", 10**12),
        ("expected_samples_per_index", -1),
        ("expected_samples_per_index", 10**9),
        ("slurm_job_id", {"a": 1}),
        ("client_id", ""),
        ("client_id", 7),
        ("client_id", "x" * 500),
        ("client_id", "a/b"),
        ("request_id", ["r"]),
        ("output_dir", 7),
        ("output_dir", "relative/storm"),
        ("output_dir", "/etc"),
        ("output_dir", "/etc/passwd\0"),
        ("worker", "node1"),
        ("dataset", "storm"),
        ("dataset", {}),
        ("llm", 3),
        ("llm", {"a": 10**30}),
    ],
)
def test_a_field_out_of_bounds_is_named(server, field, value):
    status, answer = server.post("/get_indices", asked(server, **{field: value}))
    assert status == 400 and field in answer["error"], answer
    assert len(answer["error"]) < 400


def test_an_output_dir_outside_of_the_root(server, tmp_path):
    base = server.root / "generated_images"
    (tmp_path / "elsewhere").mkdir()
    (base / "link").symlink_to(tmp_path / "elsewhere")
    for wrong in (
        base / "link",
        base / ".." / ".." / "storm",
        base / "a" / "b",
        base,
        server.root / "storm",
        tmp_path / "elsewhere",
        base / ".hidden",
        f"{base}/storm/../../.server",
    ):
        body = asked(server, output_dir=str(wrong), dataset=definition("link", 3000, 2))
        status, answer = server.post("/get_indices", body)
        assert status == 400 and "output_dir" in answer["error"], (wrong, answer)
    assert not list((tmp_path / "elsewhere").iterdir())
    (base / "link").unlink()


def test_bodies_too_large_or_not_json(server):
    token = server.json["token"]
    status, _, data = raw(
        server,
        "POST",
        "/get_indices",
        json.dumps(asked(server, client_id="x" * (2 << 20))).encode(),
        token,
    )
    assert status == 400 and b"body" in data
    for body in (b"", b"{", b"[]", b"7", b"\xff\xfe", b"nul", b'{"a": NaN', b"[" * 100_000):
        status, _, data = raw(server, "POST", "/get_indices", body, token)
        assert status == 400 and "error" in json.loads(data), body[:20]
    for path in ("/nothing", "/get_indices/x", "/%00", "/image/../../etc/passwd"):
        assert raw(server, "POST", path, b"{}", token)[0] in (404, 405)


def test_a_definition_that_differs(server):
    changed = definition("storm", 3000, 2) | {"model": "another"}
    status, answer = server.post("/get_indices", asked(server, dataset=changed))
    assert (
        status == 409
        and "model" in answer["error"]
        and "another" in answer["error"]
        and "fake" in answer["error"]
    )
    status, answer = server.post("/get_indices", asked(server, total=2999))
    assert status == 409 and answer["field"] == "total"


def test_a_bare_published_request(server):
    bare = {
        "slurm_job_id": 4711,
        "chunk_size": 3,
        "total_indices": 3000,
        "output_dir": str(server.root / "generated_images" / "storm"),
        "expected_samples_per_index": 2,
    }
    status, answer = until(
        lambda: (lambda a: a if a[0] == 200 else None)(server.post("/get_indices", bare)),
        "a grant",
        20,
    )
    assert len(answer["indices"]) == 3
    assert (
        server.post("/get_indices", bare)[1]["indices"] == answer["indices"]
    )  # a repeat gets its current lease again
    assert (
        server.post("/get_indices", bare | {"slurm_job_id": 4712})[1]["indices"]
        != answer["indices"]
    )


# No input gives a 500: bodies of the right shape with anything in their fields, and anything at all.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1-1", "gpu", "drawing", "storm", "tester", "../x", "\ud800", "\0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.ascii_letters, max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [
    "slurm_job_id",
    "chunk_size",
    "total_indices",
    "output_dir",
    "expected_samples_per_index",
    "client_id",
    "request_id",
    "worker",
    "dataset",
    "llm",
    "lease",
    "leases",
    "state",
    "drawing",
    "images",
    "llm_use",
    "results",
    "reason",
    "indices",
    "retry_failed",
    "release_quarantine",
    "llm_budget_usd",
]
RIGHT = {
    "client_id": "tester",
    "request_id": "r1",
    "lease": "1-1",
    "leases": ["1-1"],
    "state": "drawing",
    "drawing": [1],
    "images": 3,
    "indices": [1],
    "reason": "gpu",
    "results": [{"index": 1, "images": 1, "short": 0, "reason": "gpu", "error": "x"}],
}


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from(["get_indices", "beat", "complete", "fail", "release", "repair", "admin"]),
    changes=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3),
    inside=st.dictionaries(
        st.sampled_from(["index", "images", "name", "total", "extend", "backends", "usd"]),
        ANYTHING,
        max_size=2,
    ),
)
def test_no_input_gives_a_500(server, path, changes, inside):
    body = (asked(server) if path in ("get_indices", "repair") else {}) | RIGHT | changes
    for name in ("results", "dataset", "llm_use", "worker"):
        value = body.get(name)
        target = (
            value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        )
        if isinstance(target, dict):
            body = body | {name: [target | inside] if isinstance(value, list) else target | inside}
    connection = server.connection()
    try:
        status, answer = connection.post(f"/{path}", body)
    finally:
        connection.close()
    assert status in (200, 400, 404, 409), (status, answer)
    assert status == 200 or answer["error"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.text(max_size=30),
    data=st.binary(max_size=200),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
)
def test_no_bytes_give_a_500(server, path, data, method):
    from urllib.parse import quote

    assert raw(server, method, "/" + quote(path, safe="/"), data, server.json["token"])[0] < 500


LLM_RUBBISH = [
    {"usd": "x"},
    {"usd": [1]},
    {"wanted_usd": True},
    {"backends": 5},
    {"backends": {"a": 5}},
    {"backends": {"a": {"calls": None}}},
    {"backends": {"a": {"state": []}}},
    {"backends": {"a": {"failures": 3}}},
    {"backends": {"a": {"failures": {"cut": "x"}}}},
    {"backends": {"a": {"seconds": {"1": 2}}}},
    {"backends": {"a": {"requests_per_minute": "x"}}},
]


def test_what_a_client_says_of_its_llms_cannot_stop_the_page(server):
    for n, rubbish in enumerate(LLM_RUBBISH):
        for path, name in (("beat", "llm_use"), ("get_indices", "llm")):
            body = (
                (asked(server) if path == "get_indices" else {})
                | RIGHT
                | {"client_id": f"rubbish{n}", name: rubbish}
            )
            status, answer = server.post(f"/{path}", body)
            assert status == 400 and name in answer["error"], (path, rubbish, answer)
    status, _ = server.post(
        "/beat",
        RIGHT | {"client_id": "right", "leases": [], "llm_use": {"usd": None, "backends": None}},
    )
    assert status == 200
    assert "status page" not in server.log() and "Traceback" not in server.log()


def test_the_fuzzed_server_is_still_sound(server):
    assert granted(server.client(total=3000)).indices
    storm = server.dataset()
    assert (
        storm["sum_ok"]
        and storm["waiting"] + storm["leased"] + storm["done"] + storm["set_aside"] == 3000
    )
    assert "Traceback" not in server.log()


def test_idle_and_slow_connections_block_nobody(server):
    """200 connections that say nothing, 50 that stop in the middle of a request: more than the server has threads."""
    port = int(server.json["url"].rsplit(":")[-1].strip("/"))
    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(250)]
    for line in lines[:50]:
        line.sendall(b"POST /beat HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    client = server.client(total=3000)
    grant = granted(client)
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                client.beat({"leases": [grant.lease], "state": "drawing", "drawing": []})
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
    """8 MB, more than a socket takes at once, read in small pieces with pauses; two requests in one go on the same connection."""
    folder = server.root / "generated_images" / "storm" / "000000"
    folder.mkdir(exist_ok=True)
    content = bytes(range(256)) * 32_768
    (folder / "7_0.jpg").write_bytes(content)
    line = socket.create_connection(
        ("127.0.0.1", int(server.json["url"].rsplit(":")[-1].strip("/"))), timeout=60
    )
    head = f"Host: x\r\nAuthorization: Bearer {server.json['token']}\r\n"
    line.sendall(
        f"GET /image/storm/7_0 HTTP/1.1\r\n{head}\r\nGET /healthz HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode()
    )
    answer = b""
    while piece := line.recv(1000 if len(answer) < 20_000 else 1 << 20):
        answer += piece
        time.sleep(0.01 if len(answer) < 20_000 else 0)
    assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
    assert content in answer and b"run_id" in answer[-400:]
    line.close()
    assert (
        server.client(total=3000).beat({"leases": [], "state": "loading", "drawing": []})
        is not None
    )
    (folder / "7_0.jpg").unlink()
