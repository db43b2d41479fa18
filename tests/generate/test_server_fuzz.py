"""No input gives a 500: bodies of the right shape with anything in them, and any bytes."""

import http.client
import json
import string
from random import Random
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.running_server import RunningServer, asked, granted
from tests.fakes.signed_caller import signer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RunningServer(tmp_path_factory.mktemp("fuzz") / "out", ttl_s=60)
    granted(server.client(total=3000))  # the data set "storm" is known
    yield server
    server.stop()


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1-1", "gpu", "drawing", "storm", "tester", "../x", "\ud800", "\0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.ascii_letters + "\ud800", max_size=6), inner, max_size=3)
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
    "kind",
    "error",
    "parallel",
    "loaded",
    "llm_budget_usd",
]
CALLS = ["get_indices", "beat", "complete", "fail", "release", "admin", "load", "cannot_start"]
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
    "kind": "device",
    "parallel": 4,
    "results": [{"index": 1, "images": 1, "short": 0, "reason": "gpu", "error": "x"}],
}


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from(CALLS),
    changes=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3),
    inside=st.dictionaries(
        st.sampled_from(["index", "images", "name", "total", "extend", "backends", "usd"]),
        ANYTHING,
        max_size=2,
    ),
)
def test_no_input_gives_a_500(server, path, changes, inside):
    body = (asked(server) if path == "get_indices" else {}) | RIGHT | changes
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
    assert server.raw(method, "/" + quote(path, safe="/"), data, server.json["token"])[0] < 500


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
    {"backends": {"a": {"until_s": float("inf")}}},
    {"backends": {"a": {"prompt_tokens": 10**19}}},
    {"backends": {"\ud800": {"calls": 1}}},
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
            if path == "beat":  # the numbers are an LLM host's: they may not cost a lease
                assert status in (200, 409), (rubbish, answer)
                server.post("/beat", body)
                assert server.log().count(f"rubbish{n}: {name}") == 1, rubbish
            else:
                assert status == 400 and name in answer["error"], (path, rubbish, answer)
    status, _ = server.post(
        "/beat",
        RIGHT | {"client_id": "right", "leases": [], "llm_use": {"usd": None, "backends": None}},
    )
    assert status == 200
    assert "status page" not in server.log() and "Traceback" not in server.log()


HALF = "\ud800"  # half a surrogate pair, which JSON can carry and UTF-8 cannot


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("complete", {"results": [{"index": 1, "images": 1, "origins": {"llm": {HALF: 1}}}]}),
        ("complete", {"results": [{"index": 1, "images": 1, "origins": {"source": {HALF: [1]}}}]}),
        ("get_indices", {"dataset": {HALF: 1}}),
        ("beat", {HALF: HALF, "state": HALF}),
        ("admin", {"forget": HALF, HALF: 1}),
    ],
)
def test_a_name_that_no_answer_can_carry_is_refused_in_words(server, path, fields):
    body = asked(server) if path == "get_indices" else RIGHT
    if "dataset" in fields:
        fields = {"dataset": body["dataset"] | fields["dataset"]}
    status, answer = server.post(f"/{path}", body | fields)
    assert status == 400 and answer["error"], answer
    assert "Traceback" not in server.log()


def calls(random):
    """Requests without end: (method, path, body, whether it is signed)."""
    posts = [f"/{call}" for call in CALLS]
    gets = ["/", "/status", "/metrics", "/page_link", "/image/storm/1_0", "/sample/storm/1_0"]
    words = ["", "x", "storm", "1-1", "../..", "%00", "\ud800", "é", "9" * 400, -1, 0, 10**30, 0.5]
    words += [None, True, [], {}, [[]], {"a": []}, float("nan"), "drawing", "gpu", "tester"]
    while True:
        method = random.choice(["POST", "POST", "POST", "GET", "PUT", "DELETE", "HEAD"])
        path = random.choice(posts if method == "POST" else gets)
        if random.random() < 0.1:
            path += random.choice(["/", "?a=b", "?workers_page=x", "//", "%2e%2e", "?small", "é"])
        body = {"client_id": "tester", "request_id": f"r{random.random()}"}
        for name in random.sample(FIELDS, random.randrange(6)):
            body[name] = random.choice([*words, RIGHT.get(name)])
        data = json.dumps(body).encode()
        if random.random() < 0.1:
            data = data[: random.randrange(len(data))]
        yield method, path, data if method == "POST" else b"", random.random() < 0.7


def test_five_thousand_calls_give_no_500_and_no_answer_without_a_signature(server):
    """All routes, signed and not, on connections that live on; the counts add up in the end."""
    random = Random(7)
    signs = signer(server.root)
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for _, (method, path, data, is_signed) in zip(range(5000), calls(random), strict=False):
        path = quote(path, safe="/?=%")
        headers = signs.sign(method, path, data) if is_signed else {}
        line.request(method, path, data or None, headers)
        answer = line.getresponse()
        said = answer.read()
        assert answer.status < 500, (method, path, data, said)
        if not is_signed and method == "POST":
            assert answer.status == 401, (method, path, data, said)
        assert is_signed or answer.status in (401, 404, 405), (method, path, answer.status, said)
        assert server.json["token"].encode() not in said
    line.close()
    assert server.post("/admin", {"resume": True})[0] == 200


def test_the_fuzzed_server_is_still_sound(server):
    assert granted(server.client(total=3000)).indices
    storm = server.dataset()
    assert (
        storm["sum_ok"]
        and storm["waiting"] + storm["leased"] + storm["done"] + storm["set_aside"] == 3000
    )
    assert "Traceback" not in server.log()
