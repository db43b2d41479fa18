"""Many unreliable LLM backends made into one: who is asked next, what a failure means, when to wait. No HTTP, no langchain.

    router = Router(backends, purse, log=print)          # inside an event loop; its clock is the loop's (monotonic)
    reply = await router.call(request)                   # request.make(backend), request.judge(backend, reply) as in llm_prompter.py

Rotation: of the first tier that has a backend able to take a call now (not off, not cooling, a free slot, within its limits a minute
and the money granted), the one with the largest free share of its slots, ties to the one picked longest ago. So a slow host, whose
slots stay taken, gets less. Slots start at 2 and grow by one with each success up to the backend's concurrency; after a pause one call
goes first, so that a host that hangs holds one call at a time, not all of its slots.

A failure is classified (llm_failures.py), then acted on:
    refused, timeout, cut, server error, rate limit   pause of this backend, growing and jittered; Retry-After is honoured
    key, credit, model                                off for the run, with a line saying how to mend it
    garbled, unusable                                 asked again elsewhere; three in a row pause the backend
    refusal, content filter, copies                   asked again elsewhere; nobody's fault
Weather never fails a call: it waits for the first backend to return. A call fails (Unanswered) only for what comes back with the
prompt itself: bad answers, or failures on backends that serve other prompts well meanwhile.
"""

import asyncio
import collections
import random

from generate.llms.failures import BY_PROMPT, OFF, UNBLAMED, WEATHER, classify

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 120.0
BAD_IN_A_ROW = 3  # bad answers that pause a backend
BAD_ANSWERS = 6  # to one request before it is given up
SUSPICIONS = 12  # failures of one request on backends that worked just before: with 20 % faults 0.2**12, four in 10**9, are bad luck
LATENCY_BOUNDS_S = [0.05 * 2**k for k in range(14)]  # classes of `seconds`, one more above
PROBE_AFTER = 3  # failures of one request, after which a backend that also failed last is first asked something plain
SAY_EVERY_S = 60.0
RECHECK_S = 0.1  # how soon a backend that is only out of its rate limit is looked at again


class Unanswered(Exception):
    """No backend gave a usable answer to this request; .kind of most failures."""

    def __init__(self, kinds):
        self.kind = collections.Counter(kinds).most_common(1)[0][0]
        super().__init__(
            f"{len(kinds)} answers in a row could not be used, most often: {self.kind}"
        )


class AllOff(Exception):
    """Every backend is off for the run and waiting cannot help; str = one line naming each remedy."""


class Backend:
    """One model at one address: what it may do, how it is doing. `ask(request_made, timeout) -> Reply` is set by llm_backends.py."""

    def __init__(
        self,
        name,
        model="",
        tier=0,
        concurrency=4,
        timeout_s=120.0,
        batch=10,
        max_tokens=2048,
        usd_per_million=(0.0, 0.0),
        requests_per_minute=None,
        tokens_per_minute=None,
        remedies=None,
        ask=None,
        **details,
    ):
        self.name, self.model, self.tier, self.concurrency, self.timeout_s = (
            name,
            model,
            tier,
            concurrency,
            timeout_s,
        )
        self.batch, self.max_tokens, self.usd_per_million, self.ask, self.details = (
            batch,
            max_tokens,
            usd_per_million,
            ask,
            details,
        )
        self.requests_per_minute, self.tokens_per_minute = requests_per_minute, tokens_per_minute
        self.remedies = remedies or {}  # kind -> how to mend it
        self.paid = any(usd_per_million)
        self.off_kind = self.off_because = None
        self.slots, self.outstanding, self.picked = min(2, concurrency), 0, 0
        self.cooling_until, self.paused_at, self.pauses, self.bad, self.last_failed = (
            float("-inf"),
            float("-inf"),
            0,
            0,
            False,
        )
        self.limiters = []
        self.because = None
        self.calls = self.successes = self.prompt_tokens = self.completion_tokens = 0
        self.usd = self.seconds_total = 0.0
        self.failures, self.seconds = collections.Counter(), [0] * (len(LATENCY_BOUNDS_S) + 1)

    def limit(self, requests_per_minute, tokens_per_minute):
        """Set the limits a minute (None = none). Bursts are a sixth of a minute's worth: no minute sees more than 7/6 of the limit."""
        if [requests_per_minute, tokens_per_minute] == [rate for rate, _, _ in self.limiters]:
            return
        from aiolimiter import AsyncLimiter

        self.limiters = []
        for rate, least in (
            (requests_per_minute, 1),
            (tokens_per_minute, self.likely_tokens(4000)),
        ):
            burst = max(
                least, (rate or 0) / 6
            )  # a call must fit into the burst, however small the share
            self.limiters.append(
                (rate, burst, AsyncLimiter(burst, 60 * burst / rate) if rate else None)
            )

    def has_capacity(self, tokens):
        return all(
            limiter is None or limiter.has_capacity(min(amount, burst))
            for (_, burst, limiter), amount in zip(self.limiters, (1, tokens))
        )

    def likely_tokens(self, prompt_bytes):
        """For the limit a minute, where a guess too low costs a 429: four bytes a token, and answers as long as those so far."""
        return prompt_bytes // 4 + (
            self.completion_tokens // self.successes if self.successes else self.max_tokens // 2
        )

    def usd_of(self, prompt_tokens, completion_tokens):
        return (
            prompt_tokens * self.usd_per_million[0] + completion_tokens * self.usd_per_million[1]
        ) / 1e6

    def worst_usd(self, prompt_bytes):
        """For the cap, which holds: no tokenizer of these models makes more tokens than bytes; 200 for the chat template."""
        return self.usd_of(prompt_bytes + 200, self.max_tokens)

    def state(self, now):
        return "off" if self.off_kind else "cooling" if now < self.cooling_until else "healthy"

    def use(self, now):
        """Running totals of this process, as reported to the job server."""
        state = self.state(now)
        return {
            "model": self.model,
            "paid": self.paid,
            "state": state,
            "until_s": round(self.cooling_until - now, 1) if state == "cooling" else None,
            "because": self.off_because or (self.because if state == "cooling" else None),
            "calls": self.calls,
            "successes": self.successes,
            "failures": dict(self.failures),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usd": self.usd,
            "seconds": list(self.seconds),
        }

    def turn_off(self, kind, text):
        self.off_kind = kind
        self.off_because = f"{text}; {self.remedies[kind]}" if kind in self.remedies else text

    def succeeded(self, now, seconds):
        self.successes += 1
        self.seconds_total += seconds
        self.seconds[
            next(
                (k for k, bound in enumerate(LATENCY_BOUNDS_S) if seconds < bound),
                len(LATENCY_BOUNDS_S),
            )
        ] += 1
        self.pauses = self.bad = 0
        self.last_failed = False
        self.slots = min(self.concurrency, self.slots + 1)

    def failed(self, now, failure, started, jitter):
        """Act on a failure of a call that began at `started`. Returns whether the backend was paused or turned off just now."""
        self.failures[failure.kind] += 1
        if failure.kind in OFF:
            first = not self.off_kind
            self.turn_off(failure.kind, failure.text)
            return first
        if failure.kind in UNBLAMED:
            return False
        if failure.kind not in WEATHER:
            self.bad += 1
            if self.bad < BAD_IN_A_ROW:
                return False
        self.last_failed = True
        if failure.retry_after_s is not None:
            self._pause(now, failure, failure.retry_after_s * (1 + 0.1 * jitter))
            return True
        if started < self.paused_at:
            return False  # a call that was under way when the pause began tells nothing new
        self.pauses += 1
        self._pause(
            now,
            failure,
            min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self.pauses - 1, 20)) * (0.5 + jitter),
        )
        return True

    def _pause(self, now, failure, seconds):
        self.cooling_until, self.paused_at = max(self.cooling_until, now + seconds), now
        self.slots, self.because = 1, f"{failure.kind}: {failure.text}"


class Purse:
    """What this process may spend: spent + reserved never passes granted. refill(): asks own accounts for more (no server)."""

    def __init__(self, calls_ahead=4):
        self.granted_usd = self.spent_usd = self.reserved_usd = self.call_usd = 0.0
        self.calls_ahead, self.paid_off, self.refill = calls_ahead, "no money was granted yet", None

    @property
    def wanted_usd(self):
        return self.calls_ahead * self.call_usd

    def fits(self, usd):
        self.call_usd = max(self.call_usd, usd)
        if self.refill and self.granted_usd - self.spent_usd - self.reserved_usd < usd:
            self.refill()
        return not self.paid_off and self.granted_usd - self.spent_usd - self.reserved_usd >= usd

    def settle(self, reserved_usd, spent_usd):
        self.reserved_usd -= reserved_usd
        self.spent_usd += spent_usd


class Router:
    def __init__(self, backends, purse=None, log=print, seed=0, may_return=lambda: False):
        self.backends, self.purse, self.log, self.may_return = (
            list(backends),
            purse or Purse(),
            log,
            may_return,
        )
        self.random, self.waiting, self.picks, self.timer = (
            random.Random(seed),
            collections.deque(),
            0,
            None,
        )
        self.said = float("-inf")
        self.away_since = None  # loop time since when calls wait and no backend is healthy
        self.loop = asyncio.get_running_loop()
        self._set_limits()

    def replace(self, backends):
        """A mended configuration: new backends; calls that wait go to them."""
        self.backends = list(backends)
        self._set_limits()
        self.dispatch()

    def _set_limits(self):
        for backend in self.backends:
            if not backend.limiters:
                backend.limit(backend.requests_per_minute, backend.tokens_per_minute)

    def state(self):
        """ "healthy": someone can be asked; "waiting": all pause; "off": all are off for the run."""
        states = [
            b.state(self.loop.time()) for b in self.backends if not (b.paid and self.purse.paid_off)
        ]
        if "healthy" in states:
            return "healthy"
        return "off" if all(b.off_kind for b in self.backends) else "waiting"

    async def call(self, request, ahead=False):
        """Ask until an answer passes request.judge(backend, reply), which returns what call() returns or raises Failure.

        request.prompt_bytes: size of what is sent; request.make(backend): what backend.ask() takes; request.probe(backend): the same for
        a plain prompt. ahead: before those who wait already; for a prompt that has waited its turn and got too few texts.
        Raises Unanswered, or AllOff when everything is off for the run and nothing may return.
        """
        avoid, bad, suspicions, failed = set(), [], [], []
        while True:
            backend = await self._slot(request, avoid, ahead and not avoid)
            probing = (
                len(failed) >= PROBE_AFTER and backend.last_failed
            )  # is it the backend or the prompt? A plain prompt tells
            worst_usd, now = backend.worst_usd(request.prompt_bytes), self.loop.time()
            worked_before, backend.calls = (
                backend.successes and not backend.last_failed,
                backend.calls + 1,
            )
            spent_usd, failure = (
                worst_usd,
                None,
            )  # until the bill is known, the worst case counts as spent
            try:
                async with asyncio.timeout(backend.timeout_s):
                    reply = await backend.ask(
                        request.probe(backend) if probing else request.make(backend)
                    )
                if reply.prompt_tokens is not None:
                    backend.prompt_tokens += reply.prompt_tokens
                    backend.completion_tokens += reply.completion_tokens
                    spent_usd = backend.usd_of(reply.prompt_tokens, reply.completion_tokens)
                answer = None if probing else request.judge(backend, reply)
                backend.succeeded(self.loop.time(), self.loop.time() - now)
                if not probing:
                    return answer
                suspicions += failed[-1:] * (SUSPICIONS // 3)
                failed = []
            except Exception as error:  # every failure of a backend is classified; a bug of ours shows as "server error" with its name
                failure = classify(error)
                if (
                    failure.kind == "refused"
                    or failure.text.startswith("HTTP 4")
                    or failure.kind in OFF
                ):
                    spent_usd = 0.0  # never reached or turned away: no provider bills that; behind a 5xx a model may have run
                if backend.failed(self.loop.time(), failure, now, self.random.random()):
                    self._tell(backend, failure)
            finally:
                backend.outstanding -= 1
                backend.usd += spent_usd
                self.purse.settle(worst_usd, spent_usd)
                self.dispatch()
            if failure is None:
                if len(suspicions) >= SUSPICIONS:
                    raise Unanswered(suspicions)
                continue
            avoid.add(backend)
            failed += [failure.kind] if failure.kind in BY_PROMPT else []
            if failure.kind in WEATHER + OFF + ("garbled",):
                suspicions += [failure.kind] if worked_before and failure.kind in BY_PROMPT else []
                if len(suspicions) >= SUSPICIONS:
                    raise Unanswered(suspicions)
            else:
                bad.append(failure.kind)
                if len(bad) >= BAD_ANSWERS:
                    raise Unanswered(bad)

    async def _slot(self, request, avoid, ahead):
        """The backend to ask, its slot, limits and money taken."""
        future = self.loop.create_future()
        (self.waiting.appendleft if ahead else self.waiting.append)((future, request, avoid))
        self.dispatch()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                self._give_back(future.result(), request)
            raise

    def _give_back(self, backend, request):
        backend.outstanding -= 1
        self.purse.settle(backend.worst_usd(request.prompt_bytes), 0.0)
        self.dispatch()

    def dispatch(self):
        """Hand out what is free to those who wait, first come first served."""
        left = collections.deque()
        while self.waiting:
            future, request, avoid = self.waiting.popleft()
            if future.done():
                continue
            backend = self._pick(request, avoid)
            if backend is None:
                left.append((future, request, avoid))
                if not avoid:
                    break  # what this one cannot have, nobody behind it can, but for those who avoid nobody either
                continue
            future.set_result(backend)
        self.waiting.extendleft(reversed(left))
        self._note_weather()

    def _pick(self, request, avoid):
        now = self.loop.time()
        up = [b for b in self.backends if b.state(now) == "healthy"]
        up = [
            b for b in up if b not in avoid
        ] or up  # who failed this request is asked again only if nobody else is up
        for tier in sorted({b.tier for b in up}):
            able = [
                b
                for b in up
                if b.tier == tier
                and b.outstanding < min(b.slots, b.concurrency)
                and b.has_capacity(b.likely_tokens(request.prompt_bytes))
                and (not b.paid or self.purse.fits(b.worst_usd(request.prompt_bytes)))
            ]
            if able:
                backend = max(
                    able, key=lambda b: (1 - b.outstanding / min(b.slots, b.concurrency), -b.picked)
                )
                self._take(backend, request)
                return backend
        return None

    def _take(self, backend, request):
        self.picks += 1
        backend.picked, backend.outstanding = self.picks, backend.outstanding + 1
        self.purse.reserved_usd += backend.worst_usd(request.prompt_bytes)
        for (_, burst, limiter), amount in zip(
            backend.limiters, (1, backend.likely_tokens(request.prompt_bytes))
        ):
            if limiter:
                try:
                    limiter.acquire(min(amount, burst)).send(None)
                except StopIteration:
                    pass  # acquired at once, as has_capacity() promised

    def _note_weather(self):
        """Say when everybody is away, wake up when the first may return, give up where nobody can."""
        now, state = self.loop.time(), self.state()
        if self.waiting and state == "off" and not self.may_return():
            remedies = (
                "; ".join(f"{b.name}: {b.off_because}" for b in self.backends)
                or "no backend is configured"
            )
            while self.waiting:
                future = self.waiting.popleft()[0]
                if not future.done():
                    future.set_exception(AllOff(f"no LLM can be asked: {remedies}"))
        if not self.waiting or state == "healthy":
            self.away_since = None
        elif self.away_since is None:
            self.away_since = now
            if now - self.said < SAY_EVERY_S:
                return self._wake(now)
            self.said = now
            names = "; ".join(
                f"{b.name}: {b.because or self.purse.paid_off}"
                for b in self.backends
                if not b.off_kind
            )
            self.log(
                f"LLMs: all backends are away, waiting for the first to return ({names or 'all are off for this run'})"
            )
        self._wake(now)

    def _wake(self, now):
        if self.timer:
            self.timer.cancel()
            self.timer = None
        if self.waiting:
            returns = [b.cooling_until for b in self.backends if b.state(now) == "cooling"]
            limited = any(
                b.state(now) == "healthy" and b.outstanding < b.slots for b in self.backends
            )
            wake = min(
                [now + (RECHECK_S if limited else 5.0)] + [max(t, now + 0.001) for t in returns]
            )
            self.timer = self.loop.call_at(wake, self.dispatch)

    def _tell(self, backend, failure):
        if backend.off_kind:
            self.log(f"LLMs: {backend.name} is off for this run: {backend.off_because}")
        elif backend.pauses in (0, 1) or backend.pauses % 5 == 0:
            self.log(
                f"LLMs: {backend.name} pauses for {backend.cooling_until - self.loop.time():.0f} s ({backend.because})"
            )
