"""The client: leases and LLM calls run ahead of the device, JPEGs and reports behind it.

    client = Client(job, prompter, items, describe, place, settings)
    client.start(batch_size=16)
    while (batch := client.next_batch(generator.batch_size_of)) is not None: …   # generation.py
    client.leave()

The feeder holds at most two leases, asks the LLMs for captions and queues what is to be generated;
the caller's thread generates; the publisher checks, encodes, publishes and reports. They share one
Work and do not know each other. Every queue is bounded: a slow device stops the asking, a slow disk
stops the device.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from generate.client.feeder import READY_BATCHES, TICK_S, Feeder
from generate.client.job_client import JobClient
from generate.client.publisher import Describe, Publisher
from generate.client.work import ClientSettings, Sample, Work
from generate.dataset.prompts_file import Item
from generate.dataset.samples import Place
from generate.llms.prompter import Prompter
from generate.pipelines.image import Image
from generate.pipelines.image_generator import Interrupted
from generate.pipelines.pipeline import Recipe
from generate.protocol.answers import Json
from generate.protocol.connection import Refused, ServerAway

log = logging.getLogger(__name__)

# How long a device waits for a full batch while captions are still being asked for.
PATIENCE_S = 20.0
LINE_EVERY_S = 60
# Kept free before the time limit, for what may go wrong, beside two batches.
MARGIN_S = 30
WORTH_WAITING_S = 5.0  # after SIGTERM


class Client:
    """After next_batch() has returned None: .work.error (or None) and .work.stop_reason (or None).

    prompter: None when no LLM is to be asked. describe(sample, image): the metadata of an image.
    """

    def __init__(
        self,
        job: JobClient,
        prompter: Prompter | None,
        items: Sequence[Item],
        describe: Describe,
        place: Place,
        settings: ClientSettings,
    ) -> None:
        self.job = job
        self.prompter = prompter
        self.settings = settings
        self.work = Work(job.stopping, settings.recipes)
        self.feeder = Feeder(self.work, job, prompter, items, settings)
        self.publisher = Publisher(self.work, job, describe, place, settings)
        self.device = DeviceTime()
        self.state = "idle"
        self.generating: list[int] = []  # indices of the batch on the device
        self.signalled: str | None = None
        self.last_line = time.monotonic()
        self.busy_at = self.last_line

    def start(self, batch_size: int) -> None:
        self.publisher.start(bound=2 * batch_size)
        self.feeder.start(batch_size)

    def signal(self, reason: str) -> None:
        """Leave in order, for a signal; reason: a reason word of /release.

        Sets one attribute only: a handler that took a lock could wait for the very thread that it
        interrupts.
        """
        self.signalled = reason

    # ------------------------------------------------------------ batches

    def next_batch(self, size_of: Callable[[Recipe], int]) -> list[Sample] | None:
        """Samples of recipes that are alike; None: nothing is left.

        size_of(recipe): how many; there are fewer only when no more can come soon.
        """
        waiting_since = time.monotonic()
        self.generating = []
        while True:
            self._look_around()
            with self.work.changed:
                if self._is_over():
                    return None
                if batch := self._batch(size_of, time.monotonic() - waiting_since):
                    break
                self.state = "waiting_llm" if self.feeder.captioner.asking else "idle"
                self.work.changed.wait(TICK_S)
        self.generating = sorted({sample.index.number for sample in batch})
        self.state = "drawing"
        self.job.nudge()  # if this batch kills the process, the server knows whom to suspect
        self.device.batch_begins()
        return batch

    def _is_over(self) -> bool:
        finished = self.work.no_more_leases and not self.work.leases
        return self.job.stopping.is_set() or finished

    def _batch(self, size_of: Callable[[Recipe], int], waited_s: float) -> list[Sample]:
        """The oldest full batch, else the fullest if none can become full soon; or none yet."""
        alike = self.work.ready_alike()
        if not alike:
            return []
        sizes = [size_of(samples[0].recipe) for samples in alike]
        for samples, size in zip(alike, sizes, strict=True):
            if len(samples) >= size:
                return self.work.take(samples[:size])
        # so many are ready, each of another kind, that the feeder waits for the device
        stuck = sum(map(len, alike)) >= READY_BATCHES * max(sizes)
        more = self.feeder.more_can_come() or self.publisher.judging()
        if stuck or waited_s > PATIENCE_S or not more:
            return self.work.take(max(alike, key=len))
        return []

    def put(self, sample: Sample, image: Image) -> None:
        """Check, publish and report an image; waits while too many are on their way."""
        self.publisher.put(sample, image)

    def stepped(self) -> None:
        """The device has done a step of a batch. Raises Interrupted to give the batch up.

        After SIGTERM: SLURM sends SIGKILL 30 s later by default, and finished images must be
        published before. A batch that ends soon is not given up.
        """
        self.device.steps += 1
        if self.signalled == "preempted" and self.device.left_s() > WORTH_WAITING_S:
            raise Interrupted

    def batch_took(self, seconds: float, recompiles: int = 0) -> None:
        """The device was busy with a batch for so long; recompiles: since the warm-up, in all."""
        self.device.batch_took(seconds)
        self.device.recompiles = recompiles

    def _look_around(self) -> None:
        """Between two batches: signals, the time limit, idleness, a line in the log."""
        now = time.monotonic()
        if self.signalled:
            self.work.stop(self.signalled)
        deadline = self.settings.deadline
        if deadline and now > deadline - MARGIN_S - 2 * self.device.mean_s():
            self.work.stop("walltime")
        if self.work.ready or self.publisher.queued:
            self.busy_at = now
        max_idle_s = self.settings.max_idle_s
        if max_idle_s and now - self.busy_at > max_idle_s:
            log.info("idle for %.0f s (--max_idle)", max_idle_s)
            self.work.stop("llm" if self.feeder.captioner.asking else "released")
        if now - self.last_line > LINE_EVERY_S:
            self.last_line = now
            log.info(self.line())

    # ------------------------------------------------------------ the end

    def leave(self) -> int:
        """Publish what is generated, report what is complete, release the rest.

        Returns the number of indices released.
        """
        self.state = "releasing"
        self.publisher.finish()
        self.job.stopping.set()
        self.feeder.finish()
        left = self.work.forget_all()
        released = {lease: n for lease, n in left.items() if lease not in self.job.lost}
        for lease in released:
            try:
                self.job.release(lease, self.work.stop_reason or "released")
            except (ServerAway, Refused) as error:
                log.warning("lease %s was not released (%s); it ends by itself", lease, error)
        if self.prompter:
            self.prompter.close()
        self.job.stop_heartbeats()
        # Only the final figures are lost; the rest was reported, or its lease expires.
        with contextlib.suppress(ServerAway, Refused):
            self.job.heartbeat(self.report())
        return sum(released.values())

    def report(self) -> Json:
        """What a heartbeat says."""
        with self.work.changed:
            leases = list(self.work.leases)
        return {
            "leases": leases,
            "state": self.state,
            "drawing": self.generating,
            "images": self.work.images,
            "rejected": self.work.images_rejected,
            "rejected_lately": self.publisher.rejected.told,
            "steps": self.device.steps,
            "llm_use": self.prompter.use() if self.prompter else None,
        }

    def line(self) -> str:
        """Progress: images, rate, what waits, the share of the time the device was busy."""
        span_s = self.device.span_s()
        rate = self.work.images / span_s if span_s else 0
        busy = self.device.busy_s / span_s if span_s else 0
        work = self.work
        done = f"{work.images:,} images, {rate:.2f}/s, {self.publisher.completed:,} prompts done"
        waits = (
            f"{len(work.ready)} captions ready, {len(self.feeder.captioner.asking)} prompts being "
            f"asked, {self.publisher.queued} images being published"
        )
        judged = work.images + work.images_rejected
        if self.settings.judge and judged:
            share = f"{work.images / judged:.0%} of {judged:,} images accepted"
            done += f"; {share}, {work.missing_images:,} captions given up"
        compiled = f", {n} recompiles" if (n := self.device.recompiles) else ""
        return f"{done}; {waits}; device busy {busy:.2f}{compiled}"


class DeviceTime:
    """How long the device has been busy since its first batch began."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.began = 0.0  # the batch that is on the device
        self.steps = 0
        self.busy_s = 0.0
        self.batches = 0
        self.recompiles = 0

    def batch_begins(self) -> None:
        self.began = time.monotonic()
        if self.first is None:
            self.first = self.began

    def batch_took(self, seconds: float) -> None:
        self.busy_s += seconds
        self.batches += 1

    def span_s(self) -> float:
        return time.monotonic() - self.first if self.first is not None else 0.0

    def left_s(self) -> float:
        """Seconds that the batch on the device may still take; inf: there was none before it."""
        if not self.batches:
            return float("inf")
        return self.mean_s() - (time.monotonic() - self.began)

    def mean_s(self) -> float:
        """Seconds a batch."""
        return self.busy_s / max(1, self.batches)
