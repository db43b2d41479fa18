"""Call one LLM backend through langchain. The only module that imports langchain.

client = ChatClient(config)
reply = await client.ask(ChatRequest(messages, schema, seed=1, n=10))

Only langchain's client gets the key: scrub() removes it from every text that is shown.
"""

import asyncio
import contextvars
import importlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from common.console import visible
from generate.llms.answer_size import ask_for_plain, limit
from generate.llms.backend import BackendConfig, ChatRequest, Messages, Reply
from generate.llms.failures import Failure, classify, retry_after

OPENAI_LIKE = ("openai", "azure_openai", "groq", "openrouter")
LONGEST_ANSWER = 1_000_000  # characters
CUT = ("length", "max_tokens")  # how providers say that an answer ended at max_tokens
MOST_TOKENS = 10**9  # a count above is no count
LOOKS_LIKE_A_KEY = re.compile(r"(?i)(bearer\s+|\b(?:sk|gsk|or|pk)-?[-_])[\w*.-]{6,}")
Headers = dict[str, str]
T = TypeVar("T")
# ollama's ResponseError drops the headers: a hook keeps those of a refused call here.
refusal_headers: contextvars.ContextVar[Headers] = contextvars.ContextVar("refusal_headers")


def scrub(text: object, key: str | None = None) -> str:
    """The text on one line without the key or anything that looks like one, harmless to show."""
    line = " ".join(str(text).split())
    if key and len(key) > 3:
        line = line.replace(key, "***")
    return visible(LOOKS_LIKE_A_KEY.sub(r"\1***", line), 300)


class ChatClient:
    """langchain's client is made at the first call: importing the openai package takes 2-4 s."""

    def __init__(self, config: BackendConfig) -> None:
        self.config = config
        self.model: Any = None
        self.making = asyncio.Lock()

    async def ask(self, request: ChatRequest) -> Reply:
        """The whole answer. Raises Failure."""

        async def answer() -> Reply:
            return self._reply(await self._bound(request).ainvoke(request.messages))

        return await self._guarded(answer)

    async def first_token(self, messages: Messages) -> float:
        """Seconds until the first piece of an answer arrives, streamed. Raises Failure."""

        async def answer() -> float:
            began = time.monotonic()
            first = None
            async for _ in self.model.astream(messages):
                # The rest is read too: closing in the middle logs a warning.
                first = first or time.monotonic() - began
            if first is None:
                raise Failure("garbled", "an empty answer")
            return first

        return await self._guarded(answer)

    async def _guarded(self, answer: Callable[[], Awaitable[T]]) -> T:
        """answer() once the client is there; any exception becomes a Failure without the key."""
        headers: Headers = {}
        refusal_headers.set(headers)
        try:
            async with self.making:
                if self.model is None:
                    self.model = await asyncio.to_thread(_make_model, self.config)
            return await answer()
        except ImportError:
            provider = self.config.provider
            raise Failure(
                "model",
                f"langchain's package for {provider} is not installed",
                remedy=f"pip install langchain-{provider.replace('_', '-')}",
            ) from None
        except Exception as error:
            failure = classify(error)
            refused = failure.kind == "key"
            raise Failure(
                failure.kind,
                "the key was refused" if refused else scrub(failure.text, self.config.key()),
                retry_after(headers) if failure.retry_after_s is None else failure.retry_after_s,
                failure.remedy,
            ) from None

    def _bound(self, request: ChatRequest) -> Any:
        """The client with what differs from call to call: schema and seed."""
        config = self.config
        if config.provider == "ollama":
            settings = {
                "temperature": config.temperature,
                "num_predict": config.max_tokens,
                "seed": request.seed,
            }
            schema = {"format": request.schema} if request.schema else {}
            return self.model.bind(options=settings, **schema)
        if not request.schema or config.provider not in OPENAI_LIKE:
            return self.model
        named = {"name": "variations", "schema": request.schema, "strict": True}
        wanted: dict[str, Any] = {"response_format": {"type": "json_schema", "json_schema": named}}
        if config.provider in ("openai", "azure_openai"):
            # As an option of its own it makes langchain-openai refuse answers cut at max_tokens.
            wanted = {"extra_body": {**config.options.get("extra_body", {}), **wanted}}
        return self.model.bind(**wanted)

    def _reply(self, message: Any) -> Reply:
        """The Reply of langchain's message. Raises Failure for an answer that was not finished."""
        meta = message.response_metadata or {}
        finish = meta.get("finish_reason") or meta.get("stop_reason") or meta.get("done_reason")
        if self.config.provider == "ollama" and not meta.get("done"):
            raise Failure("cut", "the stream ended without `done`")
        if finish == "content_filter":
            raise Failure("content filter", "the provider's content filter stopped the answer")
        if finish is None:
            raise Failure("garbled", "the answer does not say that it is finished")
        usage = message.usage_metadata or {}
        return Reply(
            _text_of(message.content),
            _count(usage.get("input_tokens")),
            _count(usage.get("output_tokens")),
            str(finish).lower() in CUT,
        )


def _text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts of which some are text."""
    if not isinstance(content, str):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return str(content[:LONGEST_ANSWER])


def _count(tokens: object) -> int | None:
    return tokens if isinstance(tokens, int) and 0 <= tokens <= MOST_TOKENS else None


def _make_model(config: BackendConfig) -> Any:
    """langchain's chat model. The SDKs' own retries are off: the router's loop is the only one."""
    # Deferred: langchain takes seconds to import, and a run without LLMs never needs it.
    from langchain.chat_models import init_chat_model

    for name in ("httpx", "httpx2", "openai", "groq"):  # they log every request at level INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    options: dict[str, Any]
    hooks = {"request": [ask_for_plain], "response": [limit, _keep_headers]}
    if config.provider == "ollama":
        http = {"timeout": config.timeout_s, "event_hooks": hooks, "follow_redirects": False}
        options = {"async_client_kwargs": http}
    else:
        options = {
            "max_retries": 0,
            "timeout": config.timeout_s,
            "max_tokens": config.max_tokens,
            "temperature": config.temperature,
        }
    if config.provider in ("openai", "azure_openai", "groq"):
        # no redirects: prompts go to the backends that the user lists, and nowhere else
        sdk = importlib.import_module("groq" if config.provider == "groq" else "openai")
        http = {"follow_redirects": False, "event_hooks": hooks}
        options["http_async_client"] = sdk.DefaultAsyncHttpxClient(**http)
    options.update(config.options)
    if config.provider != "ollama" and (config.key_env or config.base_url):
        options.setdefault("api_key", config.key() or "none")
    if config.base_url:
        options["base_url"] = config.base_url
    return init_chat_model(config.model, model_provider=config.provider, **options)


async def _keep_headers(response: Any) -> None:
    if response.status_code in (429, 503):
        refusal_headers.get({}).update(response.headers)
