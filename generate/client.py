"""The overlapped client: leases and LLM calls run ahead of the device, JPEGs and reports behind it, so that the device waits for neither.

    client = Client(job, prompter, items, definition, dataset_dir, describe, …)
    client.start()
    while (batch := client.next_batch(16)) is not None: …        # the loop is in generate_images.py
    client.leave()

One thread (`_feed`) holds at most two leases, asks the LLMs for the texts of their indices and queues what is to be drawn; the caller's
thread draws; a few threads check, encode and publish (publisher.py); one thread reports. Every queue is bounded: a slow device stops the
asking, a slow disk stops the device.

By Little's law a device that draws r prompts in the time of one LLM answer is kept busy by r calls in flight: r slots of the LLMs, and
leases of r prompts each, since while one lease is drawn the texts of the other must come.
"""

import collections
import threading
import time
from dataclasses import dataclass, field

import samples
from job_client import AllDone, Grant, Refused, ServerAway
from publisher import Publisher, disk_error

LEASES = 2  # one being drawn, one being asked for; the job server grants no third
ASK_AHEAD = 64  # prompts asked for or ready ahead of the device: at 2 s an answer, enough for one that draws 32 prompts a second
READY_BATCHES = 4  # at least so many batches of texts ready, where a prompt has few images
PATIENCE_S = 20.0  # so long a device waits for a full batch while texts are still being asked for
SUSPECT = 3  # bad images in a row (each drawn twice) after which indices fail at once: then it is hardly the texts
TICK_S = 0.2
KNOWN_GOOD = "a photo of a red ball on a white table"


@dataclass(eq=False)
class Index:
    """A leased index on its way."""

    number: int
    lease: str
    item: dict
    files: samples.IndexFiles
    turn: int  # of its lease: the older lease is drawn first, as only its end makes room for a new one
    record: dict | None = None  # its .prompts
    todo: set = field(default_factory=set)  # augmentations neither published nor failed
    failures: dict = field(default_factory=dict)  # augmentation -> (reason, error)
    over: bool = False  # reported, lost or given back: nothing more is drawn for it
    known_good: bool | None = None  # whether the known-good text could be drawn, where the server asked for that first


@dataclass(eq=False)
class Sample:
    index: Index
    aug: int | None  # None: the known-good text, drawn to tell a bad device from a bad prompt and not published
    attempt: int = 0

    @property
    def text(self):
        return KNOWN_GOOD if self.aug is None else self.index.record["texts"][self.aug]["text"]


class Client:
    """job: JobClient. prompter: Prompter or None. items: read_prompts(). describe(sample, image) -> metadata of an image.

    place: {"hostname", "gpu_name", "slurm_job_id"}. deadline: time.monotonic() at which the time limit comes, or None.
    After next_batch() has returned None: `.error` (an exception, or None), .stopped (reason word, or None)."""

    def __init__(
        self, job, prompter, items, definition, dataset_dir, describe, place,
        chunk_size=1, quality=95, max_leases=None, max_idle=None, deadline=None,
    ):  # fmt: skip
        self.job, self.prompter, self.items, self.definition, self.dataset_dir = job, prompter, items, definition, dataset_dir
        self.chunk_size, self.max_leases, self.max_idle, self.deadline = chunk_size, max_leases, max_idle, deadline
        self.changed = threading.Condition()
        self.leases = {}  # token -> set of Index
        self.unasked, self.asking, self.ready = collections.deque(), {}, collections.deque()
        self.leases_taken, self.next_try, self.dry, self.no_more = 0, 0.0, False, False
        self.feeding, self.give_back_for, self.signalled, self.stopped, self.error = False, None, None, None, None
        self.state, self.drawing, self.bad_in_a_row = "idle", [], 0
        self.last_line = self.busy_at = time.monotonic()
        self.first_batch, self.last_batch, self.draw_s, self.batches = None, None, 0.0, 0
        self.short = self.set_aside = 0
        self.publisher = Publisher(self, describe, place, quality)

    def start(self, batch_size):
        self.batch_size = batch_size
        self.publisher.start(bound=2 * batch_size)
        self.feeder = threading.Thread(target=self._feed, name="feed", daemon=True)
        self.feeder.start()

    # ---------------------------------------------------------------- the device's side

    def next_batch(self, size):
        """Up to `size` samples to draw: fewer only when no more can come soon. None when there is nothing left to do here."""
        waiting_since = time.monotonic()
        self.drawing = []
        while True:
            self._look_around()
            with self.changed:
                waiting = [sample for sample in self.ready if not sample.index.over]
                self.ready = collections.deque(sorted(waiting, key=lambda sample: sample.index.turn))
                waited = time.monotonic() - waiting_since
                pending = self.asking or self.unasked or self.feeding or (not self.dry and len(self.leases) < LEASES)
                if self.job.stopping.is_set() or (self.no_more and not self.leases):
                    return None
                if len(self.ready) >= size or (self.ready and (not pending or waited > PATIENCE_S)):
                    batch = [self.ready.popleft() for _ in range(min(size, len(self.ready)))]
                    self.changed.notify_all()
                    break
                self.state = "waiting_llm" if self.asking else "idle"
                self.changed.wait(TICK_S)
        self.drawing, self.state = sorted({sample.index.number for sample in batch}), "drawing"
        self.job.nudge()  # if this batch kills the process, the server knows whom to suspect
        self.first_batch = self.first_batch or time.monotonic()
        self.last_batch = self.last_batch or self.first_batch
        return batch

    def drew(self, seconds):
        """The device was busy with a batch for so long."""
        self.draw_s, self.batches, self.last_batch = self.draw_s + seconds, self.batches + 1, time.monotonic()

    def good(self, sample):
        """Whether the sample of an image that has passed its check is to be published."""
        self.bad_in_a_row = 0
        if sample.aug is None:
            sample.index.known_good = True
            self.unasked.append(sample.index)
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
        print(f"{samples.stem(index.number, 'known-good' if aug is None else aug)} failed ({reason}): {error}", flush=True)
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

    def stop(self, reason):
        """Take no new work; next_batch returns None from now on. reason: a reason word of /release."""
        self.stopped = self.stopped or reason
        self.job.stopping.set()

    def leave(self):
        """Publish what is drawn, report what is complete, give the rest back. Returns the number of indices given back."""
        self.state = "releasing"
        self.publisher.finish()
        self.job.stopping.set()
        self.feeder.join(15)
        with self.changed:
            for future in self.asking:
                future.cancel()
            left = {lease: indices for lease, indices in self.leases.items() if lease not in self.job.lost}
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
        return {"leases": list(self.leases), "state": self.state, "drawing": self.drawing, "images": self.publisher.images,
                "llm_use": self.prompter.use() if self.prompter else None}  # fmt: skip

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
            self.stop("llm" if self.asking else "released")
        if now - self.last_line > 60:
            self.last_line = now
            print(self.line(), flush=True)

    def line(self):
        """The progress line: images, rate, what waits, the share of the time in which the device was drawing."""
        images, drawing = self.publisher.images, self.last_batch - self.first_batch if self.first_batch else 0
        rate, busy = (images / drawing, self.draw_s / drawing) if drawing else (0, 0)
        done = f"{samples.utc_now()[11:19]} {images:,} images, {rate:.2f}/s, {self.publisher.completed:,} prompts done"
        waits = f"{len(self.ready)} texts ready, {len(self.asking)} prompts being asked, {self.publisher.queued()} images being published"
        return f"{done}; {waits}; device busy {busy:.2f}"

    # ---------------------------------------------------------------- leases and texts

    def _feed(self):
        try:
            while not self.job.stopping.is_set():
                self.feeding = True
                self._drop_lost()
                self._give_back()
                self._take_answers()
                while self.unasked and self._has_room():
                    self._ask(self.unasked.popleft())
                self.feeding = False
                self._lease()
                with self.changed:
                    self.changed.notify_all()
                    if not any(future.done() for future in self.asking):
                        self.changed.wait(TICK_S)
        except (ServerAway, Refused, OSError) as error:
            self.end(error)
        except Exception as error:  # a fault of this program, or AllOff: every backend is off for good
            self.end(error)
            if type(error).__name__ != "AllOff":
                raise

    def end(self, error):
        """No more work, because of an error; what is ready is still drawn if the server is only away."""
        with self.changed:
            self.error, self.no_more, self.dry = error, True, True
            self.job.server_timeout_s = 0  # the other threads need not wait as long again
            if not isinstance(error, ServerAway):
                self.stop("llm" if type(error).__name__ == "AllOff" else "disk" if isinstance(error, OSError) else "released")
            else:
                self._give_up_unready()
            self.changed.notify_all()

    def _give_up_unready(self):
        """With the server away for good: what has no texts yet will be done by others; the leases end with what is ready."""
        for index in [*self.unasked, *self.asking.values()]:
            self.forget(index)
        self.unasked.clear()
        self.asking.clear()

    def _has_room(self):
        """Whether to ask for another prompt: what is being asked for counts as much as what is ready, or the asking would pause until
        little is ready, and the device then wait for an answer's latency."""
        n = self.definition["images_per_prompt"]
        return len(self.asking) * n + len(self.ready) < max(ASK_AHEAD * n, READY_BATCHES * self.batch_size)

    def _lease(self):
        """Take another lease when all indices of the last one are being asked for."""
        now = time.monotonic()
        if self.unasked or len(self.leases) >= LEASES or self.no_more or now < self.next_try:
            return
        if self.max_leases is not None and self.leases_taken >= self.max_leases:
            self.no_more = self.dry = True
            return
        answer = self.job.get_indices(self.chunk_size, self.prompter.limits() if self.prompter else None)
        if isinstance(answer, AllDone):
            self.no_more = self.dry = True
        elif not isinstance(answer, Grant):
            self.dry, self.next_try = True, now + answer.retry_after_s
            if "quarantine" in answer.reason:
                print(f"{answer.reason}; asking again in {answer.retry_after_s:.0f} s", flush=True)
        else:
            self._take(answer)

    def _take(self, grant):
        """Look at what the folder holds of the granted indices, by one listing for each sub-folder; queue them for asking."""
        self.leases_taken, self.dry = self.leases_taken + 1, False
        folders = {number // samples.FOLDER for number in grant.indices}
        found = {}
        try:
            for folder in folders:
                found |= samples.scan_folder(self.dataset_dir, folder, only=set(grant.indices))
            for number, files in found.items():
                samples.remove_drafts(self.dataset_dir, number, grant.lease, files.drafts)
        except OSError as error:
            print(f"lease {grant.lease} is given back: {disk_error(error)}", flush=True)
            self.next_try = time.monotonic() + self.publisher.disk_pause()
            self.job.release(grant.lease, "disk")
            return
        indices = [Index(n, grant.lease, self.items[n], found.get(n, samples.IndexFiles()), self.leases_taken) for n in grant.indices]
        with self.changed:
            self.leases[grant.lease] = set(indices)
        if grant.known_good:
            with self.changed:
                self.ready.extend(Sample(index, None) for index in indices)
        else:
            self.unasked.extend(indices)

    def _ask(self, index):
        """Find the texts of an index: those published, those in the prompts file, or an LLM's."""
        if index.over:
            return
        wanted, prompt = self.definition["images_per_prompt"], index.item["prompt"]
        stands = samples.read_texts(self.dataset_dir, index.number) if index.files.texts is not None else None
        if stands and samples.wanted(stands) >= wanted:
            return self._queue(index, stands["texts"], stands["short"])
        texts = stands["texts"] if stands else [{"text": prompt, "llm_model_name": None, "backend": None}]
        missing = wanted - len(texts)
        if "variations" in index.item and missing:
            given = index.item["variations"][len(texts) - 1 : wanted - 1]
            more = [{"text": text, "llm_model_name": None, "backend": "prompts file"} for text in given]
            short = {"missing": missing - len(more), "reason": "the prompts file holds fewer variations"} if len(more) < missing else None
            self._queue(index, texts + more, short)
        elif missing:
            future = self.prompter.submit(prompt, missing, [text["text"] for text in texts[1:]])
            self.asking[future] = index
            future.add_done_callback(self._wake)
        else:
            self._queue(index, texts, None)

    def _wake(self, _):
        with self.changed:
            self.changed.notify_all()

    def _take_answers(self):
        for future in [future for future in self.asking if future.done()]:
            index = self.asking.pop(future)
            if future.cancelled() or index.over:
                continue
            answer = future.result()  # raises AllOff
            stands = samples.read_texts(self.dataset_dir, index.number) if index.files.texts is not None else None
            texts = stands["texts"] if stands else [{"text": index.item["prompt"], "llm_model_name": None, "backend": None}]
            self._queue(index, texts + answer.texts, answer.short)
        if self.prompter:
            self.prompter.set_share(self.job.llm_share)

    def _queue(self, index, texts, short):
        """Publish the texts of an index, if none stand, and queue its samples that are not published yet."""
        record = {"prompt_index": index.number, "original_prompt": index.item["prompt"], "source": index.item["source"],
                  "texts": texts, "short": short}  # fmt: skip
        try:
            index.record = record = samples.publish_texts(self.dataset_dir, record, index.lease)
            index.todo = {aug for aug in range(len(record["texts"])) if self._is_missing(index, aug)}
        except OSError as error:
            return self.fail(index, 0, "disk", disk_error(error), at_once=True)
        with self.changed:
            self.short += (record["short"] or {}).get("missing", 0)
            self.ready.extend(Sample(index, aug) for aug in sorted(index.todo))
            self.settle(index)

    def _is_missing(self, index, aug):
        """Whether a sample is to be drawn. What an earlier holder has left half-published is completed, what is broken is taken away."""
        image, its_json = aug in index.files.images, aug in index.files.jsons
        if (image and its_json) or (aug in index.files.failed and not image):
            return False
        if image and samples.roll_forward(self.dataset_dir, index.number, aug, index.lease):
            return False
        if image or its_json:
            print(f"{samples.stem(index.number, aug)}: {'the image is broken' if image else 'its image is gone'}; drawn again", flush=True)
            samples.remove_sample(self.dataset_dir, index.number, aug)
        return True

    def _drop_lost(self):
        for lease in [lease for lease in self.leases if lease in self.job.lost]:
            print(f"lease {lease} is no longer ours: nothing more is drawn for it; what is published stays", flush=True)
            for index in list(self.leases[lease]):
                self.forget(index)

    def forget(self, index):
        """Done with an index, one way or another; a lease without indices is over."""
        with self.changed:
            index.over = True
            indices = self.leases.get(index.lease, set())
            indices.discard(index)
            if not indices:
                self.leases.pop(index.lease, None)
            self.changed.notify_all()

    def give_back(self, reason):
        """Release all leases soon: after a failing disk, or in quarantine."""
        self.give_back_for = reason

    def _give_back(self):
        if self.give_back_for is None:
            return
        reason, self.give_back_for = self.give_back_for, None
        leases = [lease for lease in self.leases if lease not in self.job.lost]
        for index in [index for held in list(self.leases.values()) for index in list(held)]:
            self.forget(index)
        self.unasked.clear()
        for lease in leases:
            self.job.release(lease, reason)
