"""The router under a fake clock: its event loop jumps to the next timer instead of sleeping, and fails when nothing would ever happen.

The state machine lets backends turn good and bad at will and holds: nobody asks a backend that is off or cooling or full, the cap is never
passed, no healthy backend starves, and every request gets its one answer once any backend is healthy for long enough.
"""

import asyncio
import random
import types

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from generate.llms.failures import Failure, classify, retry_after
from generate.llms.router import AllOff, Backend, Purse, Router, Unanswered

pytestmark = pytest.mark.timeout(60)


class FakeClockLoop(asyncio.SelectorEventLoop):
    """Time passes only when everybody waits, and then at once."""

    def __init__(self):
        super().__init__()
        self.now, select = 1000.0, self._selector.select

        def jump(timeout):
            events = select(0)
            if not events and timeout is None:
                raise AssertionError("everybody waits and no timer is set: a wake-up was lost")
            self.now += timeout or 0.0
            return events

        self._selector.select = jump

    def time(self):
        return self.now


@pytest.fixture
def loop():
    loop = FakeClockLoop()
    yield loop
    loop.close()


class FakeBackend(Backend):
    """Answers in the process, as `mood` says: "good" or a failure's kind; asserts that it may be asked; bills what it served."""

    def __init__(self, name, latency=1.0, **kwargs):
        super().__init__(name, ask=self.answer, **kwargs)
        self.latency, self.mood, self.asked, self.billed_usd, self.running = (
            latency,
            "good",
            0,
            0.0,
            0,
        )
        self.retry_after_s = None

    async def answer(self, made):
        now = asyncio.get_running_loop().time()
        assert self.state(now) == "healthy", f"{self.name} was asked while {self.state(now)}"
        self.asked, self.running = self.asked + 1, self.running + 1
        assert self.running <= self.concurrency
        try:
            mood = self.mood
            await asyncio.sleep({"timeout": 1e6, "refused": 0.0}.get(mood, self.latency))
            if mood in ("good", "copies"):
                tokens = made % 300, made % 200
                self.billed_usd += self.usd_of(*tokens)
                return types.SimpleNamespace(
                    text=mood, prompt_tokens=tokens[0], completion_tokens=tokens[1]
                )
            raise Failure(mood, "as told", self.retry_after_s if mood == "rate limit" else None)
        finally:
            self.running -= 1


class Request:
    def __init__(self, number=7):
        self.prompt_bytes, self.number = 400, number

    def make(self, backend):
        return self.number

    probe = make

    def judge(self, backend, reply):
        if reply.text != "good":
            raise Failure(reply.text, "as told")
        return backend.name


def run(loop, backends, requests, purse=None, lines=None, **kwargs):
    async def all_of_them():
        router = Router(backends, purse, log=(lines if lines is not None else []).append, **kwargs)
        return await asyncio.gather(*(router.call(Request(n)) for n in range(requests)))

    return loop.run_until_complete(all_of_them())


def test_a_slow_host_gets_less_and_an_idle_one_is_never_left_out(loop):
    fast, slow = FakeBackend("fast", latency=1), FakeBackend("slow", latency=9)
    run(loop, [fast, slow], 200)
    assert 12 < slow.asked < 40 and fast.asked == 200 - slow.asked
    pair = [FakeBackend("a", concurrency=1), FakeBackend("b", concurrency=16)]

    async def one_at_a_time():
        router = Router(pair, log=lambda line: None)
        for _ in range(20):
            await router.call(Request())

    loop.run_until_complete(one_at_a_time())
    assert [b.asked for b in pair] == [10, 10]


def test_who_has_waited_its_turn_and_got_too_few_goes_before_the_others(loop):
    """The rest of one prompt's texts must not wait behind all prompts asked after it; a failed call waits at the end again."""
    backend, order = FakeBackend("b", concurrency=1), []

    async def scenario():
        router = Router([backend], log=lambda line: None)

        async def ask(number, **kwargs):
            await router.call(Request(number), **kwargs)
            order.append(number)

        calls = [asyncio.ensure_future(ask(n)) for n in range(4)]
        await asyncio.sleep(0.5)  # 0 is being answered
        await asyncio.gather(*calls, ask(100, ahead=True))

    loop.run_until_complete(scenario())
    assert order == [0, 100, 1, 2, 3]


def test_a_tier_is_left_only_when_none_of_its_backends_can_take_the_call(loop):
    first, second = FakeBackend("first", concurrency=2), FakeBackend("second", tier=1)
    run(loop, [second, first], 2)
    assert (first.asked, second.asked) == (2, 0)
    run(loop, [second, first], 3)
    assert (first.asked, second.asked) == (4, 1)
    first.mood = "refused"
    run(loop, [second, first], 2)
    assert second.asked >= 2


def test_a_hanging_backend_holds_one_call_after_its_first_pause(loop):
    hangs, good = (
        FakeBackend("hangs", timeout_s=10, concurrency=8),
        FakeBackend("good", concurrency=2),
    )
    hangs.mood = "timeout"
    names = run(loop, [hangs, good], 300)
    assert set(names) == {"good"} and loop.now - 1000 < 175, (
        "two slots of one second each: 150 s, had nobody ever asked the other"
    )
    assert hangs.asked <= 8


def test_pauses_grow_are_jittered_and_end_with_a_success(loop):
    backend, starts = FakeBackend("b", latency=0.0), []
    backend.mood = "server error"
    ask = backend.ask

    async def watched(made):
        starts.append(loop.now)
        backend.mood = "good" if len(starts) > 9 else backend.mood
        return await ask(made)

    backend.ask = watched
    run(loop, [backend], 1)
    gaps = [b - a for a, b in zip(starts, starts[1:])]
    assert (
        all(0.5 * 2**k <= gap <= 1.5 * 2**k + 0.2 for k, gap in enumerate(gaps[:6]))
        and max(gaps) <= 181
        and len(set(gaps)) == len(gaps)
    )
    assert backend.pauses == 0


def test_retry_after_is_waited_out_not_guessed(loop):
    backend = FakeBackend("b", latency=0.0)
    backend.mood, backend.retry_after_s = "rate limit", 3000.0
    loop.call_at(1001, setattr, backend, "mood", "good")
    run(loop, [backend], 5)
    assert 4000 <= loop.now <= 4310 and backend.failures == {"rate limit": 2}


def test_bad_answers_are_retried_elsewhere_and_three_in_a_row_pause(loop):
    bad, good = FakeBackend("bad"), FakeBackend("good")
    bad.mood = "unusable"
    assert run(loop, [bad, good], 40) == ["good"] * 40
    assert bad.asked <= 12 and bad.pauses >= 1
    bad, good = FakeBackend("bad"), FakeBackend("good")
    bad.mood = "copies"
    run(loop, [bad, good], 40)
    assert bad.pauses == 0 and bad.state(loop.now) == "healthy", "copies are the prompt's doing"


def test_all_off_names_each_remedy_or_waits_where_one_may_return(loop):
    backends = [
        FakeBackend("a", remedies={"key": "set A_KEY"}),
        FakeBackend("b", remedies={"model": "run `ollama pull m` on node7"}),
    ]
    backends[0].mood, backends[1].mood = "key", "model"
    with pytest.raises(
        AllOff, match="a: as told; set A_KEY; b: as told; run `ollama pull m` on node7"
    ):
        run(loop, backends, 3)

    async def mended():
        router = Router(backends, log=lambda line: None, may_return=lambda: True)
        loop.call_later(500, router.replace, [FakeBackend("c")])
        return await router.call(Request())

    assert loop.run_until_complete(mended()) == "c"


def test_the_only_prompt_left_is_given_up_when_it_breaks_what_works_otherwise(loop):
    """The backend fails at 13 and at nothing else: its other callers, or a plain probe, show that the prompt is at fault."""

    def backend():
        b = FakeBackend("b", concurrency=1)
        ask = b.ask

        async def answer(made):
            b.mood = "server error" if made == 13 else "good"
            return await ask(made)

        b.ask = answer
        return b

    class Poison(Request):
        def probe(self, backend):
            return 7

    async def ask(others):
        router = Router([backend()], log=lambda line: None)
        calls = [router.call(Poison(13))] + [router.call(Request(100 + n)) for n in range(others)]
        return await asyncio.gather(*calls, return_exceptions=True)

    for others in (0, 12, 100):
        poison, *rest = loop.run_until_complete(ask(others))
        assert (
            isinstance(poison, Unanswered)
            and poison.kind == "server error"
            and rest == ["b"] * others
        )


@pytest.mark.parametrize("rate,least,most", [(60, 60, 71), (3, 3, 4), (0.5, 0, 1)])
def test_no_minute_sees_more_than_the_limit_and_a_burst(loop, rate, least, most):
    backend, starts = FakeBackend("b", latency=0.01, requests_per_minute=rate, concurrency=50), []
    ask = backend.ask

    async def watched(made):
        starts.append(loop.now)
        return await ask(made)

    backend.ask = watched
    run(loop, [backend], max(4, rate * 3))
    assert least <= max(sum(t <= s < t + 60 for s in starts) for t in starts) <= most
    assert loop.now - 1000 >= (len(starts) - max(1, rate / 6) - 1) * 60 / rate, (
        "the mean rate is the limit"
    )


def test_a_cancelled_wait_gives_everything_back(loop):
    backend = FakeBackend("b", concurrency=1, usd_per_million=(1.0, 1.0))
    purse = Purse()
    purse.granted_usd, purse.paid_off = 1.0, None

    async def play():
        router = Router([backend], purse, log=lambda line: None)
        calls = [asyncio.ensure_future(router.call(Request())) for _ in range(5)]
        await asyncio.sleep(0)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        under_way = asyncio.ensure_future(router.call(Request()))
        await asyncio.sleep(0.5)
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)

    loop.run_until_complete(play())
    assert backend.outstanding == 0 and purse.reserved_usd == pytest.approx(0)
    assert purse.spent_usd == pytest.approx(backend.billed_usd + backend.worst_usd(400)), (
        "a call given up half-way counts as its worst case"
    )


def test_classify_by_name_and_status():
    def error(name, bases=(Exception,), **attributes):
        e = type(name, bases, {})("text")
        for key, value in attributes.items():
            setattr(e, key, value)
        return e

    headers = types.SimpleNamespace(headers={"retry-after": "7"})
    assert classify(error("RateLimitError", status_code=429, response=headers)).retry_after_s == 7.0
    assert classify(TimeoutError()).kind == classify(error("ReadTimeout")).kind == "timeout"
    assert (
        classify(error("ConnectError")).kind == "refused"
        and classify(error("RemoteProtocolError")).kind == "cut"
    )
    for status, kind in {
        401: "key",
        403: "key",
        402: "credit",
        404: "model",
        400: "unusable",
        500: "server error",
        529: "server error",
        -1: "server error",
    }.items():
        assert classify(error("ResponseError", status_code=status)).kind == kind
    assert (
        classify(error("Surprise")).kind == "server error"
        and classify(ValueError("x")).kind == "garbled"
    )
    assert (
        retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
        and retry_after({"retry-after": "soon"}) is None
        and retry_after({}) is None
    )


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
        self.purse, self.requests, self.random = Purse(), [], random.Random(1)
        self.purse.paid_off = None
        self.router = self.loop.run_until_complete(self.make())

    async def make(self):
        return Router(self.backends, self.purse, log=lambda line: None, may_return=lambda: True)

    @rule(n=st.integers(1, 12))
    def submit(self, n):
        self.requests += [
            self.loop.create_task(self.router.call(Request(self.random.randrange(10**6))))
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
        self.purse.granted_usd += usd
        self.router.dispatch()

    @rule(which=st.integers(0, 1000))
    def cancel_one(self, which):
        if self.requests:
            self.requests[which % len(self.requests)].cancel()

    @invariant()
    def the_cap_holds_and_slots_add_up(self):
        paid = self.backends[3]
        assert paid.billed_usd <= self.purse.spent_usd + 1e-9, "never billed more than counted"
        assert self.purse.spent_usd + self.purse.reserved_usd <= self.purse.granted_usd + 1e-9
        assert all(0 <= b.outstanding <= b.concurrency for b in self.backends)
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
        )  # where all were turned off, one returns
        self.backends = self.router.backends
        before = [b.asked for b in self.backends]
        self.loop.run_until_complete(asyncio.sleep(1000))  # the longest pause here: Retry-After 400
        more = [self.loop.create_task(self.router.call(Request())) for _ in range(200)]
        done = self.loop.run_until_complete(
            asyncio.wait_for(asyncio.gather(*self.requests, *more, return_exceptions=True), 5000)
        )
        for outcome in done:
            assert isinstance(outcome, (str, Unanswered, asyncio.CancelledError)), repr(outcome)
        for backend, asked in zip(self.backends, before):
            if backend.tier == 0 and not backend.off_kind:
                assert backend.asked > asked, f"{backend.name} is healthy and starves"
        self.the_cap_holds_and_slots_add_up()
        assert sum(
            b.outstanding for b in self.backends
        ) == 0 and self.purse.reserved_usd == pytest.approx(0, abs=1e-9)
        self.loop.close()


TestRouting = Routing.TestCase
TestRouting.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.soak
@pytest.mark.timeout(1800)
class TestRoutingLong(Routing.TestCase):
    settings = settings(max_examples=3000, stateful_step_count=60, deadline=None)
