"""Every row of the fault table, over real sockets and through the real clients of ollama, openai and groq: the right variations come out
in the end, and the right backend gets the right blame. Beside the backend that misbehaves stands a good one of the same tier."""

import json

import pytest
import yaml

from generate.llms import router as llm_router
from generate.llms.prompter import AllOff, Prompter
from tests.fakes.fake_llm import FakeOllama, FakeOpenAI

pytestmark = pytest.mark.timeout(120)
KEY = "sk-test-0123456789abcdef"
WEATHER = {
    "hang": "timeout",
    "drip": "timeout",
    "cut": "cut",
    "500": "server error",
    "503": "server error",
    "429": "rate limit",
}
OFF = {"404": "model", "401": "key", "402": "credit", "quota": "credit"}
BAD = {
    "html": "garbled",
    "truncated": "garbled",
    "invalid_json": "unusable",
    "wrong_type": "unusable",
    "empty": "unusable",
    "refusal": "refusal",
    "prose": "refusal",
    "copies": "copies",
}
OLLAMA = {
    **WEATHER,
    **OFF,
    **BAD,
    "no_done": "cut",
    "error_line": "server error",
    "load": "garbled",
}
OPENAI = {
    **WEATHER,
    **OFF,
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
            "refusal",
            "content_filter",
        )
    ]
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(llm_router, "FIRST_PAUSE_S", 0.05)
    for name in (
        "OPENAI_API_KEY",
        "GROQ_API_KEY",
        "OPENROUTER_API_KEY",
        "OLLAMA_HOSTS",
        "OLLAMA_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_LLM_KEY", KEY)


def entry(fake, provider="ollama", **more):
    if provider == "ollama":
        return {"provider": "ollama", "model": "llama3.1", "hosts": [fake.url], **more}
    base = {"openai": "/v1", "groq": "", "openrouter": "/api/v1"}[
        provider
    ]  # groq's client appends /openai/v1 itself
    return {
        "provider": provider,
        "model": "gpt-4o-mini",
        "name": provider,
        "base_url": fake.url + base,
        "key_env": "TEST_LLM_KEY",
        **more,
    }


def prompter_for(tmp_path, *tiers, lines=None, **kwargs):
    file = tmp_path / "backends.yaml"
    file.write_text(yaml.safe_dump({"tiers": [{"backends": tier} for tier in tiers]}))
    lines = [] if lines is None else lines
    return Prompter(file, accounts=":memory:", log=lines.append, **kwargs)


def answer(prompter, prompts=1, n=4):
    """The variations of some prompts, each checked to be whole and without copies."""
    futures = [prompter.submit(f"a corgi number {k} in a top hat", n) for k in range(prompts)]
    for future in futures:
        result = future.result(60)
        texts = [item["text"] for item in result.texts]
        assert result.short is None and len(set(texts)) == n, result
        assert all("corgi" in text and not text.startswith(("Here", "1.", "I'm")) for text in texts)
    return futures


@pytest.mark.parametrize("provider,fault,kind", CASES, ids=[f"{p}-{f}" for p, f, _ in CASES])
def test_fault(tmp_path, provider, fault, kind):
    make = FakeOllama if provider == "ollama" else FakeOpenAI
    lines = []
    with make(faults=[fault], hang_s=30, seed=1) as bad, FakeOllama(seed=2) as good:
        prompter = prompter_for(
            tmp_path,
            [
                entry(bad, provider, concurrency=1, timeout_s=3 if kind == "timeout" else 30),
                entry(good),
            ],
            lines=lines,
        )
        answer(prompter, prompts=6)
        use = list(prompter.use()["backends"].values())
        prompter.close()
    assert set(use[0]["failures"]) == {kind} and (
        kind == "timeout" or use[0]["failures"][kind] == 1
    ), (use[0], lines)
    assert use[1]["failures"] == {} and use[1]["successes"] >= 1
    assert (use[0]["state"] == "off") == (kind in ("model", "key", "credit"))
    assert KEY not in "".join(lines) + json.dumps(use)
    if use[0]["state"] == "off":
        assert len(bad.calls) == 1, "nobody asks a backend that is off"
        told = [line for line in lines if "is off for this run" in line]
        assert (
            len(told) == 1
            and {
                "key": "to a valid key",
                "credit": "top up",
                "model": "pull llama3.1` on 127" if provider == "ollama" else "name a model",
            }[kind]
            in told[0]
        )


@pytest.mark.parametrize("provider", ["ollama", "openai", "groq"])
def test_refused(tmp_path, provider):
    with (FakeOllama if provider == "ollama" else FakeOpenAI)() as gone, FakeOllama() as good:
        gone.stop()
        prompter = prompter_for(tmp_path, [entry(gone, provider), entry(good)])
        answer(prompter, prompts=6)
        use = list(prompter.use()["backends"].values())
        gone.start()
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
def test_retry_after_is_honoured(tmp_path, provider):
    """The only backend answers 429 with Retry-After 2: no call reaches it for 2 s, through any client; Ollama's hides the header."""
    make = FakeOllama if provider == "ollama" else FakeOpenAI
    with make(faults=["429"], retry_after=2) as fake:
        prompter = prompter_for(tmp_path, [entry(fake, provider)])
        answer(prompter)
        prompter.close()
    assert len(fake.asked) == 2 and fake.asked[1][0] - fake.asked[0][0] >= 2


def test_all_away_is_waited_out(tmp_path):
    lines = []
    with FakeOllama(faults=["503"] * 4) as one, FakeOllama(faults=["cut"] * 4) as two:
        prompter = prompter_for(tmp_path, [entry(one), entry(two)], lines=lines)
        answer(prompter, prompts=3)
        prompter.close()
    assert any("waiting for the first to return" in line for line in lines)


def test_everything_off_says_every_remedy(tmp_path):
    with FakeOpenAI(key="another") as one, FakeOpenAI(key="another") as two:
        prompter = prompter_for(tmp_path, [entry(one, "openai"), entry(two, "groq")])
        with pytest.raises(AllOff) as failure:
            prompter.submit("a corgi", 3).result(30)
        assert prompter.state() == "off"
        prompter.close()
    text = str(failure.value)
    assert (
        "openai: the key was refused; set TEST_LLM_KEY" in text
        and "groq: the key was refused" in text
        and KEY not in text
        and "\n" not in text
    )


def test_a_mended_configuration_is_read_again(tmp_path, monkeypatch):
    """The model is not there: everything is off, the prompt waits; the file then names another model and the run goes on."""
    from generate.llms import prompter as llm_prompter

    monkeypatch.setattr(llm_prompter, "MENDED_EVERY_S", 0.05)
    lines = []
    with FakeOllama(models=["llama3.2"]) as fake:
        prompter = prompter_for(tmp_path, [entry(fake)], lines=lines)
        future = prompter.submit("a corgi in a top hat", 3)
        while not any("waiting until" in line for line in lines):
            assert not future.done()
        assert any("ollama pull llama3.1" in line for line in lines) and prompter.state() == "off"
        prompter.file.write_text("tiers: nonsense")
        while not any("still waiting" in line for line in lines):
            assert not future.done()
        prompter.file.write_text(
            yaml.safe_dump({"tiers": [{"backends": [{**entry(fake), "model": "llama3.2"}]}]})
        )
        assert len(future.result(30).texts) == 3
        assert prompter.use()["backends"][f"ollama/llama3.1@{fake.host}"]["failures"] == {
            "model": 1
        }, "what was counted before stays counted"
        prompter.close()


def test_a_prompt_that_only_gets_refusals_is_short_and_nobody_is_blamed(tmp_path):
    with FakeOllama(faults={"refusal": 1.0}) as one, FakeOllama(faults={"prose": 1.0}) as two:
        prompter = prompter_for(tmp_path, [entry(one), entry(two)])
        result = prompter.submit("a corgi", 5).result(30)
        use = prompter.use()["backends"].values()
        prompter.close()
    assert (
        result.texts == [] and result.short["missing"] == 5 and "refusal" in result.short["reason"]
    )
    assert all(u["state"] == "healthy" for u in use) and 1 < len(one.calls) + len(two.calls) < 10


def test_a_prompt_that_breaks_every_backend_is_given_up_but_weather_is_not(tmp_path, monkeypatch):
    """A text that crashes the model, alone in the run: a plain prompt in between shows that the backend works, so the text is at fault."""
    with FakeOllama() as fake:
        fake.next_fault = lambda: "500" if "poison" in fake.asked[-1][1] else None
        prompter = prompter_for(tmp_path, [entry(fake)])
        result = prompter.submit("a poison bottle", 3).result(60)
        assert result.short["missing"] == 3 and "server error" in result.short["reason"]
        answer(prompter)
        prompter.close()


def test_one_retry_loop_only(tmp_path):
    """The SDKs retry 429 and 5xx twice on their own by default: here every call that arrives is one that the router counted."""
    for provider in ("openai", "groq"):
        with FakeOpenAI(faults=["500", "503", "429"], retry_after=0) as fake:
            prompter = prompter_for(tmp_path, [entry(fake, provider)])
            answer(prompter)
            use = prompter.use()["backends"][provider]
            prompter.close()
        assert len(fake.calls) == use["calls"] == 4 and sum(use["failures"].values()) == 3


def test_paid_tier_only_for_the_rest_and_never_above_the_cap(tmp_path):
    price = {"usd_per_million": [150.0, 600.0], "max_tokens": 400}
    lines = []
    with FakeOllama(latency=0.05) as free, FakeOpenAI(usd_per_million=(150.0, 600.0)) as paid:
        prompter = prompter_for(
            tmp_path,
            [entry(free, concurrency=1)],
            [entry(paid, "openai", **price)],
            budget_usd=3.0,
            lines=lines,
        )
        answer(prompter, prompts=30, n=5)
        use = prompter.use()
        prompter.close()
    assert 0 < paid.billed["usd"] <= use["usd"] + 1e-9 <= 3.0 + 1e-9
    assert len(free.calls) >= 5 and any(
        "paid backends pause: the cap of 3.00 USD is reached" in line for line in lines
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
        name = prompter.backends[0].name
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


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_what_reaches_the_model_is_what_the_user_set(tmp_path, provider):
    """The instruction's file, temperature and longest answer. Texts that the index has already are copies; the log says how each fared."""
    (tmp_path / "instruction").write_text("Paint {n} of {prompt} in blue.")
    lines = []
    with (FakeOllama if provider == "ollama" else FakeOpenAI)() as fake:
        backend = entry(fake, provider, temperature=0.3, max_tokens=321)
        prompter = prompter_for(
            tmp_path, [backend], lines=lines, instruction=tmp_path / "instruction"
        )
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
        "3 calls, 2 good, 1 × copies; half below 0.0" in lines[-1]
        and "0.0000 USD; healthy" in lines[-1]
    ), lines
