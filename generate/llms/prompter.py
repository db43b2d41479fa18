"""Ask LLMs for variations of prompts until each prompt has as many as wanted.

prompter = Prompter(BackendsFile("llm_backends.yaml"), PrompterSettings(budget_usd=5.0))
future = prompter.submit("a corgi in a top hat", 9)
future.result().texts     # [{"text", "llm_model_name", "backend", "overlap"}, …]
prompter.close()

A thread with an event loop of its own does the asking; every method may be called from any thread.
"""

import argparse
import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from common.command_line import UserError
from common.screening import Screen
from generate.dataset.prompts_file import find_prompts
from generate.llms.asking import Text, VariationRequest, Wording
from generate.llms.backend import Backend, BackendConfig
from generate.llms.backends_file import BackendsFile
from generate.llms.chat import ChatClient
from generate.llms.embedded import EmbeddedLLM
from generate.llms.router import Router, Unanswered
from generate.llms.spend_limit import OwnAccounts, SpendLimit
from generate.llms.usage import Use, added, line
from generate.llms.variations import VariationFilter
from generate.protocol.fields import MOST_BACKENDS

LOG = logging.getLogger(__name__)
# Of a request (instruction, 30 texts not to repeat, prompt): the first guess of what a call costs.
TYPICAL_BYTES = 6000
LOOK_EVERY_S = 2.0  # how often a backends file is looked at while everything is disabled
MAY_RETURN = ("model", "credit")  # can be mended while a run waits: pull the model, top up
LOG_EVERY_S = 600.0
EARLIER = "earlier versions of the file"
TEXTS = 20_000  # characters of all hosts' errors in a heartbeat, of up to six bytes each


class BackendSource(Protocol):
    """Where backends come from: BackendsFile or EmbeddedLLM. str() names it."""

    def configs(self) -> list[BackendConfig]:
        """The backends now. Raises UserError."""

    def changed_at(self) -> int | None:
        """A number that changes when configs() would give others; None: they never change."""

    def close(self) -> None:
        """End what was started for it."""


@dataclass(frozen=True)
class PrompterSettings:
    """instruction: a text file with {n}, {prompt} and {attributes}; attributes: a YAML file.

    accounts: None = limits and money come from the job server by set_share(); a path or ":memory:"
    = this process keeps them itself.
    """

    budget_usd: float = 0.0
    seed: int = 0
    instruction: str | Path | None = None
    attributes: str | Path | None = None
    accounts: str | None = None


DEFAULTS = PrompterSettings()


@dataclass(frozen=True)
class Variations:
    """texts: of asking.VariationRequest.judge(); short: None or {"missing", "reason"}."""

    texts: list[Text]
    short: dict[str, Any] | None


def prompter_of(args: argparse.Namespace, accounts: str | None = None, seed: int = 0) -> "Prompter":
    """A Prompter as the options of options.add_llm_options() say.

    Each text passes the screen that the prompts file was combined with.
    """
    embedded = args.llm == "embedded"
    source = EmbeddedLLM() if embedded else BackendsFile(args.llm_backends, args.ollama_hosts)
    settings = PrompterSettings(
        args.llm_budget_usd, seed, args.llm_instruction, args.llm_attributes, accounts
    )
    file = getattr(args, "data_path", None) or getattr(args, "prompts_file", None)
    return Prompter(source, settings, Screen.beside(find_prompts(file)) if file else None)


class Prompter:
    """Raises UserError for a file that cannot be used, or an embedded LLM that does not start."""

    def __init__(
        self,
        source: BackendSource,
        settings: PrompterSettings = DEFAULTS,
        screen: Screen | None = None,
    ) -> None:
        """screen: screens each text; default: that of a run without a prompts file."""
        self.source = source
        self.settings = settings
        self.screen = screen or Screen()
        self.wording = Wording.read(settings.instruction, settings.attributes)
        self.backends = self._read()
        self.replaced: list[Backend] = []  # of earlier versions of the file
        usable = [b.config for b in self.backends if b.config.paid and not b.disabled_kind]
        call_usd = max([config.worst_usd(TYPICAL_BYTES) for config in usable], default=0.0)
        own = settings.accounts and OwnAccounts(settings.accounts, self._limits(call_usd))
        self.spend_limit = SpendLimit(own or None, call_usd)
        self.closed = False
        self.lock = threading.Lock()
        self.ready = threading.Event()
        self.thread: threading.Thread | None = None
        # Set in the thread, before `ready`:
        self.loop: asyncio.AbstractEventLoop
        self.stopping: asyncio.Event
        self.router: Router | None = None
        self.tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Start the thread now instead of at the first submit()."""
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(
                    target=lambda: asyncio.run(self._main()), name="LLMs", daemon=True
                )
                self.thread.start()
        self.ready.wait()

    def submit(
        self, prompt: str, n: int, known: Iterable[str] = ()
    ) -> concurrent.futures.Future[Variations]:
        """n texts that are no copies of each other, of the prompt, or of `known`.

        It waits out any transient failure. The future raises failures.NoBackendLeft (one line with
        each backend's remedy) when everything is disabled for the run and nothing may return.
        """
        self.start()
        return asyncio.run_coroutine_threadsafe(self._variations(prompt, n, list(known)), self.loop)

    def limits(self) -> dict[str, Any]:
        """What the job server is to know: budget, what a call costs, each backend's limits."""
        return {
            **self._limits(self.spend_limit.call_usd),
            "wanted_usd": self.spend_limit.wanted_usd,
        }

    def use(self) -> dict[str, Any]:
        """Running totals of money, and under "backends" of each backend, by name.

        They fit into a heartbeat: what hosts say of their errors is cut where there are many. Where
        the file was read again so often that there are too many names, the earlier ones are one.
        """
        now = time.monotonic()  # the event loop's clock
        backends: dict[str, Use] = {}
        present = {backend.config.name for backend in self.backends}
        many = len(present | {backend.config.name for backend in self.replaced}) > MOST_BACKENDS
        for backend in self.replaced + self.backends:
            name = backend.config.name
            name = EARLIER if many and name not in present else name
            backends[name] = added(backends.get(name), backend.use(now))
        longest = max(40, TEXTS // max(1, len(backends)))
        for use in backends.values():
            use["because"] = use["because"] and use["because"][:longest]
        return {**self.spend_limit.report(self.closed), "backends": backends}

    def set_share(self, share: dict[str, Any] | None) -> None:
        """Accounts.share() of the job server: limits a minute and the money granted so far.

        In any order, any number of times.
        """
        if share and self.router and not self.closed:
            self.loop.call_soon_threadsafe(self._set_share, share)
        elif share:
            self._set_share(share)

    def state(self) -> str:
        """ "healthy", "waiting" (all backends back off) or "off" (all disabled for the run)."""
        if self.router:
            return self.router.state()
        return "healthy" if any(not b.disabled_kind for b in self.backends) else "off"

    def lines(self) -> list[str]:
        """A line per backend that was asked: calls, failures, latency, tokens, cost, state."""
        return [line(name, use) for name, use in self.use()["backends"].items() if use["calls"]]

    def close(self) -> None:
        """Cancel what is under way and stop.

        use() stays good; its "closed" gives the unspent money back to the run.
        """
        with self.lock:
            was_closed = self.closed
            self.closed = True
        if was_closed:
            return
        if self.thread and self.thread.is_alive():
            self.ready.wait()
            self.loop.call_soon_threadsafe(self.stopping.set)
            self.thread.join()
        self.spend_limit.close()
        self.source.close()

    def _limits(self, call_usd: float) -> dict[str, Any]:
        backends = {
            b.config.name: {
                "model": b.config.model,
                "paid": b.config.paid,
                "tier": b.config.tier,
                "requests_per_minute": b.config.requests_per_minute,
                "tokens_per_minute": b.config.tokens_per_minute,
            }
            for b in self.backends
        }
        return {
            "budget_usd": float(self.settings.budget_usd),
            "call_usd": call_usd,
            "backends": backends,
        }

    def _read(self) -> list[Backend]:
        """The source's backends; those without key or budget are disabled."""
        backends = [Backend(config, ChatClient(config)) for config in self.source.configs()]
        for backend in backends:
            config = backend.config
            if config.paid and self.settings.budget_usd <= 0:
                backend.disable("budget", "costs money and --llm_budget_usd is 0")
            elif config.key_env and not config.key():
                backend.disable("key", "no key")
                LOG.warning("LLMs: %s is disabled: %s is not set", config.name, config.key_env)
        return backends

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        self.router = Router(self.backends, self.spend_limit, self.settings.seed, self._may_return)
        self.ready.set()
        watching = asyncio.create_task(self._watch())
        await self.stopping.wait()
        watching.cancel()
        for task in list(self.tasks):
            task.cancel()
        self._log_lines()
        await asyncio.gather(watching, *self.tasks, return_exceptions=True)

    async def _variations(self, prompt: str, n: int, known: list[str]) -> Variations:
        task = asyncio.current_task()
        assert task and self.router
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        kept = VariationFilter(prompt, known, self.screen, self.wording.given())
        texts: list[Text] = []
        attempt = 0
        while len(texts) < n:
            attempt += 1
            seed = f"{self.settings.seed}/{prompt}/{attempt}"
            request = VariationRequest(prompt, n - len(texts), kept, self.wording, seed)
            try:
                texts += await self.router.call(request, ahead=attempt > 1)
            except Unanswered as error:
                return Variations(texts, {"missing": n - len(texts), "reason": str(error)})
        return Variations(texts, None)

    async def _watch(self) -> None:
        """Read the source again when everything is disabled and it was changed; log at times."""
        changed = self.source.changed_at()
        logged = self.loop.time()
        reminded: float | None = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = self.loop.time()
            if now - logged > LOG_EVERY_S:
                logged = now
                self._log_lines()
            if any(not b.disabled_kind for b in self.backends) or not self._may_return():
                continue
            if reminded is None or now - reminded > LOG_EVERY_S:
                reminded = now
                reasons = [f"{b.config.name}: {b.disabled_because}" for b in self.backends]
                LOG.warning(
                    "LLMs: all backends are disabled; waiting until %s is changed "
                    "(or touched, once fixed): %s",
                    self.source,
                    "; ".join(reasons),
                )
            if self.source.changed_at() != changed:
                changed = self.source.changed_at()
                reminded = None
                self._read_again()

    def _read_again(self) -> None:
        assert self.router
        try:
            backends = self._read()
        except UserError as error:
            LOG.warning("LLMs: %s; still waiting", error)
            return
        self.replaced += self.backends
        self.backends = backends
        self.router.replace(backends)
        usable = sum(not b.disabled_kind for b in backends)
        LOG.info("LLMs: %s was read again: %d backends", self.source, usable)

    def _log_lines(self) -> None:
        for text in self.lines():
            LOG.info("LLMs: %s", text)

    def _may_return(self) -> bool:
        """Whether to wait when all backends are disabled: the source may change."""
        has_file = self.source.changed_at() is not None
        return has_file and any(b.disabled_kind in MAY_RETURN for b in self.backends)

    def _set_share(self, share: dict[str, Any]) -> None:
        for backend in self.backends if self.router else ():
            limits = (share.get("backends") or {}).get(backend.config.name)
            if limits:
                backend.limit(limits.get("requests_per_minute"), limits.get("tokens_per_minute"))
        self.spend_limit.take(share)
        if self.router:
            self.router.dispatch()
