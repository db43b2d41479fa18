"""Backends files of fakes, and Prompters that keep their own accounts.

prompter = prompter_for(tmp_path, [entry(fake), entry(other, "openai")], budget_usd=3.0)
answer(prompter, prompts=6)
"""

from pathlib import Path
from typing import Any

import yaml

from generate.llms.backends_file import BackendsFile
from generate.llms.prompter import Prompter, PrompterSettings

KEY = "sk-test-0123456789abcdef"  # of TEST_LLM_KEY, which entry() names
# groq's client appends /openai/v1 itself
PATHS = {"openai": "/v1", "groq": "", "openrouter": "/api/v1"}


def entry(fake: Any, provider: str = "ollama", **more: Any) -> dict[str, Any]:
    """An entry of a backends file for a fake."""
    if provider == "ollama":
        return {"provider": "ollama", "model": "llama3.1", "hosts": [fake.url], **more}
    return {
        "provider": provider,
        "model": "gpt-4o-mini",
        "name": provider,
        "base_url": fake.url + PATHS[provider],
        "key_env": "TEST_LLM_KEY",
        **more,
    }


def backends_file(folder: Path, *tiers: Any) -> Path:
    """folder/backends.yaml with those tiers of entries."""
    path = folder / "backends.yaml"
    path.write_text(yaml.safe_dump({"tiers": [{"backends": list(tier)} for tier in tiers]}))
    return path


def prompter_for(folder: Path, *tiers: Any, **settings: Any) -> Prompter:
    """A Prompter of those tiers; settings: of PrompterSettings."""
    settings = {"accounts": ":memory:", **settings}
    return Prompter(BackendsFile(backends_file(folder, *tiers)), PrompterSettings(**settings))


def answer(prompter: Prompter, prompts: int = 1, n: int = 4) -> None:
    """Get the variations of some prompts, each checked to be whole and without copies."""
    futures = [prompter.submit(f"a corgi number {k} in a top hat", n) for k in range(prompts)]
    for future in futures:
        result = future.result(60)
        texts = [item["text"] for item in result.texts]
        assert result.short is None, result
        assert len(set(texts)) == n, result
        assert all("corgi" in text and not text.startswith(("Here", "1.", "I'm")) for text in texts)
