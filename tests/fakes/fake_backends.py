"""Backends in the process and a loop whose clock jumps, for tests of the router.

loop = FakeClockLoop()
names = run(loop, [FakeBackend("fast"), FakeBackend("slow", latency=9)], requests=200)
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from generate.llms.backend import Backend, BackendConfig, Reply
from generate.llms.failures import Failure
from generate.llms.router import Router
from generate.llms.spend_limit import SpendLimit


class FakeClockLoop(asyncio.SelectorEventLoop):
    """Time passes only when everybody waits, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        select = self._selector.select

        def jump(timeout):
            events = select(0)
            if not events and timeout is None:
                raise AssertionError("everybody waits and no timer is set: a wake-up was lost")
            self.now += timeout or 0.0
            return events

        self._selector.select = jump

    def time(self) -> float:
        return self.now


class FakeBackend(Backend):
    """Answers in the process, as `mood` says: "good" or a failure's kind; bills what it served.

    Asserts that it may be asked. before: called with the number of each request.
    """

    def __init__(
        self,
        name: str,
        latency: float = 1.0,
        remedies: dict[str, str] | None = None,
        **config: Any,
    ) -> None:
        super().__init__(BackendConfig(name, "fake", "m", **config), self)
        self.latency = latency
        self.remedies = remedies or {}
        self.mood = "good"
        self.retry_after_s: float | None = None
        self.before: Callable[[int], None] = lambda number: None
        self.asked = 0
        self.running = 0
        self.billed_usd = 0.0

    async def ask(self, number: int) -> Reply:
        now = asyncio.get_running_loop().time()
        self.before(number)
        assert self.state(now) == "healthy", f"{self.config.name} was asked: {self.state(now)}"
        self.asked += 1
        self.running += 1
        assert self.running <= self.config.concurrency
        try:
            mood = self.mood
            await asyncio.sleep({"timeout": 1e6, "refused": 0.0}.get(mood, self.latency))
            if mood in ("good", "copies"):
                reply = Reply(mood, number % 300, number % 200)
                self.billed_usd += self.config.usd_of(number % 300, number % 200)
                return reply
            retry_after_s = self.retry_after_s if mood == "rate limit" else None
            raise Failure(mood, "as told", retry_after_s, self.remedies.get(mood))
        finally:
            self.running -= 1


class FakeRequest:
    """A request that is a number, and whose answer is the name of the backend."""

    def __init__(self, number: int = 7) -> None:
        self.prompt_bytes = 400
        self.number = number

    def make(self, backend: Backend) -> int:
        return self.number

    def probe(self, backend: Backend) -> int:
        return 7

    def judge(self, backend: Backend, reply: Reply) -> str:
        if reply.text != "good":
            raise Failure(reply.text, "as told")
        return backend.config.name


def run(
    loop: FakeClockLoop,
    backends: list[FakeBackend],
    requests: int,
    spend_limit: SpendLimit | None = None,
) -> list[str]:
    """Who answered each of so many requests, made at once."""

    async def all_of_them() -> list[str]:
        router = Router(backends, spend_limit)
        calls: list[Awaitable[str]] = [router.call(FakeRequest(n)) for n in range(requests)]
        return await asyncio.gather(*calls)

    return loop.run_until_complete(all_of_them())
