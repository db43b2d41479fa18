"""The server's calls from outside: who may call, what is refused and how."""

import json
import stat

import pytest

from tests.fakes.running_server import RunningServer, asked, granted, until
from tests.fakes.storm_client import definition


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RunningServer(tmp_path_factory.mktemp("http") / "out", ttl_s=60)
    granted(server.client(total=3000))  # the data set "storm" is known
    yield server
    server.stop()


def test_only_with_the_token(server):
    token = server.json["token"]
    calls = ("get_indices", "beat", "complete", "fail", "release", "admin", "load", "cannot_start")
    for path in (f"/{call}" for call in calls):
        for wrong in (None, "", "x", token[:-1], token + "x", "é"):
            status, _, data = server.raw(
                "POST", path, b"{}", wrong and wrong.encode("utf-8").decode("latin-1")
            )
            assert status == 401 and token not in data.decode()
    for path in ("/", "/status", "/metrics", "/image/storm/0_0"):
        assert server.raw("GET", path)[0] == server.raw("GET", path + "?code=x")[0] == 401
    assert server.raw("GET", "/healthz")[0] == 200
    assert token not in server.raw("GET", "/healthz?nonce=abc")[2].decode()


def test_secrets_are_the_owners_alone(server):
    folder = server.root / ".server"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("server.json", "run.json", "metrics_secret"):
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
        ("total_indices", 10**8 + 1),
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
        base / "turned\u202earound",  # as on the command line: a name can be read as it is
        base / "line\x85end",
        f"{base}/storm/../../.server",
    ):
        body = asked(server, output_dir=str(wrong), dataset=definition("link", 3000, 2))
        status, answer = server.post("/get_indices", body)
        assert status == 400 and "output_dir" in answer["error"], (wrong, answer)
        assert ("is a link" in answer["error"]) == (wrong == base / "link")
    assert not list((tmp_path / "elsewhere").iterdir())
    (base / "link").unlink()


@pytest.mark.parametrize(
    "worker, log",
    [
        ({"log": "client_0.out"}, "client_0.out"),
        ({"log": "../../../etc/passwd"}, None),
        ({"log": ".."}, None),
        ({"array_job": "../../etc/x", "task": 3}, None),
        ({"array_job": 4242, "task": "/../../passwd"}, None),
    ],
)
def test_a_log_that_a_worker_names_lies_in_the_output_root(start, worker, log):
    """--status tells the user to read it."""
    server = start()
    granted(server.client())  # the data set "storm" is known
    body = {
        "client_id": "tester",
        "dataset": "storm",
        "worker": {"host": "n", "submission": "s"} | worker,
    }
    said = {"kind": "command", "error": "no such model"}
    assert server.post("/cannot_start", body | said)[0] == 200
    document = server.status()
    assert [run["log"] for run in document["stopped"]] == [log]
    assert "passwd" not in json.dumps(document["weather"])


@pytest.mark.parametrize("call", ["complete", "fail"])
def test_an_index_counts_once_a_call(server, call):
    """A report of 10,000 times the same index was counted as often."""
    result = {"index": 3, "images": 1, "rejected": 10**9, "reason": "prompt"}
    asks = {"client_id": "tester", "request_id": f"r-{call}", "lease": "1-1"}
    status, answer = server.post(f"/{call}", asks | {"results": [result] * 3})
    assert status == 400 and "names an index more than once" in answer["error"], answer


def test_bodies_too_large_or_not_json(server):
    token = server.json["token"]
    status, _, data = server.raw(
        "POST",
        "/get_indices",
        json.dumps(asked(server, client_id="x" * (2 << 20))).encode(),
        token,
    )
    assert status == 400 and b"body" in data
    for body in (b"", b"{", b"[]", b"7", b"\xff\xfe", b"nul", b'{"a": NaN', b"[" * 100_000):
        status, _, data = server.raw("POST", "/get_indices", body, token)
        assert status == 400 and "error" in json.loads(data), body[:20]
    for path in ("/nothing", "/get_indices/x", "/%00", "/image/../../etc/passwd"):
        assert server.raw("POST", path, b"{}", token)[0] in (404, 405)


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

    def ask():
        status, answer = server.post("/get_indices", bare)
        return answer if status == 200 else None

    answer = until(ask, "a grant", 20)
    assert len(answer["indices"]) == 3
    # a repeat gets its current lease again
    repeated = server.post("/get_indices", bare)[1]
    assert sorted(repeated["indices"]) == sorted(answer["indices"])
    other = server.post("/get_indices", bare | {"slurm_job_id": 4712})[1]
    assert not set(other["indices"]) & set(answer["indices"])
