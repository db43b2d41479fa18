"""The router under a fake clock: its loop jumps to the next timer instead of sleeping.

It fails when nothing would ever happen.
"""

import asyncio
import itertools
import types

import pytest

from generate.llms.failures import NoBackendLeft, classify, retry_after
from generate.llms.router import Router, Unanswered
from generate.llms.spend_limit import SpendLimit
from tests.fakes.fake_backends import FakeBackend, FakeClockLoop, FakeRequest, run

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def loop():
    loop = FakeClockLoop()
    yield loop
    loop.close()


def test_a_slow_host_gets_less_and_an_idle_one_is_never_left_out(loop):
    fast, slow = FakeBackend("fast", latency=1), FakeBackend("slow", latency=9)
    run(loop, [fast, slow], 200)
    assert 12 < slow.asked < 40 and fast.asked == 200 - slow.asked
    pair = [FakeBackend("a", concurrency=1), FakeBackend("b", concurrency=16)]

    async def one_at_a_time():
        router = Router(pair)
        for _ in range(20):
            await router.call(FakeRequest())

    loop.run_until_complete(one_at_a_time())
    assert [b.asked for b in pair] == [10, 10]


def test_who_has_waited_its_turn_and_got_too_few_goes_before_the_others(loop):
    """The rest of one prompt's texts must not wait behind all prompts asked after it.

    A failed call waits at the end again.
    """
    backend, order = FakeBackend("b", concurrency=1), []

    async def scenario():
        router = Router([backend])

        async def ask(number, **kwargs):
            await router.call(FakeRequest(number), **kwargs)
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


def test_a_hanging_backend_holds_one_call_after_its_first_backoff(loop):
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


def test_backoffs_grow_are_jittered_and_end_with_a_success(loop):
    backend, starts = FakeBackend("b", latency=0.0), []
    backend.mood = "server error"

    def note(number):
        starts.append(loop.now)
        backend.mood = "good" if len(starts) > 9 else backend.mood

    backend.before = note
    run(loop, [backend], 1)
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert (
        all(0.5 * 2**k <= gap <= 1.5 * 2**k + 0.2 for k, gap in enumerate(gaps[:6]))
        and max(gaps) <= 181
        and len(set(gaps)) == len(gaps)
    )
    assert backend.backoffs == 0


def test_retry_after_is_waited_out_not_guessed(loop):
    backend = FakeBackend("b", latency=0.0)
    backend.mood, backend.retry_after_s = "rate limit", 3000.0
    loop.call_at(1001, setattr, backend, "mood", "good")
    run(loop, [backend], 5)
    assert 4000 <= loop.now <= 4310 and backend.usage.failures == {"rate limit": 2}


@pytest.mark.parametrize("word", ["0", "-5", "-1e400", "Wed, 21 Oct 2015 07:28:00 GMT", "0.001"])
def test_a_retry_after_makes_no_backoff_shorter(loop, word):
    backend, starts = FakeBackend("b", latency=0.0), []
    backend.mood, backend.retry_after_s = "rate limit", retry_after({"retry-after": word})

    def note(number):
        starts.append(loop.now)
        backend.mood = "good" if len(starts) > 9 else backend.mood

    backend.before = note
    run(loop, [backend], 1)
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(gap >= min(120, 2**k) * 0.5 for k, gap in enumerate(gaps)), gaps


def test_bad_answers_are_retried_elsewhere_and_three_in_a_row_back_off(loop):
    bad, good = FakeBackend("bad"), FakeBackend("good")
    bad.mood = "unusable"
    assert run(loop, [bad, good], 40) == ["good"] * 40
    assert bad.asked <= 12 and bad.backoffs >= 1
    bad, good = FakeBackend("bad"), FakeBackend("good")
    bad.mood = "copies"
    run(loop, [bad, good], 40)
    assert bad.backoffs == 0 and bad.state(loop.now) == "healthy", "copies are the prompt's doing"


def test_all_disabled_names_each_remedy_or_waits_where_one_may_return(loop):
    backends = [
        FakeBackend("a", remedies={"key": "set A_KEY"}),
        FakeBackend("b", remedies={"model": "run `ollama pull m` on node7"}),
    ]
    backends[0].mood, backends[1].mood = "key", "model"
    with pytest.raises(
        NoBackendLeft, match="a: as told; set A_KEY; b: as told; run `ollama pull m` on node7"
    ):
        run(loop, backends, 3)

    async def changed():
        router = Router(backends, may_return=lambda: True)
        loop.call_later(500, router.replace, [FakeBackend("c")])
        return await router.call(FakeRequest())

    assert loop.run_until_complete(changed()) == "c"


def test_the_only_prompt_left_is_given_up_when_it_breaks_what_works_otherwise(loop):
    """The backend fails at 13 and at nothing else.

    Its other callers, or a plain probe, show that the prompt is at fault.
    """

    def backend():
        b = FakeBackend("b", concurrency=1)

        def poisoned(number):
            b.mood = "server error" if number == 13 else "good"

        b.before = poisoned
        return b

    async def ask(others):
        router = Router([backend()])
        calls = [router.call(FakeRequest(n)) for n in (13, *range(100, 100 + others))]
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
    backend.before = lambda number: starts.append(loop.now)
    run(loop, [backend], max(4, rate * 3))
    assert least <= max(sum(t <= s < t + 60 for s in starts) for t in starts) <= most
    assert loop.now - 1000 >= (len(starts) - max(1, rate / 6) - 1) * 60 / rate, (
        "the mean rate is the limit"
    )


def test_a_cancelled_wait_gives_everything_back(loop):
    backend = FakeBackend("b", concurrency=1, usd_per_million=(1.0, 1.0))
    spend_limit = SpendLimit()
    spend_limit.take({"granted_usd": 1.0, "paid_off": None})

    async def play():
        router = Router([backend], spend_limit)
        calls = [asyncio.ensure_future(router.call(FakeRequest())) for _ in range(5)]
        await asyncio.sleep(0)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        under_way = asyncio.ensure_future(router.call(FakeRequest()))
        await asyncio.sleep(0.5)
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)

    loop.run_until_complete(play())
    assert backend.outstanding == 0 and spend_limit.reserved_usd == pytest.approx(0)
    assert spend_limit.spent_usd == pytest.approx(
        backend.billed_usd + backend.config.worst_usd(400)
    ), "a call given up half-way counts as its worst case"


@pytest.mark.parametrize("kind", ["timeout", "cut", "server error", "garbled"])
def test_a_call_that_failed_half_way_counts_as_its_worst_case(loop, kind):
    """Behind a cut or late answer a model may have run: the bill is not known, so the worst is."""
    backend, free = FakeBackend("b", usd_per_million=(1.0, 1.0)), FakeBackend("free", tier=1)
    backend.mood = kind
    spend_limit = SpendLimit()
    spend_limit.take({"granted_usd": 1.0, "paid_off": None})
    assert run(loop, [backend, free], 1, spend_limit) == ["free"]
    worst_usd = backend.config.worst_usd(400)
    assert backend.asked == 1
    assert spend_limit.spent_usd == backend.usage.usd == pytest.approx(worst_usd)
    assert spend_limit.reserved_usd == pytest.approx(0)


@pytest.mark.parametrize("kind", ["refused", "key", "model"])
def test_a_call_that_never_arrived_or_was_turned_away_costs_nothing(loop, kind):
    backend, free = FakeBackend("b", usd_per_million=(1.0, 1.0)), FakeBackend("free", tier=1)
    backend.mood = kind
    spend_limit = SpendLimit()
    spend_limit.take({"granted_usd": 1.0, "paid_off": None})
    assert run(loop, [backend, free], 1, spend_limit) == ["free"]
    assert spend_limit.spent_usd == spend_limit.reserved_usd == 0


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
    for word in ("inf", "1e400", "9" * 30):
        assert retry_after({"retry-after": word}) == 3600, "an hour at most, whatever a host says"
    assert retry_after({"retry-after": "nan"}) is None
