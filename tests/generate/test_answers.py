"""The job server's answers: what one side writes the other reads, under the published names."""

import json

import pytest

from generate.protocol.answers import (
    AllDone,
    CompletionAnswer,
    FailureAnswer,
    Grant,
    HeartbeatAnswer,
    Quarantined,
    ReleaseAnswer,
    Wait,
    WorkLeft,
    work_answer,
)

SHARE = {"clients": 2, "granted_usd": 0.5}


def over_the_wire(answer):
    return json.loads(json.dumps(answer.to_json()))


@pytest.mark.parametrize(
    "answer, status",
    [
        (Grant("3-1", [4, 5], 120.0, canary=True, llm_share=SHARE), 200),
        (WorkLeft(120.0), 200),
        (Wait(15.0, "all that is left is being generated", SHARE), 404),
        (Quarantined(60.0, "quarantine: this worker's last results failed"), 404),
        (AllDone(0), 404),
        (AllDone(1234), 404),
    ],
)
def test_answers_to_a_request_for_work(answer, status):
    assert work_answer(over_the_wire(answer)) == answer
    assert type(work_answer(over_the_wire(answer))) is type(answer)
    assert answer.status == status


@pytest.mark.parametrize(
    "answer, status",
    [
        (HeartbeatAnswer([], "drain", 120.0, 15.0, SHARE), 200),
        (HeartbeatAnswer(["3-1", "3-2"], None, 120.0, 15.0), 409),
        (CompletionAnswer({4: "accepted", 5: "missing"}), 200),
        (FailureAnswer({4: "set aside"}, 600.0), 200),
        (FailureAnswer({}, stale=["3-1"]), 409),
        (ReleaseAnswer(), 200),
        (ReleaseAnswer(["3-1"]), 409),
    ],
)
def test_answers_to_reports(answer, status):
    assert type(answer).from_json(over_the_wire(answer)) == answer
    assert answer.status == status


def test_the_published_field_names():
    assert over_the_wire(Grant("3-1", [4], 120.0)).keys() == {
        "indices",
        "lease",
        "ttl_s",
        "llm_share",
        "known_good",
    }
    all_done = over_the_wire(AllDone(2))
    assert all_done.keys() == {"error", "all_done", "set_aside"}
    assert all_done["error"].startswith("all indices are done, but for 2 ")
    assert over_the_wire(Wait(1.0, "later")).keys() == {"error", "retry_after_s", "llm_share"}
    assert over_the_wire(HeartbeatAnswer(["3-1"], None, 120.0, 15.0)) == {
        "error": "not current any more: 3-1",
        "ttl_s": 120.0,
        "beat_s": 15.0,
        "stop": None,
        "stale": ["3-1"],
        "llm_share": None,
    }
