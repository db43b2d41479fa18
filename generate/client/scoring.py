"""The scoring thread: scores images batch by batch while others are generated.

    scoring = Scoring(judge, InOrder(dataset_dir, work.changed), verdicts)
    scoring.start()
    scoring.put(Candidate(sample, jpeg, metadata, pixels))     # later: accepted(…) or rejected(…)
    scoring.waiting         # candidates not judged yet, but for order.blocked (--scores dhash)

What has come while a batch was scored is the next batch. All that it rejects is rejected at once,
so that the device gets it as one batch, too.
"""

import collections
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from common.command_line import UserError
from common.scores.interface import DHASH, Values
from generate.client.candidate import Candidate
from generate.client.in_order import InOrder, Waiting
from generate.client.judge import Judge

LARGEST_BATCH = 64
log = logging.getLogger(__name__)
Judged = Callable[[Candidate, Values], None]


@dataclass(frozen=True)
class Verdicts:
    """What is called with each candidate, once.

    unjudged: its prompt is over (None), the disk fails (OSError), or a score fails: then nothing is
    scored any more.
    """

    accepted: Judged
    rejected: Judged
    unjudged: Callable[[Candidate, Exception | None], None]


class Scoring:
    """See the module."""

    def __init__(self, judge: Judge, order: InOrder, verdicts: Verdicts) -> None:
        self.judge = judge
        self.order = order
        self.changed = order.changed
        self.verdicts = verdicts
        self.error: Exception | None = None
        self._fresh: collections.deque[Candidate] = collections.deque()
        self._judging = 0
        self._thread = threading.Thread(target=self._run, name="score", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, candidate: Candidate) -> None:
        with self.changed:
            self._fresh.append(candidate)
            self.changed.notify_all()

    @property
    def waiting(self) -> int:
        with self.changed:
            return len(self._fresh) + self._judging + self.order.ready

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._fresh or self.order.ready)
                batch = [self._fresh.popleft() for _ in range(min(LARGEST_BATCH, len(self._fresh)))]
                compared = self.order.take()
                self._judging = len(batch) + len(compared)
            try:
                for waiting in compared:
                    self._guarded(self._compare, waiting, candidate=waiting.candidate)
                if batch:
                    self._judge(batch)
            finally:
                self._judging = 0

    def _judge(self, batch: list[Candidate]) -> None:
        if self.error is None:
            try:
                pixels = [candidate.pixels for candidate in batch]
                texts = [candidate.sample.text for candidate in batch]
                values = self.judge.score(pixels, texts)
            except Exception as error:  # a UserError, or a fault of this program: the client ends
                self.error = error
            except BaseException as error:  # no Ctrl-C reaches a thread: a class has raised it
                self.error = UserError(f"a score failed: {type(error).__name__}")
        if self.error is not None:
            for candidate in batch:
                self.verdicts.unjudged(candidate, self.error)
            return
        for candidate, found in zip(batch, values, strict=True):
            self._guarded(self._sort, candidate, found, candidate=candidate)

    def _guarded(self, step: Callable[..., None], *args: object, candidate: Candidate) -> None:
        """A fault of this program ends the client; without its thread it would wait for ever."""
        try:
            step(*args)
        except Exception as error:
            log.exception("scoring has failed")
            self.error = error
            self.verdicts.unjudged(candidate, error)

    def _sort(self, candidate: Candidate, found: Values) -> None:
        if self.judge.awaits_others(found):
            self.order.put(candidate, found)
        else:
            self._tell(candidate, found)

    def _compare(self, waiting: Waiting) -> None:
        if waiting.index.over:
            self.verdicts.unjudged(waiting.candidate, None)
            return
        try:
            dhash = self.order.dhash(waiting)
        except OSError as error:
            self.verdicts.unjudged(waiting.candidate, error)
            return
        if not waiting.in_turn and self.judge.awaits_others(waiting.values, dhash):
            self.order.put_back(waiting)
        else:
            self._tell(waiting.candidate, waiting.values | {DHASH: dhash})

    def _tell(self, candidate: Candidate, values: Values) -> None:
        accepted = self.judge.accepts(values)
        (self.verdicts.accepted if accepted else self.verdicts.rejected)(candidate, values)
