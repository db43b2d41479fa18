"""The scoring thread: scores images batch by batch while others are generated.

    scoring = Scoring(judge, accepted, rejected, broken)
    scoring.start()
    scoring.put(Candidate(sample, jpeg, metadata, pixels))     # later: accepted(…) or rejected(…)
    scoring.waiting                                     # candidates not judged yet

What has come while a batch was scored is the next batch. All that it rejects is rejected at once,
so that the device gets it as one batch, too.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.scores.interface import Values
from generate.client.judge import Judge
from generate.client.work import Sample
from generate.dataset.samples import Metadata

log = logging.getLogger(__name__)

LARGEST_BATCH = 64


@dataclass(frozen=True, eq=False)
class Candidate:
    """An image that is whole and may be published.

    jpeg: as it will be published, but for its comment; metadata: what its JSON will say; pixels:
    what the JPEG shows.
    """

    sample: Sample
    jpeg: bytes
    metadata: Metadata
    pixels: Any


Judged = Callable[[Candidate, Values], None]


class Scoring:
    """broken(candidates, error): a score failed; nothing is judged any more."""

    def __init__(
        self,
        judge: Judge,
        accepted: Judged,
        rejected: Judged,
        broken: Callable[[list[Candidate], Exception], None],
    ) -> None:
        self.judge = judge
        self.accepted = accepted
        self.rejected = rejected
        self.broken = broken
        self.waiting = 0
        self.error: Exception | None = None
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Candidate] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="score", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, candidate: Candidate) -> None:
        with self._lock:
            self.waiting += 1
        self._queue.put(candidate)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty() and len(batch) < LARGEST_BATCH:
                batch.append(self._queue.get())
            try:
                self._judge(batch)
            finally:
                with self._lock:
                    self.waiting -= len(batch)

    def _judge(self, batch: list[Candidate]) -> None:
        if self.error is None:
            try:
                pixels = [candidate.pixels for candidate in batch]
                texts = [candidate.sample.text for candidate in batch]
                values = self.judge.score(pixels, texts)
            except Exception as error:  # a UserError, or a fault of this program: the client ends
                self.error = error
        if self.error is not None:
            self.broken(batch, self.error)
            return
        for candidate, found in zip(batch, values, strict=True):
            judged = self.accepted if self.judge.accepts(found) else self.rejected
            judged(candidate, found)
