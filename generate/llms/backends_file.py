"""Read the file of LLM backends; llm_backends.example.yaml explains every field.

configs = BackendsFile(path, ollama_hosts="node1:11434-11438,node2").configs()

Keys come from the environment, so that the file holds no secret.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.files import CHECKOUT, parse_yaml
from common.untrusted import read_text
from generate.llms.backend import BackendConfig
from generate.llms.chat import OPENAI_LIKE
from generate.llms.embedded import MODEL, EmbeddedLLM
from generate.protocol.fields import MOST_BACKENDS

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
NUMBERS: dict[str, type[int] | type[float]] = {
    "concurrency": int,
    "timeout_s": float,
    "batch": int,
    "max_tokens": int,
    "requests_per_minute": float,
    "tokens_per_minute": float,
    "temperature": float,
}
LARGEST = 10**9
EMBEDDED_FIELDS = ("pattern", "keep", "few_shot", "batch", "max_tokens", "temperature", "timeout_s")
TEXTS = ("provider", "model", "name", "base_url", "key_env", "json", "pattern")
FIELDS = {*TEXTS, *NUMBERS, "hosts", "usd_per_million", "few_shot", "options", "keep"}
MOST_PORTS = 256
LONGEST_PATTERN = 1000  # characters: it is sent with each call
HOST = re.compile(r"(https?://)?(\[[0-9a-fA-F:]+\]|[^:/\s\[\]]*)(?::(\d+)(?:-(\d+))?)?")
LISTEN_ANYWHERE = ("", "0.0.0.0", "[::]")  # an address to listen on is not one to connect to


class BackendsFile:
    """The backends of a file; llm_backends.yaml where the user made one, else the example."""

    def __init__(
        self, path: str | os.PathLike[str] | None = None, ollama_hosts: str | None = None
    ) -> None:
        self.path = Path(path) if path else default_file()
        self.ollama_hosts = ollama_hosts
        self.embedded = EmbeddedLLM()  # started for an entry with `provider: embedded`

    def configs(self, start: bool = True) -> list[BackendConfig]:
        """First tier first; each name once. Raises UserError for a file that cannot be used.

        start: the embedded LLM is started, if the file names it; else it has no address.
        """
        configs: list[BackendConfig] = []
        names: set[str] = set()
        for config in self._read(start):
            name = config.name
            while name in names:
                name += "'"
            names.add(name)
            configs.append(replace(config, name=name))
        if len(configs) > MOST_BACKENDS:
            raise UserError(
                f"{self.path}: {len(configs):,} LLM backends (each host and port is one), at most "
                f"{MOST_BACKENDS} are taken; name fewer hosts, or fewer ports of each"
            )
        return configs

    def changed_at(self) -> int:
        """When the file was last changed or touched (ns); 0 if it is not there."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return 0

    def close(self) -> None:
        """End the embedded LLM, if the file names it; all others run elsewhere."""
        self.embedded.close()

    def __str__(self) -> str:
        return str(self.path)

    def _read(self, start: bool) -> Iterator[BackendConfig]:
        for rank, tier in enumerate(_tiers(self.path)):
            for place, entry in enumerate(tier["backends"]):
                where = f"{self.path}, tier {rank + 1}, backend {place + 1}"
                if isinstance(entry, dict) and entry.get("provider") == "embedded":
                    entry.setdefault("model", MODEL)
                try:
                    configs = list(
                        _configs_of(entry, rank, bool(tier.get("paid")), self.ollama_hosts)
                    )
                except ValueError as error:
                    raise UserError(f"{where}: {error}") from None
                for config in configs:
                    embedded = start and config.provider == "embedded"
                    yield self._embedded(entry, config) if embedded else config

    def _embedded(self, entry: dict[str, Any], config: BackendConfig) -> BackendConfig:
        """The embedded LLM, with what the entry says of it."""
        base = self.embedded.configs()[0]
        said = {field: getattr(config, field) for field in EMBEDDED_FIELDS if field in entry}
        # how llama.cpp chooses the next token: what the entry says, beside what is needed anyway
        body = {**base.options["extra_body"], **(config.options.get("extra_body") or {})}
        options = {**base.options, "extra_body": body}
        return replace(base, name=config.name, tier=config.tier, options=options, **said)


def default_file() -> Path:
    """generate/llm_backends.yaml where the user made one, else the example beside it."""
    own = CHECKOUT / "generate" / "llm_backends.yaml"
    # a link that leads nowhere is the user's choice, too: reading it says so
    return own if os.path.lexists(own) else own.with_name("llm_backends.example.yaml")


def _tiers(path: Path) -> list[dict[str, Any]]:
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"cannot read the backends file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read the backends file {path}: not UTF-8") from None
    try:
        document = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    tiers = document.get("tiers") if isinstance(document, dict) else None
    if not isinstance(tiers, list) or not all(
        isinstance(tier, dict) and isinstance(tier.get("backends"), list) for tier in tiers
    ):
        form = "`tiers:`, a list of {name, backends: [...]}"
        raise UserError(f"{path} must hold {form}; see llm_backends.example.yaml")
    return tiers


def _configs_of(
    entry: Any, tier: int, paid: bool, ollama_hosts: str | None
) -> Iterator[BackendConfig]:
    """The backends of one entry, one for each Ollama address. ValueError says what is wrong."""
    if not isinstance(entry, dict) or not entry.get("provider") or not entry.get("model"):
        raise ValueError("`provider` and `model` are needed")
    for key in entry:
        if key not in FIELDS:
            raise ValueError(f"unknown field {key!r}; there are {', '.join(sorted(FIELDS))}")
    for key in TEXTS:
        if not isinstance(entry.get(key), str | None):
            raise ValueError(f"{key} must be a text, not {entry[key]!r}")
    if not isinstance(entry.get("options"), dict | None):
        raise ValueError(f"options must be fields and values, not {entry['options']!r}")
    provider = entry["provider"]
    name = entry.get("name") or f"{provider}/{entry['model']}"
    schema = provider == "ollama" or provider in OPENAI_LIKE
    config = BackendConfig(
        name=name,
        provider=provider,
        model=entry["model"],
        tier=tier,
        usd_per_million=_prices(entry.get("usd_per_million"), paid),
        base_url=entry.get("base_url"),
        key_env=entry.get("key_env", KEYS.get(provider)),
        json=entry.get("json") or ("schema" if schema else "text"),
        few_shot=bool(entry.get("few_shot")),
        pattern=_pattern(entry.get("pattern")),
        keep=_keep(entry.get("keep"), entry.get("pattern")),
        options=dict(entry.get("options") or {}),
        **{key: _number(key, entry[key]) for key in NUMBERS if entry.get(key) is not None},
    )
    if config.json not in ("schema", "text"):
        raise ValueError(f"json is schema or text, not {config.json!r}")
    if provider != "ollama":
        yield config
        return
    for address in _ollama_addresses(ollama_hosts or entry.get("hosts"), config.base_url):
        place = re.sub(r"^https?://", "", address)
        yield replace(config, name=f"{name}@{place}", base_url=address)


def _pattern(value: str | None) -> str | None:
    """A regular expression that each text must match as a whole."""
    if value is None:
        return None
    if len(value) > LONGEST_PATTERN:
        raise ValueError(f"pattern is longer than {LONGEST_PATTERN} characters")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"pattern is no regular expression: {error}") from None
    return value


def _keep(words: Any, pattern: str | None) -> tuple[str, ...]:
    """Words of a group of the pattern: (circle|square) becomes (circle) for a prompt with one."""
    if words is None:
        return ()
    if not isinstance(words, list) or not all(word and isinstance(word, str) for word in words):
        raise ValueError(f"keep must be a list of words, not {words!r}")
    if (group := f"({'|'.join(words)})") not in (pattern or ""):
        raise ValueError(f"keep: the pattern has no group {group}")
    return tuple(words)


def _prices(value: Any, paid: bool) -> tuple[float, float]:
    prices = [0.0, 0.0] if value is None else value
    if (
        not isinstance(prices, list)
        or len(prices) != 2
        or not all(_is_number(price) and 0 <= price <= LARGEST for price in prices)
    ):
        wanted = "[USD per million prompt tokens, per million completion tokens]"
        raise ValueError(f"usd_per_million is {wanted}")
    if paid and not any(prices):
        raise ValueError("a backend of a paid tier needs usd_per_million to keep the budget")
    return prices[0], prices[1]


def _number(field: str, value: Any) -> Any:
    # `not 0 < value`: nan is no number above 0 either
    if not _is_number(value) or not (0 < value <= LARGEST or (field, value) == ("temperature", 0)):
        raise ValueError(f"{field} must be a number above 0, not {value!r}")
    return NUMBERS[field](value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ollama_addresses(hosts: Any, base_url: str | None) -> list[str]:
    """["http://node1:11434", …] of "node1:11434-11438,node2" or a list of such.

    Without any: OLLAMA_HOSTS, OLLAMA_HOST, localhost.
    """
    environment = os.environ.get("OLLAMA_HOSTS") or os.environ.get("OLLAMA_HOST")
    given = hosts or base_url or environment or "localhost"
    words = re.split(r"[,\s]+", given) if isinstance(given, str) else given
    if not isinstance(words, list):
        raise ValueError(f"hosts must be a text or a list, not {hosts!r}")
    addresses: list[str] = []
    for word in filter(None, (str(word).strip().rstrip("/") for word in words)):
        addresses += _addresses_of(word)
    return list(dict.fromkeys(addresses))


def _addresses_of(word: str) -> list[str]:
    match = HOST.fullmatch(word)
    first = int((match and match[3]) or 11434)
    last = int((match and match[4]) or first)
    if not match or not 0 < first <= last < 65536 or last - first >= MOST_PORTS:
        raise ValueError(
            f"{word!r} is no Ollama host; write host, host:port, host:first-last or a URL"
        )
    scheme = match[1] or "http://"
    host = "localhost" if match[2] in LISTEN_ANYWHERE else match[2]
    return [f"{scheme}{host}:{port}" for port in range(first, last + 1)]
