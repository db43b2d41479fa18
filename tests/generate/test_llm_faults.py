"""Every row of the fault table, over real sockets, through the clients of ollama, openai and groq.

The right variations come out in the end, and the fault is put down to the right backend.

Beside the backend that misbehaves stands a good one of the same tier.
"""

import json
import logging

import pytest

from generate.llms import backend
from generate.llms.answer_size import LONGEST
from tests.fakes.fake_llm import FakeOllama, FakeOpenAI
from tests.fakes.prompters import KEY, answer, entry, prompter_for

pytestmark = pytest.mark.timeout(120)
TRANSIENT = {
    "hang": "timeout",
    "drip": "timeout",
    "cut": "cut",
    "500": "server error",
    "503": "server error",
    "429": "rate limit",
}
DISABLING = {"404": "model", "401": "key", "402": "credit", "quota": "credit"}
BAD = {
    "html": "garbled",
    "truncated": "garbled",
    "deep": "garbled",
    "invalid_json": "unusable",
    "wrong_type": "unusable",
    "empty": "unusable",
    "refusal": "refusal",
    "prose": "refusal",
    "copies": "copies",
}
OLLAMA = {
    **TRANSIENT,
    **DISABLING,
    **BAD,
    "no_done": "cut",
    "error_line": "server error",
    "load": "garbled",
}
OPENAI = {
    **TRANSIENT,
    **DISABLING,
    **BAD,
    "no_done": "garbled",
    "error_line": "garbled",
    "content_filter": "content filter",
}
CASES = (
    [("ollama", f, k) for f, k in OLLAMA.items()]
    + [("openai", f, k) for f, k in OPENAI.items()]
    + [
        ("groq", f, OPENAI[f])
        for f in (
            "hang",
            "cut",
            "500",
            "429",
            "404",
            "401",
            "402",
            "html",
            "truncated",
            "deep",
            "refusal",
            "content_filter",
        )
    ]
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short first backoffs, and no keys or hosts but the tests' own."""
    monkeypatch.setattr(backend, "FIRST_BACKOFF_S", 0.05)
    for name in (
        "OPENAI_API_KEY",
        "GROQ_API_KEY",
        "OPENROUTER_API_KEY",
        "OLLAMA_HOSTS",
        "OLLAMA_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_LLM_KEY", KEY)


@pytest.mark.parametrize("provider,fault,kind", CASES, ids=[f"{p}-{f}" for p, f, _ in CASES])
def test_fault(tmp_path, caplog, provider, fault, kind):
    make = FakeOllama if provider == "ollama" else FakeOpenAI
    caplog.set_level(logging.INFO)
    with make(faults=[fault], hang_s=30, seed=1) as bad, FakeOllama(seed=2) as good:
        prompter = prompter_for(
            tmp_path,
            [
                entry(bad, provider, concurrency=1, timeout_s=3 if kind == "timeout" else 30),
                entry(good),
            ],
        )
        answer(prompter, prompts=6)
        use = list(prompter.use()["backends"].values())
        prompter.close()
    assert set(use[0]["failures"]) == {kind} and (
        kind == "timeout" or use[0]["failures"][kind] == 1
    ), (use[0], caplog.messages)
    assert use[1]["failures"] == {} and use[1]["successes"] >= 1
    assert (use[0]["state"] == "off") == (kind in ("model", "key", "credit"))
    assert KEY not in caplog.text + json.dumps(use)
    if use[0]["state"] == "off":
        assert len(bad.calls) == 1, "nobody asks a disabled backend"
        logged = [line for line in caplog.messages if "is disabled for this run" in line]
        assert (
            len(logged) == 1
            and {
                "key": "to a valid key",
                "credit": "top up",
                "model": "pull llama3.1` on 127" if provider == "ollama" else "name a model",
            }[kind]
            in logged[0]
        )


@pytest.mark.parametrize("provider", ["ollama", "openai", "groq"])
def test_prompts_go_to_nobody_whom_a_backend_names(tmp_path, provider):
    make = FakeOllama if provider == "ollama" else FakeOpenAI
    with make(faults=["redirect"]) as first, make() as elsewhere, FakeOllama() as good:
        first.elsewhere = elsewhere.url
        prompter = prompter_for(tmp_path, [entry(first, provider, concurrency=1), entry(good)])
        answer(prompter, prompts=6)
        use = list(prompter.use()["backends"].values())
        prompter.close()
    assert elsewhere.calls == [] and set(use[0]["failures"]) == {"garbled"}, use[0]


@pytest.mark.parametrize("provider", ["ollama", "openai", "groq"])
@pytest.mark.parametrize(
    "fault, kinds", [("endless", {"garbled"}), ("bomb", {"garbled"}), ("gzip", set())]
)
def test_an_answer_does_not_fill_the_memory(tmp_path, provider, fault, kinds):
    """A line without end, and a compressed answer of 200 MB; a small compressed one is fine."""
    make = FakeOllama if provider == "ollama" else FakeOpenAI
    with make(faults=[fault]) as bad, FakeOllama() as good:
        prompter = prompter_for(tmp_path, [entry(bad, provider, concurrency=1), entry(good)])
        answer(prompter, prompts=6)
        use = list(prompter.use()["backends"].values())
        prompter.close()
    assert set(use[0]["failures"]) == kinds and bad.calls, use[0]
    assert bad.sent < 4 * LONGEST, "the connection was closed"


@pytest.mark.parametrize("provider", ["ollama", "openai", "groq"])
def test_refused(tmp_path, provider):
    with (FakeOllama if provider == "ollama" else FakeOpenAI)() as down, FakeOllama() as good:
        down.stop()
        prompter = prompter_for(tmp_path, [entry(down, provider), entry(good)])
        answer(prompter, prompts=6)
        use = list(prompter.use()["backends"].values())
        down.start()
        prompter.close()
    assert (
        set(use[0]["failures"]) == {"refused"}
        and use[0]["successes"] == 0
        and use[1]["failures"] == {}
    )


@pytest.mark.parametrize("fault", ["fewer", "duplicates", "preamble", "numbered", "too_long"])
def test_part_of_an_answer_is_used_and_the_rest_is_asked_again(tmp_path, fault):
    with FakeOllama(faults=[fault], seed=3) as fake:
        prompter = prompter_for(tmp_path, [entry(fake)])
        answer(prompter, n=6)
        use = next(iter(prompter.use()["backends"].values()))
        prompter.close()
    assert use["failures"] == {} and use["state"] == "healthy"
    assert len(fake.calls) == (1 if fault in ("numbered", "preamble") else 2)
    if fault in ("fewer", "duplicates"):
        assert "Already written" in fake.calls[1]["messages"][-1]["content"], (
            "a large model is told what it wrote already"
        )


@pytest.mark.parametrize("provider", ["ollama", "openai", "groq"])
def test_a_text_cut_off_at_the_longest_length_is_dropped(tmp_path, provider):
    make = FakeOllama if provider == "ollama" else FakeOpenAI
    with make(faults=["at_length"], seed=3) as fake:
        prompter = prompter_for(tmp_path, [entry(fake, provider)])
        texts = [item["text"] for item in prompter.submit("a corgi in a hat", 3).result(60).texts]
        prompter.close()
    assert len(fake.calls) == 2 and len(texts) == 3
    assert all(text.count(", ") >= 2 for text in texts), "each is whole: place, style, angle"


@pytest.mark.parametrize("provider", ["ollama", "openai", "groq"])
def test_retry_after_is_honoured(tmp_path, provider):
    """The only backend answers 429 with Retry-After 2: no call reaches it for 2 s.

    Through any client; Ollama's hides the header.
    """
    make = FakeOllama if provider == "ollama" else FakeOpenAI
    with make(faults=["429"], retry_after=2) as fake:
        prompter = prompter_for(tmp_path, [entry(fake, provider)])
        answer(prompter)
        prompter.close()
    assert len(fake.asked) == 2 and fake.asked[1][0] - fake.asked[0][0] >= 2


def test_one_retry_loop_only(tmp_path):
    """The SDKs retry 429 and 5xx twice on their own by default.

    Here every call that arrives is one that the router counted.
    """
    for provider in ("openai", "groq"):
        with FakeOpenAI(faults=["500", "503", "429"], retry_after=0) as fake:
            prompter = prompter_for(tmp_path, [entry(fake, provider)])
            answer(prompter)
            use = prompter.use()["backends"][provider]
            prompter.close()
        assert len(fake.calls) == use["calls"] == 4 and sum(use["failures"].values()) == 3
