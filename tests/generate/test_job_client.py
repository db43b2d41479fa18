"""How the client calls: one request however often it is sent, and how long it goes on trying."""

import threading
import time
from typing import Any

import pytest

from generate.client import job_client
from generate.client.job_client import JobClient
from generate.client.worker import WorkerIdentity
from generate.protocol.connection import Extended, OlderServer, Refused, ServerAway

DEFINITION = {"name": "birds", "total": 4, "images_per_prompt": 2}
ACCEPTED = (200, {"verdicts": {"0": "accepted"}})
DONE = [{"index": 0, "images": 2, "short": 0}]


class FakeServer:
    """Answers in turn: (status, body), or an exception that breaks the connection."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, output_root: object, epoch: int) -> "FakeServer":
        """What opens a connection."""
        self.url, self.run_id, self.epoch = "http://node1:5000/", "r", 1
        return self

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.bodies.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        pass


@pytest.fixture
def client_of(monkeypatch, tmp_path):
    """client_of(server, **kwargs) -> JobClient whose pauses are short."""
    monkeypatch.setattr(job_client, "PAUSE_S", 0.01)

    def make(server: Any, **kwargs: Any) -> JobClient:
        monkeypatch.setattr(job_client, "Connection", server)
        return JobClient(tmp_path, DEFINITION, WorkerIdentity("node7"), **kwargs)

    return make


def test_a_call_that_is_sent_again_is_the_same_request(client_of):
    """The server may have committed it before the answer was lost: it must know it again."""
    server = FakeServer(ConnectionResetError("reset"), (503, {"error": "busy"}), ACCEPTED, ACCEPTED)
    client = client_of(server)
    assert client.complete("1-1", DONE) == {0: "accepted"}
    client.complete("1-1", DONE)
    first, *again, another = [body["request_id"] for body in server.bodies]
    assert again == [first, first] and another != first
    assert {body["client_id"] for body in server.bodies} == {client.client_id}


@pytest.mark.parametrize("status", [500, 502, 503, 401, 429])
def test_a_server_in_trouble_is_asked_again(client_of, status):
    """Its ledger's disk is full, or it restarts: no reason to end."""
    server = FakeServer((status, {"error": "no"}), (status, {"error": "no"}), ACCEPTED)
    assert client_of(server).complete("1-1", DONE) == {0: "accepted"}
    assert len(server.bodies) == 3


@pytest.mark.parametrize("status", [400, 409, 413])
def test_a_refusal_is_final(client_of, status):
    server = FakeServer((status, {"error": "model is 'b'"}))
    with pytest.raises(Refused, match="model is 'b'"):
        client_of(server).get_indices(1)
    assert len(server.bodies) == 1


def test_a_refusal_says_whether_the_data_set_was_extended(client_of):
    server = FakeServer((409, {"error": "it was extended", "extended": DEFINITION}))
    with pytest.raises(Extended, match="it was extended"):
        client_of(server).get_indices(1)


def seconds_until_given_up(client: JobClient) -> float:
    began = time.monotonic()
    with pytest.raises(ServerAway):
        client.release("1-1", "preempted")
    return time.monotonic() - began


def test_who_is_to_leave_tries_for_a_moment_only(client_of, monkeypatch):
    """SIGKILL follows SIGTERM: the images want some of that time."""
    monkeypatch.setattr(job_client, "LAST_WORDS_S", 0.1)
    stopping = threading.Event()
    client = client_of(FakeServer((503, {"error": "no"})), server_timeout_s=15, stopping=stopping)
    threading.Timer(0.2, stopping.set).start()
    assert 0.1 < seconds_until_given_up(client) < 5
    assert seconds_until_given_up(client) < 5


def test_a_server_that_was_restored_from_a_backup_is_not_waited_for(client_of, monkeypatch, caplog):
    """It has a lower epoch for ever: the client says what to do, and ends long before six hours."""
    monkeypatch.setattr(job_client, "OLDER_S", 0.2)

    def older(output_root: object, epoch: int) -> None:
        raise OlderServer("an older one: start this client again")

    client = client_of(older, server_timeout_s=15)
    assert seconds_until_given_up(client) < 5
    assert caplog.text.count("start this client again") == 1, "one line"


def test_the_log_says_each_kind_of_absence_once(client_of, caplog):
    kinds = [OSError("refused"), OSError("refused"), OlderServer("older"), OlderServer("older")]

    def connection(output_root: object, epoch: int) -> FakeServer:
        if not kinds:
            return FakeServer(ACCEPTED)(output_root, epoch)
        kind = kinds.pop(0)
        raise kind if isinstance(kind, OlderServer) else ServerAway(str(kind))

    assert client_of(connection).complete("1-1", DONE) == {0: "accepted"}
    lines = [record.message for record in caplog.records]
    assert lines[:2] == ["refused; trying again", "older; trying again"]
    assert lines[2].startswith("the job server answers again after") and len(lines) == 3


def test_a_stale_index_alone_does_not_lose_the_lease(client_of):
    """An extension may want more of one index; whether the lease is lost a heartbeat tells."""
    heartbeat = {"ttl_s": 60, "beat_s": 15, "stop": None, "stale": [], "llm_share": None}
    server = FakeServer((200, {"verdicts": {"0": "stale"}}), (200, heartbeat))
    client = client_of(server)
    assert client.complete("1-1", DONE) == {0: "stale"} and not client.lost
    assert client.nudged.is_set()
    client.heartbeat({"leases": ["1-1"]})
    assert not client.lost
    server.answers = [(409, heartbeat | {"stale": ["1-1"], "error": "not current"})]
    client.heartbeat({"leases": ["1-1"]})
    assert client.lost == {"1-1"}
