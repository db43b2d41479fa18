"""The router over LLM backends: which to ask next, what a failure means, when to wait.

    router = Router(backends, SpendLimit())     # inside an event loop; its clock is the loop's
    texts = await router.call(request)          # a Request, see below

Rotation: of the first tier with a backend that can take a call now (not disabled, not in backoff,
a free slot, within its limits a minute and the money granted), the one with the largest free share
of its slots is asked; ties go to the one picked longest ago. So a slow host, whose slots stay
taken, gets less.

A failure is classified (failures.py), then acted on:
    refused, timeout, cut, server error, rate limit   backoff of this backend, growing and jittered;
                                                      a Retry-After makes it longer only
    key, credit, model                                disabled for the run, the remedy is logged
    garbled, unusable                                 asked again elsewhere; three in a row: backoff
    refusal, content filter, copies                   asked again elsewhere; nobody's fault
A transient failure never fails a call: it waits for the first backend to return. A call fails
(Unanswered) only for reasons of the prompt itself: bad answers, or failures on backends that answer
other prompts well at the same time.
"""

import asyncio
import collections
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from generate.llms.backend import Backend, ChatRequest, Reply
from generate.llms.failures import (
    MAYBE_PROMPT,
    PERMANENT,
    TRANSIENT,
    Failure,
    NoBackendLeft,
    classify,
)
from generate.llms.spend_limit import SpendLimit

LOG = logging.getLogger(__name__)
BAD_ANSWERS = 6  # to one request before it is given up
# Failures of one request on backends that worked just before. With 20 % faults the chance of so
# many in a row is 0.2**12, four in 10**9.
SUSPICIONS = 12
PROBE_AFTER = 3  # failures of one request, after which a failing backend is asked something plain
LOG_EVERY_S = 60.0
RECHECK_S = 0.1  # how soon a backend that is only out of its rate limit is looked at again
LOOK_EVERY_S = 5.0  # the longest time without a look while calls wait


class Request(Protocol):
    """A question of the router's user."""

    prompt_bytes: int  # an upper bound of what is sent

    def make(self, backend: Backend) -> ChatRequest:
        """What this backend is asked."""

    def probe(self, backend: Backend) -> ChatRequest:
        """A plain question: does the backend fail at everything or only at this request?"""

    def judge(self, backend: Backend, reply: Reply) -> Any:
        """The result of call(); raises Failure for an answer that cannot be used."""


class Unanswered(Exception):
    """No backend gave a usable answer to this request; .kind of most failures."""

    def __init__(self, kinds: list[str]) -> None:
        self.kind = collections.Counter(kinds).most_common(1)[0][0]
        super().__init__(
            f"{len(kinds)} answers in a row could not be used, most often: {self.kind}"
        )


@dataclass
class _Tries:
    """What came of one request so far, and whether the request itself is at fault."""

    avoid: set[Backend] = field(default_factory=set)  # those who failed it
    bad: list[str] = field(default_factory=list)
    suspicions: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)  # since the last probe

    def probe_is_due(self, backend: Backend) -> bool:
        return len(self.unexplained) >= PROBE_AFTER and backend.last_failed

    def probe_answered(self) -> None:
        """The backend works: the last failure was the prompt's."""
        self.suspicions += self.unexplained[-1:] * (SUSPICIONS // 3)
        self.unexplained = []
        self._give_up()

    def failed(self, backend: Backend, kind: str, worked_before: bool) -> None:
        """Note a failure; raises Unanswered when it was one too many."""
        self.avoid.add(backend)
        if kind in MAYBE_PROMPT:
            self.unexplained.append(kind)
        if kind not in (*TRANSIENT, *PERMANENT, "garbled"):
            self.bad.append(kind)
        elif worked_before and kind in MAYBE_PROMPT:
            self.suspicions.append(kind)
        self._give_up()

    def _give_up(self) -> None:
        if len(self.suspicions) >= SUSPICIONS:
            raise Unanswered(self.suspicions)
        if len(self.bad) >= BAD_ANSWERS:
            raise Unanswered(self.bad)


@dataclass
class _Waiting:
    """A call that waits for a backend."""

    future: asyncio.Future[Backend]
    request: Request
    avoid: set[Backend]


class Router:
    """Gives each call a backend, within the slots and limits of the backends."""

    def __init__(
        self,
        backends: Iterable[Backend],
        spend_limit: SpendLimit | None = None,
        seed: int = 0,
        may_return: Callable[[], bool] = lambda: False,
    ) -> None:
        """may_return: whether waiting makes sense when all backends are disabled."""
        self.backends = list(backends)
        self.spend_limit = spend_limit or SpendLimit()
        self.may_return = may_return
        self.random = random.Random(seed)
        self.waiting: collections.deque[_Waiting] = collections.deque()
        self.picks = 0
        self.timer: asyncio.TimerHandle | None = None
        self.away = False  # calls wait and no backend is healthy
        self.away_logged = float("-inf")
        self.loop = asyncio.get_running_loop()

    def replace(self, backends: Iterable[Backend]) -> None:
        """A changed configuration: new backends; calls that wait go to them."""
        self.backends = list(backends)
        self.dispatch()

    def state(self) -> str:
        """ "healthy": someone can be asked; "waiting": all back off; "off": all are disabled."""
        now = self.loop.time()
        paid_off = self.spend_limit.paid_off
        if any(
            b.state(now) == "healthy" for b in self.backends if not b.config.paid or not paid_off
        ):
            return "healthy"
        return "off" if all(b.disabled_kind for b in self.backends) else "waiting"

    async def call(self, request: Request, ahead: bool = False) -> Any:
        """Ask until an answer passes request.judge(); what that returns.

        ahead: before those who wait already; for a prompt that has waited its turn and got too few
        texts. Raises Unanswered, or NoBackendLeft when everything is disabled and nothing may
        return.
        """
        tries = _Tries()
        while True:
            backend = await self._slot(request, tries.avoid, ahead and not tries.avoid)
            probing = tries.probe_is_due(backend)
            worked_before = bool(backend.usage.successes) and not backend.last_failed
            try:
                answer = await self._ask(backend, request, probing)
            except Failure as failure:
                tries.failed(backend, failure.kind, worked_before)
                continue
            if not probing:
                return answer
            tries.probe_answered()

    async def _ask(self, backend: Backend, request: Request, probing: bool) -> Any:
        """One call, billed and counted; every failure becomes a Failure."""
        config = backend.config
        began = self.loop.time()
        reserved_usd = config.worst_usd(request.prompt_bytes)
        spent_usd = reserved_usd  # until the bill is known
        backend.usage.calls += 1
        try:
            async with asyncio.timeout(config.timeout_s):
                asked = request.probe(backend) if probing else request.make(backend)
                reply = await backend.client.ask(asked)
            if reply.prompt_tokens is not None and reply.completion_tokens is not None:
                backend.usage.prompt_tokens += reply.prompt_tokens
                backend.usage.completion_tokens += reply.completion_tokens
                spent_usd = config.usd_of(reply.prompt_tokens, reply.completion_tokens)
            answer = None if probing else request.judge(backend, reply)
            backend.succeeded(self.loop.time() - began)
            return answer
        except Exception as error:  # a bug of ours shows as "server error" with its name
            failure = classify(error)
            if _is_free(failure):
                spent_usd = 0.0
            if backend.failed(self.loop.time(), failure, began, self.random.random()):
                self._log_failure(backend)
            raise failure from None
        finally:
            backend.outstanding -= 1
            backend.usage.usd += spent_usd
            self.spend_limit.settle(reserved_usd, spent_usd)
            self.dispatch()

    async def _slot(self, request: Request, avoid: set[Backend], ahead: bool) -> Backend:
        """The backend to ask, its slot, limits and money taken."""
        future: asyncio.Future[Backend] = self.loop.create_future()
        waiting = _Waiting(future, request, avoid)
        if ahead:
            self.waiting.appendleft(waiting)
        else:
            self.waiting.append(waiting)
        self.dispatch()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._release(future.result(), request)
            raise

    def _release(self, backend: Backend, request: Request) -> None:
        backend.outstanding -= 1
        self.spend_limit.settle(backend.config.worst_usd(request.prompt_bytes), 0.0)
        self.dispatch()

    def dispatch(self) -> None:
        """Hand out what is free to those who wait, first come first served."""
        kept: collections.deque[_Waiting] = collections.deque()
        while self.waiting:
            waiting = self.waiting.popleft()
            if waiting.future.done():
                continue
            backend = self._pick(waiting.request, waiting.avoid)
            if backend:
                waiting.future.set_result(backend)
                continue
            kept.append(waiting)
            if not waiting.avoid:
                break  # if the first cannot get a backend, those behind it cannot either
        self.waiting.extendleft(reversed(kept))
        self._look_after_waiting()

    def _pick(self, request: Request, avoid: set[Backend]) -> Backend | None:
        now = self.loop.time()
        up = [b for b in self.backends if b.state(now) == "healthy"]
        # a backend that failed this request is asked again only if no other is healthy
        up = [b for b in up if b not in avoid] or up
        for tier in sorted({b.config.tier for b in up}):
            able = [
                b
                for b in up
                if b.config.tier == tier
                and b.has_room(now, request.prompt_bytes)
                and self._is_affordable(b, request)
            ]
            if able:
                backend = max(able, key=lambda b: (1 - b.outstanding / b.open_slots, -b.picked))
                self.picks += 1
                backend.picked = self.picks
                backend.take(now, request.prompt_bytes)
                self.spend_limit.reserve(backend.config.worst_usd(request.prompt_bytes))
                return backend
        return None

    def _is_affordable(self, backend: Backend, request: Request) -> bool:
        config = backend.config
        return not config.paid or self.spend_limit.fits(config.worst_usd(request.prompt_bytes))

    def _look_after_waiting(self) -> None:
        """Log when everybody is away, look again later, give up where nobody can return."""
        exhausted = self.spend_limit.exhausted
        for backend in self.backends if exhausted else ():
            if backend.config.paid and not backend.disabled_kind:
                backend.disable("budget", exhausted or "")
        state = self.state()
        if self.waiting and state == "off" and not self.may_return():
            self._give_up()
        was_away = self.away
        self.away = bool(self.waiting) and state != "healthy"
        if self.away and not was_away:
            self._log_away()
        self._set_timer()

    def _give_up(self) -> None:
        remedies = [f"{b.config.name}: {b.disabled_because}" for b in self.backends]
        reason = "; ".join(remedies) or "no backend is configured"
        while self.waiting:
            future = self.waiting.popleft().future
            if not future.done():
                future.set_exception(NoBackendLeft(f"no LLM can be asked: {reason}"))

    def _set_timer(self) -> None:
        """Dispatch again when the first backend may return or its rate limit allows a call."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
        if not self.waiting:
            return
        now = self.loop.time()
        healthy = [b for b in self.backends if b.state(now) == "healthy"]
        limited = any(b.outstanding < b.slots for b in healthy)
        times = [now + (RECHECK_S if limited else LOOK_EVERY_S)]
        times += [b.backoff_until for b in self.backends if b.state(now) == "cooling"]
        self.timer = self.loop.call_at(max(min(times), now + 0.001), self.dispatch)

    def _log_away(self) -> None:
        now = self.loop.time()
        if now - self.away_logged < LOG_EVERY_S:
            return
        self.away_logged = now
        reasons = [
            f"{b.config.name}: {b.backoff_because or self.spend_limit.paid_off}"
            for b in self.backends
            if not b.disabled_kind
        ]
        LOG.warning(
            "LLMs: all backends are away, waiting for the first to return (%s)",
            "; ".join(reasons) or "all are disabled for this run",
        )

    def _log_failure(self, backend: Backend) -> None:
        name = backend.config.name
        if backend.disabled_kind:
            LOG.warning("LLMs: %s is disabled for this run: %s", name, backend.disabled_because)
        elif backend.backoffs in (0, 1) or backend.backoffs % 5 == 0:
            seconds = max(0.0, backend.backoff_until - self.loop.time())
            LOG.warning(
                "LLMs: %s backs off for %.0f s (%s)", name, seconds, backend.backoff_because
            )


def _is_free(failure: Failure) -> bool:
    """Whether no provider bills the call: it never arrived, or was refused.

    After a 5xx, a timeout or a cut answer the model may have run.
    """
    turned_away = failure.text.startswith("HTTP 4") or failure.kind in PERMANENT
    return failure.kind == "refused" or turned_away
