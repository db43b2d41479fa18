"""10,000 calls through fakes with 20 % faults of every kind lose and duplicate nothing.

pytest -m soak tests/generate/test_llm_soak.py
"""

import pytest

from generate.llms.copies import fold
from tests.fakes.fake_answers import FAULTS_OF_CONTENT, FAULTS_OF_TRANSPORT
from tests.fakes.fake_llm import FakeOllama, FakeOpenAI
from tests.fakes.prompters import prompter_for

PASSING = [
    fault
    for fault in FAULTS_OF_TRANSPORT + FAULTS_OF_CONTENT
    if fault not in ("401", "402", "404", "quota")
]  # those disable a backend for the run


@pytest.mark.parametrize("prompts", [40, pytest.param(2000, marks=pytest.mark.soak)])
@pytest.mark.timeout(3000)
def test_nothing_is_lost_or_doubled(tmp_path, monkeypatch, prompts):
    monkeypatch.setenv("TEST_LLM_KEY", "sk-test")
    faults = {fault: 0.2 / len(PASSING) for fault in PASSING}
    settings = dict(faults=faults, latency=0.02, retry_after=0.2, hang_s=3)
    ollama, openai = (
        [FakeOllama(seed=k, **settings) for k in range(5)],
        [FakeOpenAI(seed=9 + k, **settings) for k in range(2)],
    )
    for fake in [*ollama, *openai]:
        fake.start()
    entries = [
        {
            "provider": "ollama",
            "model": "llama3.1",
            "hosts": [fake.host for fake in ollama],
            "concurrency": 8,
            "timeout_s": 2,
        }
    ]
    entries += [
        {
            "provider": provider,
            "model": "gpt-4o-mini",
            "name": provider,
            "base_url": fake.url + path,
            "key_env": "TEST_LLM_KEY",
            "timeout_s": 2,
            "usd_per_million": [0.15, 0.6],
            "concurrency": 8,
        }
        for fake, provider, path in zip(openai, ("openai", "groq"), ("/v1", ""), strict=True)
    ]
    accounts = str(tmp_path / "accounts.sqlite")
    prompter = prompter_for(tmp_path, entries, budget_usd=1000.0, accounts=accounts)
    futures = [prompter.submit(f"a painting of ship number {k}", 40) for k in range(prompts)]
    for k, future in enumerate(futures):
        result = future.result(3000)
        texts = [item["text"] for item in result.texts]
        assert result.short is None and len(texts) == 40 == len({fold(text) for text in texts})
        assert all(f"ship number {k} " in text for text in texts), (
            "no answer ended up at another prompt"
        )
    use = prompter.use()
    prompter.close()
    for fake in [*ollama, *openai]:
        fake.stop()
    calls, served = (
        sum(b["calls"] for b in use["backends"].values()),
        sum(len(fake.calls) for fake in [*ollama, *openai]),
    )
    assert (
        served
        <= calls
        <= served + sum(b["failures"].get("refused", 0) for b in use["backends"].values()) + 60
    ), (served, calls)
    failures = sum(sum(b["failures"].values()) for b in use["backends"].values())
    # four calls of ten texts a prompt are the least, and what failed was asked once more
    assert calls >= prompts * 4 and failures > 0.05 * calls, (calls, failures)
    assert all(b["state"] != "off" for b in use["backends"].values())
    assert sum(fake.billed["usd"] for fake in openai) <= use["usd"] + 1e-9
