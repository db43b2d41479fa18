"""Reads the file of LLM backends (llm_backends.example.yaml explains every field) and speaks to them through langchain.

    backends = read(path, ollama_hosts="node1:11434-11438,node2", budget_usd=0.0, log=print)    # [llm_router.Backend, …]

Keys come from the environment and go nowhere but into the client: scrub() takes them out of every text that is shown.
"""

import asyncio
import contextvars
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from common.files import CHECKOUT
from generate.llms import variations
from generate.llms.failures import Failure, classify, retry_after
from generate.llms.router import Backend

KEYS = {
    "openai": "OPENAI_API_KEY",
    "groq": "GROQ_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "azure_openai": "AZURE_OPENAI_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "google_genai": "GOOGLE_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
}
FIELDS = {
    "provider",
    "model",
    "name",
    "hosts",
    "base_url",
    "key_env",
    "timeout_s",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "usd_per_million",
    "batch",
    "max_tokens",
    "temperature",
    "json",
    "few_shot",
    "options",
}
OPENAI_LIKE = ("openai", "azure_openai", "groq", "openrouter")
ollama_retry_after = contextvars.ContextVar(
    "ollama_retry_after"
)  # ollama's ResponseError drops the headers: a hook keeps this one


@dataclass
class Reply:
    """text; tokens as the provider counts them, None where it does not say."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


def default_file():
    """generate/llm_backends.yaml where the user made one, else the example beside it, which holds the published default."""
    here = CHECKOUT / "generate"
    own = here / "llm_backends.yaml"
    return own if own.exists() else here / "llm_backends.example.yaml"


def read(path, ollama_hosts=None, budget_usd=0.0, log=print):
    """The file's backends, first tier first. Raises SystemExit with one line for a file that cannot be used."""
    import yaml

    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(
            f"llm_prompting.py: cannot read the backends file {path}: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}"
        ) from None
    except yaml.YAMLError as error:
        raise SystemExit(
            f"llm_prompting.py: {path} is not YAML: {' '.join(str(error).split())}"
        ) from None
    tiers = document.get("tiers") if isinstance(document, dict) else None
    if not isinstance(tiers, list) or not all(
        isinstance(tier, dict) and isinstance(tier.get("backends"), list) for tier in tiers
    ):
        raise SystemExit(
            f"llm_prompting.py: {path} must hold `tiers:`, a list of {{name, backends: [...]}}; see llm_backends.example.yaml"
        )
    backends = []
    for rank, tier in enumerate(tiers):
        for place, entry in enumerate(tier["backends"]):
            where = f"{path}, tier {rank + 1}, backend {place + 1}"
            backends += _backends_of(
                entry, rank, bool(tier.get("paid")), where, ollama_hosts, budget_usd, log
            )
    names = set()
    for backend in backends:
        while backend.name in names:
            backend.name += "'"
        names.add(backend.name)
    return backends


def _backends_of(entry, tier, paid, where, ollama_hosts, budget_usd, log):
    if not isinstance(entry, dict) or not entry.get("provider") or not entry.get("model"):
        raise SystemExit(f"llm_prompting.py: {where}: `provider` and `model` are needed")
    for field in entry:
        if field not in FIELDS:
            raise SystemExit(
                f"llm_prompting.py: {where}: unknown field {field!r}; there are {', '.join(sorted(FIELDS))}"
            )
    provider, model = str(entry["provider"]), str(entry["model"])
    prices = entry.get("usd_per_million") or [0.0, 0.0]
    if (
        not isinstance(prices, list)
        or len(prices) != 2
        or not all(isinstance(p, (int, float)) and p >= 0 for p in prices)
    ):
        raise SystemExit(
            f"llm_prompting.py: {where}: usd_per_million is [USD per million prompt tokens, per million completion tokens]"
        )
    if paid and not any(prices):
        raise SystemExit(
            f"llm_prompting.py: {where}: a backend of a paid tier needs usd_per_million, or the budget cannot be kept"
        )
    numbers = {}
    for field, kind, default in (
        ("concurrency", int, 4),
        ("timeout_s", float, 120.0),
        ("batch", int, 10),
        ("max_tokens", int, 2048),
        ("requests_per_minute", float, None),
        ("tokens_per_minute", float, None),
        ("temperature", float, 0.8),
    ):
        value = entry.get(field, default)
        if value is not None and (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or value < 0
            or (value == 0 and field != "temperature")
        ):
            raise SystemExit(
                f"llm_prompting.py: {where}: {field} must be a number above 0, not {value!r}"
            )
        numbers[field] = None if value is None else kind(value)
    json_mode = entry.get("json") or (
        "schema" if provider == "ollama" or provider in OPENAI_LIKE else "text"
    )
    if json_mode not in ("schema", "text"):
        raise SystemExit(f"llm_prompting.py: {where}: json is schema or text, not {json_mode!r}")
    key_env = entry.get("key_env", KEYS.get(provider))
    common = dict(
        provider=provider,
        key_env=key_env,
        temperature=numbers.pop("temperature"),
        json=json_mode,
        few_shot=bool(entry.get("few_shot")),
        options=dict(entry.get("options") or {}),
    )
    made = []
    addresses = (
        _ollama_addresses(ollama_hosts or entry.get("hosts"), entry.get("base_url"), where)
        if provider == "ollama"
        else [entry.get("base_url")]
    )
    for address in addresses:
        place = re.sub(r"^https?://", "", address) if address else None
        name = entry.get("name") or f"{provider}/{model}"
        backend = Backend(
            f"{name}@{place}" if provider == "ollama" else name,
            model=model,
            tier=tier,
            usd_per_million=tuple(prices),
            base_url=address,
            **numbers,
            **common,
        )
        pull = (
            f"run `ollama pull {model}` on {place.rsplit(':', 1)[0]}"
            if provider == "ollama"
            else f"name a model that {provider} has"
        )
        backend.remedies = {
            "key": f"set {key_env or 'OLLAMA_API_KEY'} to a valid key",
            "credit": "top up the account or take it out of the backends file",
            "model": pull,
        }
        backend.ask = Asker(backend)
        key = os.environ.get(key_env, "") if key_env else "none"
        if backend.paid and budget_usd <= 0:
            backend.turn_off("budget", "costs money and --llm_budget_usd is 0")
        elif not key:
            backend.turn_off("key", "no key")
            log(f"LLMs: {backend.name} is off: {key_env} is not set")
        made.append(backend)
    return made


def _ollama_addresses(hosts, base_url, where):
    """["http://node1:11434", …] of "node1:11434-11438,node2" or a list of such; else OLLAMA_HOSTS, OLLAMA_HOST, localhost."""
    words = (
        hosts
        or base_url
        or os.environ.get("OLLAMA_HOSTS")
        or os.environ.get("OLLAMA_HOST")
        or "localhost"
    )
    words = re.split(r"[,\s]+", words) if isinstance(words, str) else [str(word) for word in words]
    addresses = []
    for word in filter(None, (word.strip().rstrip("/") for word in words)):
        match = re.fullmatch(
            r"(https?://)?(\[[0-9a-fA-F:]+\]|[^:/\s\[\]]*)(?::(\d+)(?:-(\d+))?)?", word
        )
        first, last = (
            (int(match[3] or 11434), int(match[4] or match[3] or 11434)) if match else (0, 0)
        )
        if not match or not 0 < first <= last < 65536 or last - first > 255:
            raise SystemExit(
                f"llm_prompting.py: {where}: {word!r} is no Ollama host; write host, host:port, host:first-last or a URL"
            )
        host = (
            "localhost" if match[2] in ("", "0.0.0.0", "[::]") else match[2]
        )  # the address to listen on is not one to connect to
        addresses += [f"{match[1] or 'http://'}{host}:{port}" for port in range(first, last + 1)]
    return list(dict.fromkeys(addresses))


def scrub(text, key=None):
    """The text on one line without the key or anything that looks like one."""
    text = " ".join(str(text).split())
    if key and len(key) > 3:
        text = text.replace(key, "***")
    return re.sub(r"(?i)(bearer\s+|\b(?:sk|gsk|or|pk)-?[-_])[\w*.-]{6,}", r"\1***", text)[:300]


class Asker:
    """await asker(request) -> Reply. The client is made at the first call (importing the openai package takes 2-4 s)."""

    def __init__(self, backend):
        self.backend, self.model, self.lock = backend, None, None

    async def __call__(self, made):
        details, slot = self.backend.details, {}
        ollama_retry_after.set(slot)
        try:
            await self._ready()
            message = await self._bound(made).ainvoke(made["messages"])
        except Exception as error:
            raise self._failure(error, slot) from None
        content = (
            message.content
            if isinstance(message.content, str)
            else "".join(part.get("text", "") for part in message.content if isinstance(part, dict))
        )
        meta, usage = message.response_metadata or {}, message.usage_metadata or {}
        tokens = usage.get("input_tokens"), usage.get("output_tokens")
        finish = meta.get("finish_reason") or meta.get("stop_reason") or meta.get("done_reason")
        if details["provider"] == "ollama" and not meta.get("done"):
            raise Failure("cut", "the stream ended without `done`")
        if finish == "content_filter":
            raise Failure("content filter", "the provider's content filter stopped the answer")
        if finish is None:
            raise Failure("garbled", "the answer says not that it is finished")
        return Reply(content, *tokens)

    async def first_token(self, messages):
        """Seconds until the first piece of an answer arrives, streamed. Raises Failure."""
        slot = {}
        ollama_retry_after.set(slot)
        try:
            await self._ready()
            began, first = time.monotonic(), None
            async for _ in self.model.astream(messages):
                first = (
                    first or time.monotonic() - began
                )  # the rest is read too: hanging up in the middle leaves a warning behind
            if first is None:
                raise Failure("garbled", "an empty answer")
            return first
        except Exception as error:
            raise self._failure(error, slot) from None

    async def _ready(self):
        self.lock = self.lock or asyncio.Lock()
        async with self.lock:
            if self.model is None:
                self.model = await asyncio.to_thread(self._make)

    def _failure(self, error, slot):
        if isinstance(error, ImportError):
            self.backend.remedies["model"] = (
                f"pip install langchain-{self.backend.details['provider'].replace('_', '-')}"
            )
            return Failure(
                "model",
                f"langchain's package for {self.backend.details['provider']} is not installed",
            )
        failure = classify(error)
        failure.retry_after_s = (
            retry_after(slot) if failure.retry_after_s is None else failure.retry_after_s
        )
        failure.text = (
            "the key was refused" if failure.kind == "key" else scrub(failure.text, self._key())
        )
        return failure

    def _key(self):
        key_env = self.backend.details["key_env"]
        return os.environ.get(key_env) if key_env else None

    def _make(self):
        """The langchain chat model. The SDKs' own retries are off: there is one retry loop, the router's."""
        from langchain.chat_models import init_chat_model

        backend, details = self.backend, self.backend.details
        options = dict(details["options"])
        if details["provider"] == "ollama":

            async def keep_headers(response):
                if response.status_code in (429, 503):
                    ollama_retry_after.get({}).update(response.headers)

            options = {
                "async_client_kwargs": {
                    "timeout": backend.timeout_s,
                    "event_hooks": {"response": [keep_headers]},
                },
                **options,
            }
        else:
            options = {
                "max_retries": 0,
                "timeout": backend.timeout_s,
                "max_tokens": backend.max_tokens,
                "temperature": details["temperature"],
                **options,
            }
            options.update(
                {"api_key": self._key() or "none"}
                if details["key_env"] or backend.details["base_url"]
                else {}
            )
        if backend.details["base_url"]:
            options["base_url"] = backend.details["base_url"]
        return init_chat_model(backend.model, model_provider=details["provider"], **options)

    def _bound(self, made):
        details, schema = self.backend.details, made["schema"]
        if details["provider"] == "ollama":
            settings = {
                "temperature": details["temperature"],
                "num_predict": self.backend.max_tokens,
                "seed": made["seed"],
            }
            return self.model.bind(options=settings, **({"format": schema} if schema else {}))
        if schema and details["provider"] in OPENAI_LIKE:
            wanted = {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "variations", "schema": schema, "strict": True},
                }
            }
            if (
                details["provider"]
                in (
                    "openai",
                    "azure_openai",
                )
            ):  # as an option of its own it makes langchain-openai refuse answers cut off at max_tokens
                wanted = {"extra_body": {**details["options"].get("extra_body", {}), **wanted}}
            return self.model.bind(**wanted)
        return self.model


def request_of(backend, instruction, prompt, n, kept, seed):
    """What Asker takes: {"messages", "schema", "seed"} for at most backend.batch texts, in the form this backend does best with."""
    n, details = min(n, backend.batch), backend.details
    begin_with = prompt if details.get("begin_with_prompt") else None
    avoid = (
        kept.texts[-30:] if backend.batch >= 10 and not details["few_shot"] else ()
    )  # a small model repeats what it is told not to
    asked = variations.messages(instruction, prompt, n, avoid, details["few_shot"])
    return {
        "messages": asked,
        "schema": variations.schema(n, begin_with) if details["json"] == "schema" else None,
        "seed": seed,
        "n": n,
    }
