"""What a user or the job server has set is kept: money, calls a minute, what reaches the model."""

import json
import logging

import pytest

from tests.fakes.fake_llm import FakeOllama, FakeOpenAI
from tests.fakes.prompters import KEY, answer, entry, prompter_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that entry() names."""
    monkeypatch.setenv("TEST_LLM_KEY", KEY)


def test_paid_tier_only_for_the_rest_and_never_above_the_cap(tmp_path, caplog):
    price = {"usd_per_million": [150.0, 600.0], "max_tokens": 400}
    with FakeOllama(latency=0.05) as free, FakeOpenAI(usd_per_million=(150.0, 600.0)) as paid:
        prompter = prompter_for(
            tmp_path,
            [entry(free, concurrency=1)],
            [entry(paid, "openai", **price)],
            budget_usd=3.0,
        )
        answer(prompter, prompts=30, n=5)
        use = prompter.use()
        prompter.close()
    assert 0 < paid.billed["usd"] <= use["usd"] + 1e-9 <= 3.0 + 1e-9
    assert len(free.calls) >= 5 and any(
        "paid backends pause: the cap of 3.00 USD is reached" in line for line in caplog.messages
    )
    with FakeOllama() as free, FakeOpenAI() as paid:
        prompter = prompter_for(
            tmp_path, [entry(free, concurrency=1)], [entry(paid, "openai", **price)]
        )
        answer(prompter, prompts=10)
        prompter.close()
    assert paid.calls == [], "off without a budget"


def test_limits_a_minute_are_kept(tmp_path):
    with FakeOllama() as slow, FakeOllama() as free:
        prompter = prompter_for(tmp_path, [entry(slow, requests_per_minute=30)], [entry(free)])
        answer(prompter, prompts=60)
        prompter.close()
    assert 1 <= len(slow.calls) <= 7 and len(free.calls) >= 53, (
        "a burst of a sixth of the minute's 30, the rest goes to the next tier"
    )


def test_the_share_that_the_job_server_gives_is_kept(tmp_path):
    """Of 600 calls a minute this client, one of 40, has 15: a burst of two, then the next tier."""
    with FakeOllama() as shared, FakeOllama() as free:
        prompter = prompter_for(tmp_path, [entry(shared, requests_per_minute=600)], [entry(free)])
        prompter.start()
        name = prompter.backends[0].config.name
        prompter.set_share(
            {
                "granted_usd": 0,
                "paid_off": None,
                "backends": {name: {"requests_per_minute": 15, "tokens_per_minute": None}},
            }
        )
        answer(prompter, prompts=40)
        prompter.close()
    assert 1 <= len(shared.calls) <= 10 and len(free.calls) >= 30


@pytest.mark.parametrize("provider", ["openai", "groq", "openrouter", "azure_openai"])
def test_providers_speak_through_init_chat_model(tmp_path, provider):
    with FakeOpenAI(key=None) as fake:
        azure = {"provider": provider, "model": "gpt-4o-mini", "key_env": "TEST_LLM_KEY"}
        azure["options"] = {"azure_endpoint": fake.url, "api_version": "2024-10-21"}
        prompter = prompter_for(
            tmp_path, [azure if provider == "azure_openai" else entry(fake, provider)]
        )
        answer(prompter, n=5)
        use = next(iter(prompter.use()["backends"].values()))
        prompter.close()
    assert use["prompt_tokens"] > 100 and use["completion_tokens"] > 50
    assert (
        fake.calls[0]["response_format"]["json_schema"]["schema"]["properties"]["variations"][
            "maxItems"
        ]
        == 5
    )


def test_a_call_that_brought_nothing_is_asked_for_more(tmp_path):
    """One missing text: a weak model writes what is there already; of four texts, one is new."""
    with FakeOllama() as fake:
        prompter = prompter_for(tmp_path, [entry(fake, "ollama")])
        known = [item["text"] for item in prompter.submit("a corgi", 9).result(60).texts]
        write, copies = fake.text, [json.dumps(known[:1]) for _ in range(5)]
        fake.text = lambda body, fault: copies.pop() if copies else write(body, fault)
        begun = len(fake.calls)
        found = prompter.submit("a corgi", 1, known).result(60)
        prompter.close()
    asked = [call["messages"][-1]["content"] for call in fake.calls[begun:]]
    assert "exactly 1 " in asked[0] and all("exactly 4 " in each for each in asked[1:]), asked
    assert len(found.texts) == 1 and found.short is None


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_what_reaches_the_model_is_what_the_user_set(tmp_path, caplog, provider):
    """The instruction's file, temperature and longest answer.

    Texts that the index has already are copies; the log says how each fared.
    """
    (tmp_path / "instruction").write_text("Paint {n} of {prompt} in blue.")
    caplog.set_level(logging.INFO)
    with (FakeOllama if provider == "ollama" else FakeOpenAI)() as fake:
        backend = entry(fake, provider, temperature=0.3, max_tokens=321)
        prompter = prompter_for(tmp_path, [backend], instruction=tmp_path / "instruction")
        known = [item["text"] for item in prompter.submit("a corgi", 2).result(60).texts]
        write, stale = fake.text, [json.dumps(known)]
        fake.text = lambda body, fault: stale.pop() if stale else write(body, fault)
        texts = [item["text"] for item in prompter.submit("a corgi", 2, known).result(60).texts]
        prompter.close()
    assert len({*texts, *known}) == 4 and not stale
    assert fake.calls[0]["messages"][-1]["content"].strip() == "Paint 2 of a corgi in blue."
    asked = fake.calls[0].get("options") or fake.calls[0]
    longest = (
        asked.get("num_predict") or asked.get("max_completion_tokens") or asked.get("max_tokens")
    )
    assert (asked["temperature"], longest) == (0.3, 321)
    assert (
        "3 calls, 2 good, 1 × copies; half below 0.0"  # noqa: RUF001
        in caplog.messages[-1]
        and "0.0000 USD; healthy" in caplog.messages[-1]
    ), caplog.messages
