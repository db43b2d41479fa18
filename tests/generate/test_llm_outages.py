"""No backend answers: what is waited out, what is given up, and what the user is told to do."""

import logging

import pytest
import yaml

from generate.llms import backend, prompter
from generate.llms.failures import NoBackendLeft
from tests.fakes.fake_llm import FakeOllama, FakeOpenAI
from tests.fakes.prompters import KEY, answer, entry, prompter_for

pytestmark = pytest.mark.timeout(120)


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


def test_all_away_is_waited_out(tmp_path, caplog):
    with FakeOllama(faults=["503"] * 4) as one, FakeOllama(faults=["cut"] * 4) as two:
        prompter = prompter_for(tmp_path, [entry(one), entry(two)])
        answer(prompter, prompts=3)
        prompter.close()
    assert any("waiting for the first to return" in line for line in caplog.messages)


def test_everything_disabled_names_every_remedy(tmp_path):
    with FakeOpenAI(key="another") as one, FakeOpenAI(key="another") as two:
        prompter = prompter_for(tmp_path, [entry(one, "openai"), entry(two, "groq")])
        with pytest.raises(NoBackendLeft) as failure:
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


def test_a_changed_configuration_is_read_again(tmp_path, monkeypatch, caplog):
    """The model is not there: everything is disabled, the prompt waits.

    The file then names another model and the run goes on.
    """
    monkeypatch.setattr(prompter, "LOOK_EVERY_S", 0.05)
    caplog.set_level(logging.INFO)
    with FakeOllama(models=["llama3.2"]) as fake:
        asking = prompter_for(tmp_path, [entry(fake)])
        future = asking.submit("a corgi in a top hat", 3)
        while not any("waiting until" in line for line in caplog.messages):
            assert not future.done()
        assert (
            any("ollama pull llama3.1" in line for line in caplog.messages)
            and asking.state() == "off"
        )
        (tmp_path / "backends.yaml").write_text("tiers: nonsense")
        while not any("still waiting" in line for line in caplog.messages):
            assert not future.done()
        (tmp_path / "backends.yaml").write_text(
            yaml.safe_dump({"tiers": [{"backends": [{**entry(fake), "model": "llama3.2"}]}]})
        )
        assert len(future.result(30).texts) == 3
        assert asking.use()["backends"][f"ollama/llama3.1@{fake.host}"]["failures"] == {
            "model": 1
        }, "what was counted before stays counted"
        asking.close()


def test_a_prompt_that_only_gets_refusals_is_incomplete_and_nobody_is_at_fault(tmp_path):
    with FakeOllama(faults={"refusal": 1.0}) as one, FakeOllama(faults={"prose": 1.0}) as two:
        prompter = prompter_for(tmp_path, [entry(one), entry(two)])
        result = prompter.submit("a corgi", 5).result(30)
        use = prompter.use()["backends"].values()
        prompter.close()
    assert (
        result.texts == [] and result.short["missing"] == 5 and "refusal" in result.short["reason"]
    )
    assert all(u["state"] == "healthy" for u in use) and 1 < len(one.calls) + len(two.calls) < 10


def test_a_prompt_that_breaks_every_backend_is_given_up_but_outages_are_not(tmp_path):
    """A text that crashes the model, alone in the run.

    A plain prompt in between shows that the backend works, so the text is at fault.
    """
    with FakeOllama() as fake:
        fake.next_fault = lambda: "500" if "poison" in fake.asked[-1][1] else None
        prompter = prompter_for(tmp_path, [entry(fake)])
        result = prompter.submit("a poison bottle", 3).result(60)
        assert result.short["missing"] == 3 and "server error" in result.short["reason"]
        answer(prompter)
        prompter.close()
