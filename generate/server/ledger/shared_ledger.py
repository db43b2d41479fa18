"""The ledger under its lock, for the server's many threads.

    shared = SharedLedger(ledger)
    done = shared.read(Ledger.retry_failed, "HPDv2", [3])  # function(ledger, …)
    left = shared.run(Ledger.peek, "HPDv2")                # function(ledger, now, …)
    grant = shared.commit(Ledger.lease, WorkRequest(…))    # the same, with a shared commit

now: seconds of time.monotonic(), the ledger's only clock.
"""

import collections
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from generate.server.ledger.ledger import Ledger

P = ParamSpec("P")
T = TypeVar("T")


class PendingWrite(Generic[T]):
    """A change that waits for the ledger, and what became of it."""

    def __init__(self, function: Callable[[Ledger, float], T]) -> None:
        self.function = function
        self.result: T | None = None
        self.error: Exception | None = None
        self.ended = False


class SharedLedger:
    """A ledger and its lock; every method may be called by any thread."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.RLock()  # the status document asks again while it holds it
        self.ledger = ledger
        self._pending: collections.deque[PendingWrite[Any]] = collections.deque()

    def read(
        self, function: Callable[Concatenate[Ledger, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """function(ledger, …) under the lock."""
        with self.lock:
            return function(self.ledger, *args, **kwargs)

    def run(
        self,
        function: Callable[Concatenate[Ledger, float, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """function(ledger, now, …) under the lock, for what needs no commit or brings its own."""
        with self.lock:
            return function(self.ledger, self.clock(), *args, **kwargs)

    def commit(
        self,
        function: Callable[Concatenate[Ledger, float, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """run() for what must be durable before it is answered.

        Those who wait together share one commit, since its fsyncs take longer than all the rest.
        """
        write = PendingWrite(lambda ledger, now: function(ledger, now, *args, **kwargs))
        self._pending.append(write)
        with self.lock:
            if not write.ended:
                self._commit([self._pending.popleft() for _ in range(len(self._pending))])
        if write.error:
            raise write.error
        return write.result  # type: ignore[return-value]

    def _commit(self, writes: list[PendingWrite[Any]]) -> None:
        now = self.clock()
        try:
            with self.ledger.transaction(now) if len(writes) > 1 else contextlib.nullcontext():
                for write in writes:
                    write.result = write.function(self.ledger, now)
        except Exception:  # all were undone: each by itself, and only the one at fault fails
            for write in writes:
                try:
                    write.result = write.function(self.ledger, now)
                except Exception as error:
                    write.error = error
        for write in writes:
            write.ended = True
