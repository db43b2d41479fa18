"""The publisher: threads behind the device that check, encode, publish and report images.

    publisher = Publisher(work, job, describe, place, settings)
    publisher.start(bound=32)
    publisher.put(sample, image)     # waits while 32 images are on their way
    publisher.finish()

put() waits because the device must not run ahead of the disk. An index is reported to the job
server when `work` says that nothing of it is left to do.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from common.command_line import UserError
from common.files import sync_folder
from common.scores.interface import Values
from generate.client.candidate import Candidate
from generate.client.in_order import InOrder
from generate.client.job_client import JobClient
from generate.client.rejected import Rejected
from generate.client.result import captions_of, result_of
from generate.client.scoring import Scoring, Verdicts
from generate.client.work import ClientSettings, Index, Sample, Work
from generate.dataset import samples, tries
from generate.dataset.captions import publish_captions
from generate.dataset.collected import publish_collected
from generate.dataset.disk import fault, shared_fault, spare, unseen_fault
from generate.dataset.layout import FOLDER, folder_name
from generate.pipelines.image import FLAGGED, Image, problem_with
from generate.pipelines.text_lengths import unread
from generate.protocol.answers import ACCEPTED, ALREADY_DONE, FAILED_PERMANENTLY, MISSING
from generate.protocol.connection import Refused, ServerAway

log = logging.getLogger(__name__)

# They wait for fsync most of the time, and Pillow encodes outside of the interpreter's lock.
THREADS = 4
# A name just linked may not be seen by the server's node at once (NFS caches).
LOOK_AGAIN_S = (1, 2, 4)
HOPELESS = 500  # images of a client, none of which was accepted: it leaves
SAFETY_TRIES = 2  # seeds of an image that the model's safety checker blackens
REPORT_AT_ONCE = 200  # indices in one call
LONGEST_ERROR = 2000  # characters of an error text that is reported

Describe = Callable[[Sample, Image], samples.Metadata]


class Publisher:
    """describe(sample, image) -> metadata of its JSON; place: where images are made (lease "")."""

    def __init__(
        self,
        work: Work,
        job: JobClient,
        describe: Describe,
        place: samples.Place,
        settings: ClientSettings,
    ) -> None:
        self.work = work
        self.job = job
        self.describe = describe
        self.place = place
        self.settings = settings
        self.completed = 0  # prompts
        self.queued = 0  # images on their way
        self.rejected = Rejected(settings)
        self.bound = 0
        self.order = InOrder(settings.dataset_dir, work.changed)
        verdicts = Verdicts(self._accepted, self._rejected, self._unjudged)
        self.scoring = Scoring(settings.judge, self.order, verdicts) if settings.judge else None
        self.pool = concurrent.futures.ThreadPoolExecutor(THREADS, "publish")
        self.reporter = threading.Thread(target=self._report_on, name="report", daemon=True)

    def start(self, bound: int) -> None:
        self.bound = bound
        self.reporter.start()
        if self.scoring:
            self.scoring.start()

    def put(self, sample: Sample, image: Image) -> None:
        with self.work.changed:
            self.work.changed.wait_for(lambda: self.queued - self.order.blocked < self.bound)
            self.queued += 1
        self.pool.submit(self._guarded, sample, self._check, sample, image)

    def judging(self) -> bool:
        """Whether images are being scored, of which some may have to be drawn again."""
        return bool(self.scoring and self.scoring.waiting)

    def finish(self) -> None:
        """Wait until all is published and reported, or the server is given up.

        What would be compared with images that are not drawn is left to the next holder.
        """
        with self.work.changed:
            self.work.changed.wait_for(lambda: self.queued == self.order.blocked)
        self.pool.shutdown(wait=True)
        self.work.ended.put(None)
        self.reporter.join()

    # ------------------------------------------------------------ from check to file

    def _guarded(self, sample: Sample, step: Callable[..., bool], *given: Any) -> None:
        """One step of an image's way; step(*given) says whether another one follows."""
        follows = False
        try:
            follows = step(*given)
        except OSError as error:
            self.work.fail(sample, *fault(error), at_once=True)
        except ValueError as error:
            self.work.fail(sample, "prompt", str(error))
        except Exception as error:  # a fault of this program; without this the index never ended
            self.work.fail(sample, "unknown", f"{type(error).__name__}: {error}")
            raise
        finally:
            if not follows:
                self._leave()

    def _leave(self) -> None:
        """An image is on its way no more."""
        with self.work.changed:
            self.queued -= 1
            self.work.changed.notify_all()

    def _check(self, sample: Sample, image: Image) -> bool:
        if image.flagged and sample.aug is not None:
            if not self.work.redraw(sample, FLAGGED, SAFETY_TRIES):
                self._give_up(sample, "safety checker", FLAGGED)
            return False
        if problem := problem_with(image, sample.recipe.height, sample.recipe.width):
            self.work.retry_or_fail(sample, "image", problem)
            return False
        if not self.work.passed(sample):
            return False
        metadata = self.describe(sample, image)
        jpeg = samples.encode_alone(image.pixels, self.settings.jpeg_quality)
        if self.scoring is None:
            return self._publish(sample, jpeg, metadata)
        self.scoring.put(Candidate(sample, jpeg, metadata, samples.decoded(jpeg)))
        return True

    def _publish(self, sample: Sample, jpeg: bytes, metadata: samples.Metadata) -> bool:
        place = dataclasses.replace(self.place, lease=sample.index.lease)
        samples.publish_sample(self.settings.dataset_dir, jpeg, metadata, place)
        cut = unread(metadata.get("truncated", ()), metadata.get("text_tokens", ()))
        self.work.published(sample, cut)
        return False

    # ------------------------------------------------------------ what the scores say

    def _accepted(self, candidate: Candidate, values: Values) -> None:
        sample, judge = candidate.sample, self.settings.judge
        assert judge is not None and sample.aug is not None, "it has been scored"
        rejected = sample.index.tried.get(sample.aug, [])
        metadata = candidate.metadata | {
            "scores": values,
            "tries": len(rejected) + 1,
            "rejected": [{"seed": tried.seed, "scores": tried.scores} for tried in rejected],
            **judge.facts(),
        }
        self.pool.submit(self._guarded, sample, self._publish, sample, candidate.jpeg, metadata)

    def _rejected(self, candidate: Candidate, values: Values) -> None:
        self._guarded(candidate.sample, self._reject, candidate, values)

    def _reject(self, candidate: Candidate, values: Values) -> bool:
        """Note the seed, or give the caption up: either is on disk before anything follows."""
        sample, judge = candidate.sample, self.settings.judge
        assert judge is not None and sample.aug is not None, "it has been scored"
        index = sample.index
        tried = tries.Tried(sample.attempt, candidate.metadata["seed"], values)
        before = index.tried.get(sample.aug, [])
        again = len(before) + 1 < judge.max_tries
        if not index.over:  # else its next holder is to draw and judge it
            self.rejected.keep(candidate, values)
            place = (self.settings.dataset_dir, index.number, index.lease, sample.aug)
            if again:
                tries.note(*place, tried)
            else:
                tries.publish_not_accepted(*place, [*before, tried])
        self.rejected.note(index.number, sample.aug, tried)
        self.work.rejected(sample, tried, again)
        if not again:
            self.work.given_up(sample, tries.NOT_ACCEPTED)
        if not self.work.images and self.work.images_rejected >= HOPELESS and judge.min_accepted:
            self.work.end(UserError(judge.hopeless(HOPELESS, tried.scores)), "released")
        return False

    def _unjudged(self, candidate: Candidate, error: Exception | None) -> None:
        """A score of the user's own that fails is no prompt's fault: the client leaves."""
        if isinstance(error, OSError):
            self.work.fail(candidate.sample, *fault(error), at_once=True)
        elif error is not None:
            self.work.end(error, "released")
        self._leave()

    def _give_up(self, sample: Sample, reason: str, error: str) -> None:
        """A sample ends as .failed, and nobody is blamed: its index is done with it."""
        index = sample.index
        assert sample.aug is not None, "a canary prompt is not given up"
        samples.publish_failed(
            self.settings.dataset_dir, index.number, sample.aug, reason, error, index.lease
        )
        self.work.given_up(sample, reason)

    # ------------------------------------------------------------ reports

    def _report_on(self) -> None:
        """Report indices as they end; what piles up during a call goes together with the next."""
        ended = self.work.ended
        while True:
            batch = [ended.get()]
            while not ended.empty() and len(batch) < REPORT_AT_ONCE:
                batch.append(ended.get())
            # what failed goes in a call of its own: if it is refused, the others have been counted
            calls: dict[tuple[str, bool], list[Index]] = {}
            for index in batch:
                if index is not None:
                    calls.setdefault((index.lease, bool(index.failures)), []).append(index)
            for (lease, _), indices in calls.items():
                self._report_or_forget(indices, lease)
            if None in batch:
                return

    def _report_or_forget(self, indices: list[Index], lease: str) -> None:
        try:
            self._report(indices, lease)
        except Refused as error:
            self._blame_refused(indices, lease, error)
        except ServerAway as error:
            # The images are published all the same, and the next holder will find them.
            self.job.stop_waiting()
            for index in indices:
                self.work.forget(index)
            log.warning("not reported: %s", error)
        except Exception as error:  # a fault of this program
            self.work.end(error, "released")
            raise

    def _blame_refused(self, indices: list[Index], lease: str, error: Refused) -> None:
        """Nobody's neighbours are lost with a prompt whose report the server does not take."""
        if len(indices) > 1:
            for index in indices:
                self._report_or_forget([index], lease)
            return
        (index,) = indices
        log.warning("prompt %d: its report is refused: %s", index.number, error)
        if not index.failures:
            index.failures[None] = ("prompt", f"its report is refused: {error}")
            self._report_or_forget(indices, lease)
        else:
            self.job.stop_waiting()
            self.work.forget(index)

    def _report(self, indices: list[Index], lease: str) -> None:
        report = self._fail if indices[0].failures else self._complete  # all are alike
        if lease not in self.job.lost:
            report(indices, lease)
        for index in indices:
            self.work.forget(index)

    def _complete(self, indices: list[Index], lease: str) -> None:
        dataset_dir = self.settings.dataset_dir
        try:
            for index in indices:
                with spare():
                    if index.tried:
                        tries.forget(dataset_dir, index.number, lease)
                    publish_collected(dataset_dir, index.number, captions_of(index), lease)
            for folder in {index.number // FOLDER for index in indices}:
                sync_folder(dataset_dir / folder_name(folder * FOLDER))
        except OSError as error:
            self._fail_together(indices, lease, *shared_fault(error))
            return
        for pause in (*LOOK_AGAIN_S, None):
            verdicts = self.job.complete(lease, [self._result(index) for index in indices])
            self.completed += sum(
                verdict in (ACCEPTED, ALREADY_DONE) for verdict in verdicts.values()
            )
            indices = [index for index in indices if verdicts.get(index.number) == MISSING]
            if not indices:
                return
            if pause is not None:
                self._publish_captions_again(indices, lease)
                time.sleep(pause)
        for index in indices:
            index.failures[0] = unseen_fault(dataset_dir / folder_name(index.number))
        self._fail(indices, lease)

    def _result(self, index: Index) -> dict[str, Any]:
        return result_of(index, judge.report(index.tried) if (judge := self.settings.judge) else {})

    def _publish_captions_again(self, indices: list[Index], lease: str) -> None:
        """A .prompts may have been deleted since; what stands is not touched."""
        for index in indices:
            if index.record:
                with contextlib.suppress(OSError):  # the next look tells
                    publish_captions(self.settings.dataset_dir, index.record, lease)

    def _fail_together(self, indices: list[Index], lease: str, reason: str, error: str) -> None:
        for index in indices:
            index.failures[0] = (reason, error)
        self._fail(indices, lease)

    def _fail(self, indices: list[Index], lease: str) -> None:
        """Report failures; a failing disk or quarantine releases everything."""
        results = []
        for index in indices:
            reason, error = next(iter(index.failures.values()))
            told = error.replace("\0", "\\0")[:LONGEST_ERROR]
            result = {"index": index.number, "reason": reason, "error": told}
            if index.canary_passed is not None:
                result["known_good"] = index.canary_passed
            results.append(result)
        verdicts = self.job.fail(lease, results)
        for index in indices:
            if verdicts.get(index.number) == FAILED_PERMANENTLY:
                self._mark_failed(index, lease)
            self.work.forget(index)
        on_disk = [result["error"] for result in results if result["reason"] == "disk"]
        if on_disk:
            pause = self.work.pause_for_disk()
            self.work.release_soon("disk")
            log.warning(
                "everything is released, new work in %.0f s at the earliest: %s", pause, on_disk[0]
            )
        elif self.job.quarantined_s is not None:
            self.work.release_soon("released")

    def _mark_failed(self, index: Index, lease: str) -> None:
        """Write the .failed files of an index that the server has given up."""
        self.work.failed_permanently(index)
        for aug, (reason, error) in index.failures.items():
            if aug is None:
                continue
            try:
                samples.publish_failed(
                    self.settings.dataset_dir, index.number, aug, reason, error, lease
                )
            except OSError as problem:
                log.warning("%d_%d.failed was not written: %s", index.number, aug, problem)
