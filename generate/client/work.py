"""The state that a client's threads share: its leases, and the samples ready to be generated.

The feeder fills it, the generating loop takes batches from it, the publisher tells it what became
of each sample. Neither knows the others. `changed` guards all of it and is notified at each change.

    work.add_lease("3-17", indices)       # their captions are to be found: work.unasked
    work.enqueue(index, {0, 1, 2})        # captions are known: samples to generate
    batch = work.take(work.ready_alike()[0][:16])
    work.published(sample)                # or work.retry_or_fail(...), work.fail(...)
    index = work.ended.get()              # nothing of it is left to do: report it
    work.forget(index)
"""

import collections
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.screening import Screen
from generate.client.judge import Judge
from generate.client.recipes import Recipes
from generate.dataset.captions import Caption, Captions, missing_of
from generate.dataset.layout import JPEG_QUALITY, stem
from generate.dataset.prompts_file import Item
from generate.dataset.scan import IndexFiles
from generate.dataset.tries import Tried
from generate.pipelines.pipeline import Recipe
from generate.pipelines.text_lengths import KEEP, Lengths

log = logging.getLogger(__name__)

CANARY_PROMPT = "a photo of a red ball on a white table"
# Bad images in a row (each tried twice) after which indices fail at once: then it is hardly the
# captions.
SUSPECT = 3
# First and longest pause before new work after a failed write.
DISK_PAUSE_S = 5
LONGEST_DISK_PAUSE_S = 300


@dataclass(frozen=True)
class ClientSettings:
    """What a client generates, and how long it goes on."""

    dataset_dir: Path
    images_per_prompt: int
    recipes: Recipes  # what is asked of each image
    images_per_text: int = 1  # which differ in their seeds alone
    chunk_size: int = 1  # prompts a lease
    jpeg_quality: int = JPEG_QUALITY
    max_leases: int | None = None  # leave after so many
    max_idle_s: float | None = None  # leave after so long without anything to generate
    deadline: float | None = None  # time.monotonic() at which the time limit comes
    screen: Screen = field(default_factory=Screen)  # judges each prompt before it is generated
    lengths: Callable[[str], Lengths] | None = None  # of a text, as the model reads it
    truncated: str = KEEP  # what becomes of a text that is not read to its end
    judge: Judge | None = None  # scores each image, and says which are accepted


@dataclass(eq=False)
class Index:
    """A leased index on its way."""

    number: int
    lease: str
    item: Item
    files: IndexFiles  # what lay in the folder when it was leased
    # Of its lease: the older lease comes first, as only its end makes room for a new one.
    turn: int
    captions: dict[int, Caption] = field(default_factory=dict)  # its texts that stand, by place
    record: Captions | None = None  # its .prompts
    todo: set[int] = field(default_factory=set)  # augmentations neither published nor failed
    given_up: set[int] = field(default_factory=set)  # augmentations that ended as .failed
    # augmentation (None: the canary prompt) -> (reason, error)
    failures: dict[int | None, tuple[str, str]] = field(default_factory=dict)
    truncated: int = 0  # texts of it that are longer than a text encoder reads
    over: bool = False  # reported, lost or released: nothing more is generated for it
    # augmentation -> images that were not accepted, of this holder and of earlier ones
    tried: dict[int, list[Tried]] = field(default_factory=dict)
    # Whether the canary prompt could be generated, where the server asked for that first.
    canary_passed: bool | None = None


@dataclass(eq=False)
class Sample:
    """One image to generate. aug None: the canary prompt, to tell a bad device from a bad prompt;
    its image is not published."""

    index: Index
    aug: int | None
    recipe: Recipe
    attempt: int = 0  # which of its seeds
    bad: int = 0  # images in a row that did not pass the check

    @property
    def text(self) -> str:
        if self.aug is None or self.index.record is None:
            return CANARY_PROMPT
        return self.index.record["texts"][self.aug]["text"]

    @property
    def name(self) -> str:
        """For the log: "12345_3"."""
        return f"{self.index.number}_canary" if self.aug is None else self._stem(self.aug)

    def _stem(self, aug: int) -> str:
        return stem(self.index.number, aug)


class Work:
    """See the module. stopping: set when no new work is to be begun; the job client has it too."""

    def __init__(self, stopping: threading.Event, recipes: Recipes) -> None:
        self.stopping = stopping
        self.recipes = recipes
        self.changed = threading.Condition()
        self.leases: dict[str, set[Index]] = {}
        self.unasked: collections.deque[Index] = collections.deque()
        self.ready: collections.deque[Sample] = collections.deque()
        self.ended: queue.SimpleQueue[Index | None] = queue.SimpleQueue()  # None: no more come
        self.no_more_leases = False
        self.stop_reason: str | None = None  # a reason word of /release
        self.release_reason: str | None = None  # set: all leases are to be released soon
        self.error: Exception | None = None  # why the client ends
        self.extended = False  # the data set has another definition by now
        self.next_lease_at = 0.0  # time.monotonic()
        self.images = 0  # published
        self.failed = 0  # prompts that failed permanently
        self.missing_captions = 0
        self.missing_images = 0  # given up, and nobody is blamed
        self.images_rejected = 0
        self._bad_in_a_row = 0
        self._disk_failures = 0

    # ------------------------------------------------------------ leases and captions

    def add_lease(self, lease: str, indices: list[Index], canary: bool = False) -> None:
        """Take over a granted lease. canary: generate the canary prompt before anything of it."""
        with self.changed:
            self.leases[lease] = set(indices)
            if canary:
                self.ready.extend(self.sample(index, None) for index in indices)
            else:
                self.unasked.extend(indices)

    def enqueue(self, index: Index, augs: Iterable[int]) -> None:
        """The captions of an index stand, and these of its images are to be generated."""
        with self.changed:
            index.todo = set(augs)
            self.missing_captions += missing_of(index.record) if index.record else 0
            self.ready.extend(self.sample(index, aug) for aug in sorted(index.todo))
            self.settle(index)

    def sample(self, index: Index, aug: int | None) -> Sample:
        """A sample with what is asked of its image; its seed follows those tried in vain."""
        recipe = self.recipes.of(index.number, aug, index.item)
        tried = index.tried.get(aug, ()) if aug is not None else ()
        return Sample(index, aug, recipe, max((each.attempt + 1 for each in tried), default=0))

    def take(self, batch: list[Sample]) -> list[Sample]:
        """Take samples out of what is ready."""
        with self.changed:
            taken = set(map(id, batch))
            self.ready = collections.deque(s for s in self.ready if id(s) not in taken)
            self.changed.notify_all()
            return batch

    def ready_alike(self) -> list[list[Sample]]:
        """What is ready, in lists that a batch may be made of, each and all by age.

        The older leases come first; what is over is dropped.
        """
        with self.changed:
            waiting = [sample for sample in self.ready if not sample.index.over]
            waiting.sort(key=lambda sample: sample.index.turn)
            self.ready = collections.deque(waiting)
        alike: dict[object, list[Sample]] = {}
        for sample in waiting:
            alike.setdefault(sample.recipe.alike, []).append(sample)
        return list(alike.values())

    # ------------------------------------------------------------ what became of a sample

    def passed(self, sample: Sample) -> bool:
        """Whether an image that has passed its check is to be published."""
        with self.changed:
            self._bad_in_a_row = 0
            if sample.aug is None:
                sample.index.canary_passed = True
                self.unasked.append(sample.index)
        return sample.aug is not None

    def published(self, sample: Sample, truncated: bool = False) -> None:
        """An image and its JSON are on disk; truncated: of a text that was not read to its end."""
        with self.changed:
            self.images += 1
            sample.index.truncated += truncated
            self._disk_failures = 0
            if sample.aug is not None:
                sample.index.todo.discard(sample.aug)
            self.settle(sample.index)

    def redraw(self, sample: Sample, why: str, tries: int) -> bool:
        """Generate an image that nobody is blamed for with the next seed; False: no try is left."""
        with self.changed:
            if sample.bad + 1 >= tries:
                return False
            log.info("%s: %s; generated again with the next seed", sample.name, why)
            again = replace(sample, attempt=sample.attempt + 1, bad=sample.bad + 1)
            self.ready.appendleft(again)
            self.changed.notify_all()
            return True

    def given_up(self, sample: Sample, reason: str) -> None:
        """A sample has ended as .failed, and nobody is blamed."""
        with self.changed:
            assert sample.aug is not None
            self.missing_images += 1
            sample.index.given_up.add(sample.aug)
            sample.index.todo.discard(sample.aug)
            self.settle(sample.index)
        log.warning("%s is given up: %s", sample.name, reason)

    def retry_or_fail(self, sample: Sample, reason: str, error: str, retry: bool = True) -> None:
        """A bad image: tried once more with the next seed, then the sample fails."""
        with self.changed:
            if retry and not sample.bad:
                log.info(
                    "%s: %s (%s); generated again with the next seed", sample.name, error, reason
                )
                self.ready.appendleft(replace(sample, attempt=sample.attempt + 1, bad=1))
                self.changed.notify_all()
                return
            self._bad_in_a_row += 1
            if sample.aug is None:
                sample.index.canary_passed = False
                reason = "gpu"
            at_once = sample.aug is None or self._bad_in_a_row >= SUSPECT
            self.fail(sample, reason, error, at_once)

    def rejected(self, sample: Sample, tried: Tried, again: bool) -> None:
        """An image is not accepted; again: its caption is generated with the next seed."""
        assert sample.aug is not None, "the canary prompt is not judged"
        with self.changed:
            self.images_rejected += 1
            sample.index.tried.setdefault(sample.aug, []).append(tried)
            if again:
                self.ready.appendleft(self.sample(sample.index, sample.aug))
                self.changed.notify_all()

    def fail(self, sample: Sample, reason: str, error: str, at_once: bool = False) -> None:
        """A sample failed for good.

        Its index is reported when its other samples are through, or at once: a suspect device, a
        failing disk.
        """
        with self.changed:
            if sample.aug is not None:
                sample.index.todo.discard(sample.aug)
            sample.index.failures[sample.aug] = (reason, error)
            self.settle(sample.index, at_once)
        log.warning("%s failed (%s): %s", sample.name, reason, error)

    def settle(self, index: Index, at_once: bool = False) -> None:
        """Have an index reported once nothing of it is left to do."""
        with self.changed:
            if not index.over and (at_once or not index.todo):
                index.over = True
                self.ended.put(index)
            self.changed.notify_all()

    def failed_permanently(self, index: Index) -> None:
        """The server has given an index up."""
        with self.changed:
            self.failed += 1
        log.warning("prompt %d failed permanently; --retry_failed tries it again", index.number)

    def forget(self, index: Index) -> None:
        """Drop an index that is done, failed or lost; a lease without indices is over."""
        with self.changed:
            index.over = True
            indices = self.leases.get(index.lease, set())
            indices.discard(index)
            if not indices:
                self.leases.pop(index.lease, None)
            self.changed.notify_all()

    def forget_all(self) -> dict[str, int]:
        """Forget every index; {lease: how many indices were left of it}."""
        with self.changed:
            left = {lease: len(indices) for lease, indices in self.leases.items()}
            for index in [index for indices in self.leases.values() for index in indices]:
                index.over = True
            self.leases.clear()
            self.unasked.clear()
            self.changed.notify_all()
        return left

    # ------------------------------------------------------------ pauses and the end

    def pause(self, seconds: float) -> None:
        """Take no lease for so long."""
        self.next_lease_at = time.monotonic() + seconds

    def pause_for_disk(self) -> float:
        """Pause after a failed write: longer each time, until a write goes well again; seconds."""
        with self.changed:
            seconds = min(DISK_PAUSE_S * 2.0**self._disk_failures, LONGEST_DISK_PAUSE_S)
            self._disk_failures += 1
        self.pause(seconds)
        return seconds

    def release_soon(self, reason: str) -> None:
        """Release all leases soon, without stopping: a failing disk, or quarantine."""
        with self.changed:
            self.release_reason = reason
            self.changed.notify_all()

    def take_release_reason(self) -> str | None:
        """The reason given to release_soon(), once."""
        with self.changed:
            reason = self.release_reason
            self.release_reason = None
        return reason

    def stop(self, reason: str) -> None:
        """Begin nothing new. reason: a reason word of /release."""
        self.stop_reason = self.stop_reason or reason
        self.stopping.set()

    def leave_for_extension(self) -> None:
        """Finish what is held; a fresh process goes on with the definition that stands now."""
        with self.changed:
            self.extended = True
            self.no_more_leases = True
            self.changed.notify_all()

    def end(self, error: Exception, stop_reason: str | None) -> None:
        """Take no more leases because of an error. stop_reason None: what is ready is finished."""
        with self.changed:
            self.error = error
            self.no_more_leases = True
            if stop_reason:
                self.stop(stop_reason)
            self.changed.notify_all()
