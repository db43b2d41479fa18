"""In front of the device: one thread that leases prompt indices, asks the LLMs for their texts and queues the samples to be drawn.

    feeder = Feeder(client, prompter, items, chunk_size=1, max_leases=None); feeder.start()
    feeder.more_can_come()          # or is what the client has ready all that there will be for now?
    feeder.give_back("disk")        # release all leases soon, without stopping
    feeder.finish()

By Little's law a device that draws r prompts in the time of one LLM answer is kept busy by r calls in flight: r slots of the LLMs, and
leases of r prompts each, since while one lease is drawn the texts of the other must come.
"""

import collections
import threading
import time
from dataclasses import dataclass, field

from generate.client.job_client import AllDone, Grant
from generate.client.publisher import disk_error
from generate.dataset import samples
from generate.dataset.captions import images_wanted, publish_captions, read_captions
from generate.dataset.layout import FOLDER, stem
from generate.dataset.scan import IndexFiles, scan_folder
from generate.protocol.connection import Refused, ServerAway

LEASES = 2  # one being drawn, one being asked for; the job server grants no third
ASK_AHEAD = 64  # prompts asked for or ready ahead of the device: at 2 s an answer, enough for one that draws 32 prompts a second
READY_BATCHES = 4  # at least so many batches of texts ready, where a prompt has few images
TICK_S = 0.2
KNOWN_GOOD = "a photo of a red ball on a white table"


@dataclass(eq=False)
class Index:
    """A leased index on its way."""

    number: int
    lease: str
    item: dict
    files: IndexFiles
    turn: int  # of its lease: the older lease is drawn first, as only its end makes room for a new one
    record: dict | None = None  # its .prompts
    todo: set = field(default_factory=set)  # augmentations neither published nor failed
    failures: dict = field(default_factory=dict)  # augmentation -> (reason, error)
    over: bool = False  # reported, lost or given back: nothing more is drawn for it
    known_good: bool | None = (
        None  # whether the known-good text could be drawn, where the server asked for that first
    )


@dataclass(eq=False)
class Sample:
    index: Index
    aug: (
        int | None
    )  # None: the known-good text, drawn to tell a bad device from a bad prompt and not published
    attempt: int = 0

    @property
    def text(self):
        return KNOWN_GOOD if self.aug is None else self.index.record["texts"][self.aug]["text"]


class Feeder:
    """client: Client, whose `leases` and `ready` it fills. prompter: Prompter or None. items: read_prompts()."""

    def __init__(self, client, prompter, items, chunk_size, max_leases):
        self.client, self.job, self.dataset_dir, self.changed = (
            client,
            client.job,
            client.dataset_dir,
            client.changed,
        )
        self.prompter, self.items, self.chunk_size, self.max_leases = (
            prompter,
            items,
            chunk_size,
            max_leases,
        )
        self.unasked, self.asking = collections.deque(), {}  # Index …; future -> Index
        (
            self.leases_taken,
            self.next_try,
            self.dry,
            self.no_more,
            self.feeding,
            self.give_back_for,
        ) = 0, 0.0, False, False, False, None

    def start(self):
        self.thread = threading.Thread(target=self._feed, name="feed", daemon=True)
        self.thread.start()

    def more_can_come(self):
        """Whether texts may be ready soon that are not ready now."""
        return bool(
            self.asking
            or self.unasked
            or self.feeding
            or (not self.dry and len(self.client.leases) < LEASES)
        )

    def no_more_leases(self):
        self.no_more = self.dry = True

    def give_up_unready(self):
        """With the server away for good: what has no texts yet will be done by others; the leases end with what is ready."""
        for index in [*self.unasked, *self.asking.values()]:
            self.client.forget(index)
        self.unasked.clear()
        self.asking.clear()

    def give_back(self, reason):
        """Release all leases soon: after a failing disk, or in quarantine."""
        self.give_back_for = reason

    def finish(self):
        """After `stopping` is set: wait for the thread, and ask for nothing more."""
        self.thread.join(15)
        with self.changed:
            for future in self.asking:
                future.cancel()

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
            self.client.end(error)
        except (
            Exception
        ) as error:  # a fault of this program, or NoBackendLeft: every backend is off for good
            self.client.end(error)
            if type(error).__name__ != "NoBackendLeft":
                raise

    def _has_room(self):
        """Whether to ask for another prompt: what is being asked for counts as much as what is ready, or the asking would pause until
        little is ready, and the device then wait for an answer's latency."""
        n = self.client.definition["images_per_prompt"]
        return len(self.asking) * n + len(self.client.ready) < max(
            ASK_AHEAD * n, READY_BATCHES * self.client.batch_size
        )

    def _lease(self):
        """Take another lease when all indices of the last one are being asked for."""
        now = time.monotonic()
        if self.unasked or len(self.client.leases) >= LEASES or self.no_more or now < self.next_try:
            return
        if self.max_leases is not None and self.leases_taken >= self.max_leases:
            self.no_more_leases()
            return
        answer = self.job.get_indices(
            self.chunk_size, self.prompter.limits() if self.prompter else None
        )
        if isinstance(answer, AllDone):
            self.no_more_leases()
        elif not isinstance(answer, Grant):
            self.dry, self.next_try = True, now + answer.retry_after_s
            if "quarantine" in answer.reason:
                print(f"{answer.reason}; asking again in {answer.retry_after_s:.0f} s", flush=True)
        else:
            self._take(answer)

    def _take(self, grant):
        """Look at what the folder holds of the granted indices, by one listing for each sub-folder; queue them for asking."""
        self.leases_taken, self.dry = self.leases_taken + 1, False
        folders = {number // FOLDER for number in grant.indices}
        found = {}
        try:
            for folder in folders:
                found |= scan_folder(self.dataset_dir, folder, only=set(grant.indices))
            for number, files in found.items():
                samples.remove_temporary(self.dataset_dir, number, grant.lease, files.temporary)
        except OSError as error:
            print(f"lease {grant.lease} is given back: {disk_error(error)}", flush=True)
            self.next_try = time.monotonic() + self.client.publisher.disk_pause()
            self.job.release(grant.lease, "disk")
            return
        indices = [
            Index(n, grant.lease, self.items[n], found.get(n, IndexFiles()), self.leases_taken)
            for n in grant.indices
        ]
        with self.changed:
            self.client.leases[grant.lease] = set(indices)
        if grant.known_good:
            with self.changed:
                self.client.ready.extend(Sample(index, None) for index in indices)
        else:
            self.unasked.extend(indices)

    def _ask(self, index):
        """Find the texts of an index: those published, those in the prompts file, or an LLM's."""
        if index.over:
            return
        wanted, prompt = self.client.definition["images_per_prompt"], index.item["prompt"]
        stands = (
            read_captions(self.dataset_dir, index.number)
            if index.files.captions is not None
            else None
        )
        if stands and images_wanted(stands) >= wanted:
            return self._queue(index, stands["texts"], stands["short"])
        texts = (
            stands["texts"]
            if stands
            else [{"text": prompt, "llm_model_name": None, "backend": None}]
        )
        missing = wanted - len(texts)
        if "variations" in index.item and missing:
            given = index.item["variations"][len(texts) - 1 : wanted - 1]
            more = [
                {"text": text, "llm_model_name": None, "backend": "prompts file"} for text in given
            ]
            short = (
                {
                    "missing": missing - len(more),
                    "reason": "the prompts file holds fewer variations",
                }
                if len(more) < missing
                else None
            )
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
            answer = future.result()  # raises NoBackendLeft
            stands = (
                read_captions(self.dataset_dir, index.number)
                if index.files.captions is not None
                else None
            )
            texts = (
                stands["texts"]
                if stands
                else [{"text": index.item["prompt"], "llm_model_name": None, "backend": None}]
            )
            self._queue(index, texts + answer.texts, answer.short)
        if self.prompter:
            self.prompter.set_share(self.job.llm_share)

    def _queue(self, index, texts, short):
        """Publish the texts of an index, if none stand, and queue its samples that are not published yet."""
        record = {
            "prompt_index": index.number,
            "original_prompt": index.item["prompt"],
            "source": index.item["source"],
            "texts": texts,
            "short": short,
        }
        try:
            index.record = record = publish_captions(self.dataset_dir, record, index.lease)
            index.todo = {
                aug for aug in range(len(record["texts"])) if self._is_missing(index, aug)
            }
        except OSError as error:
            return self.client.fail(index, 0, "disk", disk_error(error), at_once=True)
        with self.changed:
            self.client.short += (record["short"] or {}).get("missing", 0)
            self.client.ready.extend(Sample(index, aug) for aug in sorted(index.todo))
            self.client.settle(index)

    def _is_missing(self, index, aug):
        """Whether a sample is to be drawn. What an earlier holder has left half-published is completed, what is broken is taken away."""
        image, its_json = aug in index.files.images, aug in index.files.jsons
        if (image and its_json) or (aug in index.files.failed and not image):
            return False
        if image and samples.roll_forward(self.dataset_dir, index.number, aug, index.lease):
            return False
        if image or its_json:
            print(
                f"{stem(index.number, aug)}: {'the image is broken' if image else 'its image is gone'}; drawn again",
                flush=True,
            )
            samples.remove_sample(self.dataset_dir, index.number, aug)
        return True

    def _drop_lost(self):
        for lease in [lease for lease in self.client.leases if lease in self.job.lost]:
            print(
                f"lease {lease} is no longer ours: nothing more is drawn for it; what is published stays",
                flush=True,
            )
            for index in list(self.client.leases[lease]):
                self.client.forget(index)

    def _give_back(self):
        if self.give_back_for is None:
            return
        reason, self.give_back_for = self.give_back_for, None
        leases = [lease for lease in self.client.leases if lease not in self.job.lost]
        for index in [index for held in list(self.client.leases.values()) for index in list(held)]:
            self.client.forget(index)
        self.unasked.clear()
        for lease in leases:
            self.job.release(lease, reason)
