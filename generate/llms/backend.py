"""One LLM backend: its configuration, its health, its limits and counters.

config = BackendConfig("ollama/llama3.1@node1:11434", "ollama", "llama3.1")
backend = Backend(config, ChatClient(config))
backend.state(now)      # "healthy", "cooling" (in backoff) or "off" (disabled), as on the page

No HTTP and no langchain here; time comes from outside.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from generate.llms.failures import NO_FAULT, PERMANENT, TRANSIENT, Failure
from generate.llms.rate_limit import RateLimit
from generate.llms.usage import Usage, Use

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 120.0
BAD_IN_A_ROW = 3  # bad answers that put a backend into backoff
TEMPLATE_TOKENS = 200  # of the chat template, beside the messages
Messages = list[tuple[str, str]]  # (role, text)


@dataclass(frozen=True)
class ChatRequest:
    """messages: what is said; schema: JSON schema of the answer, or None; n: texts asked for."""

    messages: Messages
    schema: dict[str, Any] | None
    seed: int
    n: int


@dataclass(frozen=True)
class Reply:
    """text; tokens as the provider counts them, None where it does not say.

    cut: the answer ended at the longest length allowed.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cut: bool = False


class Chat(Protocol):
    """Something that can be asked: ChatClient, or a fake."""

    async def ask(self, request: ChatRequest) -> Reply:
        """The answer. Any exception is a failure of the backend; see failures.classify()."""


@dataclass(frozen=True)
class BackendConfig:
    """What the backends file says of a backend; llm_backends.example.yaml explains each field."""

    name: str
    provider: str
    model: str
    tier: int = 0
    concurrency: int = 4
    timeout_s: float = 120.0
    batch: int = 10
    max_tokens: int = 2048
    usd_per_million: tuple[float, float] = (0.0, 0.0)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    base_url: str | None = None
    key_env: str | None = None
    temperature: float = 0.8
    json: str = "schema"
    few_shot: bool = False
    begin_with_prompt: bool = False
    pattern: str | None = None
    keep: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def pattern_for(self, prompt: str) -> str | None:
        """The pattern of the texts of a prompt: a group of `keep` has only the prompt's words."""
        words = [word for word in self.keep if word in prompt.lower()]
        if not self.pattern or not words:
            return self.pattern
        return self.pattern.replace(f"({'|'.join(self.keep)})", f"({'|'.join(words)})")

    @property
    def paid(self) -> bool:
        """Whether a call costs money."""
        return any(self.usd_per_million)

    def key(self) -> str | None:
        """The API key, from the environment; None where none is needed or set."""
        return os.environ.get(self.key_env) or None if self.key_env else None

    def usd_of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The price of a call in USD."""
        asked, answered = self.usd_per_million
        return (prompt_tokens * asked + completion_tokens * answered) / 1e6

    def worst_usd(self, prompt_bytes: int) -> float:
        """The most a call can cost: no tokenizer of these models makes more tokens than bytes."""
        return self.usd_of(prompt_bytes + TEMPLATE_TOKENS, self.max_tokens)

    def remedy(self, kind: str) -> str | None:
        """What a user can do about a permanent failure."""
        if kind == "key":
            return f"set {self.key_env or 'OLLAMA_API_KEY'} to a valid key"
        if kind == "credit":
            return "top up the account or take it out of the backends file"
        if kind == "model" and self.provider == "ollama":
            host = (self.base_url or "").removeprefix("http://").removeprefix("https://")
            return f"run `ollama pull {self.model}` on {host.rsplit(':', 1)[0]}"
        return f"name a model that {self.provider} has" if kind == "model" else None


class Backend:
    """Health, limits and counters of one backend in this process."""

    def __init__(self, config: BackendConfig, client: Chat) -> None:
        self.config = config
        self.client = client
        self.usage = Usage()
        self.disabled_kind: str | None = None
        self.disabled_because: str | None = None
        self.backoff_until = float("-inf")
        self.backoff_began = float("-inf")
        self.backoff_because: str | None = None
        self.backoffs = 0  # in a row
        self.bad_answers = 0  # in a row
        self.last_failed = False
        # Grows by one with each success: a host that hangs holds one call, not all of its slots.
        self.slots = min(2, config.concurrency)
        self.outstanding = 0
        self.picked = 0  # the router's count when it was last picked
        self.requests = RateLimit()
        self.tokens = RateLimit()
        self.limit(config.requests_per_minute, config.tokens_per_minute)

    def limit(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Set the limits a minute (None = none).

        A burst is a sixth of a minute's worth, so that no minute sees more than 7/6 of the limit;
        but a call must fit into it, however small the share.
        """
        self.requests.set(requests_per_minute, max(1, (requests_per_minute or 0) / 6))
        likely = self.likely_tokens(4000)
        self.tokens.set(tokens_per_minute, max(likely, (tokens_per_minute or 0) / 6))

    def likely_tokens(self, prompt_bytes: int) -> int:
        """Four bytes a token, and an answer as long as those so far.

        For the limit a minute, where a guess too low costs a 429.
        """
        usage = self.usage
        answer = self.config.max_tokens // 2
        if usage.successes:
            answer = usage.completion_tokens // usage.successes
        return prompt_bytes // 4 + answer

    def has_room(self, now: float, prompt_bytes: int) -> bool:
        """Whether a call may start now: a free slot, and the limits a minute allow it."""
        return (
            self.outstanding < self.open_slots
            and self.requests.has_room(now, 1)
            and self.tokens.has_room(now, self.likely_tokens(prompt_bytes))
        )

    def take(self, now: float, prompt_bytes: int) -> None:
        """Begin a call: its slot and its share of the limits."""
        self.outstanding += 1
        self.requests.take(now, 1)
        self.tokens.take(now, self.likely_tokens(prompt_bytes))

    @property
    def open_slots(self) -> int:
        """Calls that may be under way at this moment."""
        return min(self.slots, self.config.concurrency)

    def state(self, now: float) -> str:
        """ "healthy", "cooling" while in backoff, or "off" for the run."""
        if self.disabled_kind:
            return "off"
        return "cooling" if now < self.backoff_until else "healthy"

    def use(self, now: float) -> Use:
        """Running totals and state, as reported to the job server."""
        state = self.state(now)
        cooling = state == "cooling"
        return {
            "model": self.config.model,
            "paid": self.config.paid,
            "state": state,
            "until_s": round(self.backoff_until - now, 1) if cooling else None,
            "because": self.disabled_because or (self.backoff_because if cooling else None),
            **self.usage.document(),
        }

    def disable(self, kind: str, text: str, remedy: str | None = None) -> None:
        """Do not ask this backend again in this run."""
        remedy = remedy or self.config.remedy(kind)
        self.disabled_kind = kind
        self.disabled_because = f"{text}; {remedy}" if remedy else text

    def succeeded(self, seconds: float) -> None:
        """A call was answered well after so many seconds."""
        self.usage.succeeded(seconds)
        self.backoffs = 0
        self.bad_answers = 0
        self.last_failed = False
        self.slots = min(self.config.concurrency, self.slots + 1)

    def failed(self, now: float, failure: Failure, started: float, jitter: float) -> bool:
        """Act on a failure of a call that began at `started`; jitter: a random number below 1.

        Returns whether it was put into backoff or disabled just now.
        """
        self.usage.failures[failure.kind] += 1
        if failure.kind in PERMANENT:
            first = not self.disabled_kind
            self.disable(failure.kind, failure.text, failure.remedy)
            return first
        if failure.kind in NO_FAULT:
            return False
        if failure.kind not in TRANSIENT:
            self.bad_answers += 1
            if self.bad_answers < BAD_IN_A_ROW:
                return False
        self.last_failed = True
        # Retry-After makes a backoff longer, never shorter: a host may say 0, or a time in the past
        seconds = (failure.retry_after_s or 0.0) * (1 + 0.1 * jitter)
        if started >= self.backoff_began:
            self.backoffs += 1
            usual = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self.backoffs - 1, 20))
            seconds = max(seconds, usual * (0.5 + jitter))
        elif not seconds:
            return False  # the call was under way when the backoff began: it tells nothing new
        self._back_off(now, failure, seconds)
        return True

    def _back_off(self, now: float, failure: Failure, seconds: float) -> None:
        self.backoff_until = max(self.backoff_until, now + seconds)
        self.backoff_began = now
        self.slots = 1
        self.backoff_because = f"{failure.kind}: {failure.text}"
