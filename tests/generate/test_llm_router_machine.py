"""The router as a state machine under a fake clock: backends turn good and bad at will.

What holds: nobody asks a backend that is disabled, backing off or full; the cap is never passed; no
healthy backend starves; every request gets its one answer once any backend is healthy long enough.
"""

import asyncio
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from generate.llms.router import Router, Unanswered
from generate.llms.spend_limit import SpendLimit
from tests.fakes.fake_backends import FakeBackend, FakeClockLoop, FakeRequest

pytestmark = pytest.mark.timeout(60)
MOODS = [
    "good",
    "good",
    "timeout",
    "cut",
    "refused",
    "server error",
    "rate limit",
    "garbled",
    "unusable",
    "refusal",
    "copies",
    "model",
]


class Routing(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = FakeClockLoop()
        asyncio.set_event_loop(self.loop)
        self.backends = [
            FakeBackend("local", latency=2.0, concurrency=2, timeout_s=20),
            FakeBackend("free", latency=1.0, timeout_s=20, requests_per_minute=60),
            FakeBackend("other", latency=3.0, timeout_s=20),
            FakeBackend(
                "paid", tier=1, usd_per_million=(50.0, 200.0), max_tokens=200, timeout_s=20
            ),
        ]
        self.spend_limit = SpendLimit()
        self.spend_limit.take({"granted_usd": 0.0, "paid_off": None})
        self.requests = []
        self.random = random.Random(1)
        self.router = self.loop.run_until_complete(self.make())

    async def make(self):
        return Router(self.backends, self.spend_limit, may_return=lambda: True)

    @rule(n=st.integers(1, 12))
    def submit(self, n):
        self.requests += [
            self.loop.create_task(self.router.call(FakeRequest(self.random.randrange(10**6))))
            for _ in range(n)
        ]

    @rule(
        which=st.integers(0, 3),
        mood=st.sampled_from(MOODS),
        retry_after_s=st.sampled_from([None, 5.0, 400.0]),
    )
    def turn(self, which, mood, retry_after_s):
        self.backends[which].mood, self.backends[which].retry_after_s = mood, retry_after_s

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 60.0, 600.0]))
    def wait(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(usd=st.sampled_from([0.02, 0.1, 1.0]))
    def grant(self, usd):
        granted = self.spend_limit.granted_usd + usd
        self.spend_limit.take({"granted_usd": granted, "paid_off": None})
        self.router.dispatch()

    @rule(which=st.integers(0, 1000))
    def cancel_one(self, which):
        if self.requests:
            self.requests[which % len(self.requests)].cancel()

    @invariant()
    def the_cap_holds_and_slots_add_up(self):
        paid = self.backends[3]
        assert paid.billed_usd <= self.spend_limit.spent_usd + 1e-9, (
            "never billed more than counted"
        )
        assert (
            self.spend_limit.spent_usd + self.spend_limit.reserved_usd
            <= self.spend_limit.granted_usd + 1e-9
        )
        assert all(0 <= b.outstanding <= b.config.concurrency for b in self.backends)
        assert not [
            r
            for r in self.requests
            if r.done() and not r.cancelled() and isinstance(r.exception(), AssertionError)
        ]

    def teardown(self):
        for backend in self.backends:
            backend.mood = "good"
        self.router.replace(
            [*self.backends, FakeBackend("new", timeout_s=20)]
        )  # where all were disabled, one returns
        self.backends = self.router.backends
        before = [b.asked for b in self.backends]
        self.loop.run_until_complete(
            asyncio.sleep(1000)
        )  # the longest backoff here: Retry-After 400
        more = [self.loop.create_task(self.router.call(FakeRequest())) for _ in range(200)]
        done = self.loop.run_until_complete(
            asyncio.wait_for(asyncio.gather(*self.requests, *more, return_exceptions=True), 5000)
        )
        for outcome in done:
            assert isinstance(outcome, (str, Unanswered, asyncio.CancelledError)), repr(outcome)
        for backend, asked in zip(self.backends, before, strict=True):
            if backend.config.tier == 0 and not backend.disabled_kind:
                assert backend.asked > asked, f"{backend.config.name} is healthy and starves"
        self.the_cap_holds_and_slots_add_up()
        assert sum(
            b.outstanding for b in self.backends
        ) == 0 and self.spend_limit.reserved_usd == pytest.approx(0, abs=1e-9)
        self.loop.close()


TestRouting = Routing.TestCase
TestRouting.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.soak
@pytest.mark.timeout(1800)
class TestRoutingLong(Routing.TestCase):
    settings = settings(max_examples=3000, stateful_step_count=60, deadline=None)
