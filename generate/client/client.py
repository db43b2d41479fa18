"""The overlapped client: leases and LLM calls run ahead of the device, JPEGs and reports behind it, so that the device waits for neither.

    client = Client(job, prompter, items, definition, dataset_dir, describe, …)
    client.start()
    while (batch := client.next_batch(16)) is not None: …        # the loop is in generate_images.py
    client.leave()

One thread holds at most two leases, asks the LLMs for the texts of their indices and queues what is to be drawn (feeder.py); the caller's
thread draws; a few threads check, encode and publish, one reports (publisher.py). Every queue is bounded: a slow device stops the asking,
a slow disk stops the device.
"""

import collections
import threading
import time

from generate.client.feeder import TICK_S, Feeder, Sample
from generate.client.publisher import Publisher
from generate.dataset import samples
from generate.dataset.layout import stem
from generate.protocol.connection import Refused, ServerAway

PATIENCE_S = 20.0  # so long a device waits for a full batch while texts are still being asked for
SUSPECT = 3  # bad images in a row (each drawn twice) after which indices fail at once: then it is hardly the texts


class Client:
    """job: JobClient. prompter: Prompter or None. items: read_prompts(). describe(sample, image) -> metadata of an image.

    place: {"hostname", "gpu_name", "slurm_job_id"}. deadline: time.monotonic() at which the time limit comes, or None.
    After next_batch() has returned None: `.error` (an exception, or None), .stopped (reason word, or None)."""

    def __init__(
        self,
        job,
        prompter,
        items,
        definition,
        dataset_dir,
        describe,
        place,
        chunk_size=1,
        quality=95,
        max_leases=None,
        max_idle=None,
        deadline=None,
    ):
        self.job, self.prompter, self.definition, self.dataset_dir = (
            job,
            prompter,
            definition,
            dataset_dir,
        )
        self.max_idle, self.deadline = max_idle, deadline
        self.changed = threading.Condition()
        self.leases, self.ready = {}, collections.deque()  # token -> set of Index; Sample …
        self.signalled, self.stopped, self.error = None, None, None
        self.state, self.drawing, self.bad_in_a_row = "idle", [], 0
        self.last_line = self.busy_at = time.monotonic()
        self.first_batch, self.last_batch, self.draw_s, self.batches = None, None, 0.0, 0
        self.short = self.set_aside = 0
        self.feeder = Feeder(self, prompter, items, chunk_size, max_leases)
        self.publisher = Publisher(self, describe, place, quality)

    def start(self, batch_size):
        self.batch_size = batch_size
        self.publisher.start(bound=2 * batch_size)
        self.feeder.start()

    def next_batch(self, size):
        """Up to `size` samples to draw: fewer only when no more can come soon. None when there is nothing left to do here."""
        waiting_since = time.monotonic()
        self.drawing = []
        while True:
            self._look_around()
            with self.changed:
                waiting = [sample for sample in self.ready if not sample.index.over]
                self.ready = collections.deque(
                    sorted(waiting, key=lambda sample: sample.index.turn)
                )
                waited = time.monotonic() - waiting_since
                if self.job.stopping.is_set() or (self.feeder.no_more and not self.leases):
                    return None
                if len(self.ready) >= size or (
                    self.ready and (waited > PATIENCE_S or not self.feeder.more_can_come())
                ):
                    batch = [self.ready.popleft() for _ in range(min(size, len(self.ready)))]
                    self.changed.notify_all()
                    break
                self.state = "waiting_llm" if self.feeder.asking else "idle"
                self.changed.wait(TICK_S)
        self.drawing, self.state = sorted({sample.index.number for sample in batch}), "drawing"
        self.job.nudge()  # if this batch kills the process, the server knows whom to suspect
        self.first_batch = self.first_batch or time.monotonic()
        self.last_batch = self.last_batch or self.first_batch
        return batch

    def drew(self, seconds):
        """The device was busy with a batch for so long."""
        self.draw_s, self.batches, self.last_batch = (
            self.draw_s + seconds,
            self.batches + 1,
            time.monotonic(),
        )

    def good(self, sample):
        """Whether the sample of an image that has passed its check is to be published."""
        self.bad_in_a_row = 0
        if sample.aug is None:
            sample.index.known_good = True
            self.feeder.unasked.append(sample.index)
        return sample.aug is not None

    def bad(self, sample, reason, error, again=True):
        """An image that failed: drawn once more with the next seed, then the sample fails."""
        with self.changed:
            if again and sample.attempt == 0:
                self.ready.appendleft(Sample(sample.index, sample.aug, attempt=1))
                return
            self.bad_in_a_row += 1
            if sample.aug is None:
                sample.index.known_good, reason = False, "gpu"
            at_once = sample.aug is None or self.bad_in_a_row >= SUSPECT
            self.fail(sample.index, sample.aug, reason, error, at_once)

    def fail(self, index, aug, reason, error, at_once=False):
        """A sample failed for good. Its index is reported when its other samples are through, or at once (a suspect device, a disk)."""
        print(
            f"{stem(index.number, 'known-good' if aug is None else aug)} failed ({reason}): {error}",
            flush=True,
        )
        with self.changed:
            index.todo.discard(aug)
            index.failures[aug] = (reason, error)
            self.settle(index, at_once)

    def settle(self, index, at_once=False):
        """Report an index once nothing of it is left to do."""
        with self.changed:
            if not index.over and (at_once or not index.todo):
                index.over = True
                self.publisher.report(index)
            self.changed.notify_all()

    def forget(self, index):
        """Done with an index, one way or another; a lease without indices is over."""
        with self.changed:
            index.over = True
            indices = self.leases.get(index.lease, set())
            indices.discard(index)
            if not indices:
                self.leases.pop(index.lease, None)
            self.changed.notify_all()

    def stop(self, reason):
        """Take no new work; next_batch returns None from now on. reason: a reason word of /release."""
        self.stopped = self.stopped or reason
        self.job.stopping.set()

    def end(self, error):
        """No more work, because of an error; what is ready is still drawn if the server is only away."""
        with self.changed:
            self.error = error
            self.feeder.no_more_leases()
            self.job.server_timeout_s = 0  # the other threads need not wait as long again
            if not isinstance(error, ServerAway):
                self.stop(
                    "llm"
                    if type(error).__name__ == "NoBackendLeft"
                    else "disk"
                    if isinstance(error, OSError)
                    else "released"
                )
            else:
                self.feeder.give_up_unready()
            self.changed.notify_all()

    def leave(self):
        """Publish what is drawn, report what is complete, give the rest back. Returns the number of indices given back."""
        self.state = "releasing"
        self.publisher.finish()
        self.job.stopping.set()
        self.feeder.finish()
        with self.changed:
            left = {
                lease: indices
                for lease, indices in self.leases.items()
                if lease not in self.job.lost
            }
        for lease in left:
            try:
                self.job.release(lease, self.stopped or "released")
            except (ServerAway, Refused) as error:
                print(f"lease {lease} was not given back ({error}); it ends by itself", flush=True)
        self.leases = {}
        if self.prompter:
            self.prompter.close()
        self.job.stop_beating()
        try:
            self.job.beat(self.report())
        except (ServerAway, Refused):
            pass  # only the final figures; what matters was reported or ends by itself
        return sum(len(indices) for indices in left.values())

    def report(self):
        """What a beat says."""
        return {
            "leases": list(self.leases),
            "state": self.state,
            "drawing": self.drawing,
            "images": self.publisher.images,
            "llm_use": self.prompter.use() if self.prompter else None,
        }

    def _look_around(self):
        """Between two batches: signals, the time limit, idleness; a line in the log every minute."""
        now = time.monotonic()
        if self.signalled:
            self.stop(self.signalled)
        if self.deadline and now > self.deadline - 30 - 2 * self.draw_s / max(1, self.batches):
            self.stop("walltime")
        if self.ready or self.publisher.queued():
            self.busy_at = now
        if self.max_idle and now - self.busy_at > self.max_idle:
            print(f"idle for {self.max_idle:.0f} s (--max_idle)", flush=True)
            self.stop("llm" if self.feeder.asking else "released")
        if now - self.last_line > 60:
            self.last_line = now
            print(self.line(), flush=True)

    def line(self):
        """The progress line: images, rate, what waits, the share of the time in which the device was drawing."""
        images, drawing = (
            self.publisher.images,
            self.last_batch - self.first_batch if self.first_batch else 0,
        )
        rate, busy = (images / drawing, self.draw_s / drawing) if drawing else (0, 0)
        done = f"{samples.utc_now()[11:19]} {images:,} images, {rate:.2f}/s, {self.publisher.completed:,} prompts done"
        waits = f"{len(self.ready)} texts ready, {len(self.feeder.asking)} prompts being asked, {self.publisher.queued()} images being published"
        return f"{done}; {waits}; device busy {busy:.2f}"
