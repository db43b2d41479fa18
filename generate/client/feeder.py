"""In front of the device: one thread that leases prompt indices and finds their captions.

    feeder = Feeder(work, job, prompter, items, settings)
    feeder.start(batch_size=16)
    feeder.more_can_come()     # or is what is ready all that there will be for now?
    feeder.finish()

By Little's law a device that takes r prompts in the time of one LLM answer is kept busy by r calls
in flight: r slots of the LLMs, and leases of r prompts each, since while images of one lease are
generated the captions of the other must come.
"""

import concurrent.futures
import logging
import threading
import time
from collections.abc import Sequence
from typing import cast

from common.command_line import UserError
from common.screening import summary
from generate.client.job_client import JobClient
from generate.client.work import ClientSettings, Index, Sample, Work
from generate.dataset import samples
from generate.dataset.captions import (
    Caption,
    Captions,
    Missing,
    images_wanted,
    publish_captions,
    read_captions,
)
from generate.dataset.disk import disk_error
from generate.dataset.layout import FOLDER, stem
from generate.dataset.prompts_file import Item
from generate.dataset.scan import IndexFiles, scan_folder
from generate.dataset.screened import screened
from generate.llms.failures import NoBackendLeft
from generate.llms.prompter import Prompter, Variations
from generate.protocol.answers import AllDone, Grant, Quarantined
from generate.protocol.connection import Refused, ServerAway

log = logging.getLogger(__name__)

LEASES = 2  # one being generated, one being asked for; the job server grants no third
# Prompts asked for or ready ahead of the device: at 2 s an answer, enough for a device that takes
# 32 prompts a second.
ASK_AHEAD = 64
READY_BATCHES = 4  # at least so many batches of captions ready, where a prompt has few images
TICK_S = 0.2


class Feeder:
    """Fills `work`. prompter: None when no LLM is to be asked. items: read_prompts()."""

    def __init__(
        self,
        work: Work,
        job: JobClient,
        prompter: Prompter | None,
        items: Sequence[Item],
        settings: ClientSettings,
    ) -> None:
        self.work = work
        self.job = job
        self.prompter = prompter
        self.items = items
        self.settings = settings
        self.asking: dict[concurrent.futures.Future[Variations], Index] = {}
        self.leases_taken = 0
        self.dry = False  # the server's last answer was no lease
        self.feeding = False
        self.batch_size = 1
        self.thread = threading.Thread(target=self._feed, name="feed", daemon=True)

    def start(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.thread.start()

    def more_can_come(self) -> bool:
        """Whether captions may be ready soon that are not ready now."""
        work = self.work
        may_lease = not self.dry and not work.no_more_leases and len(work.leases) < LEASES
        return bool(self.asking or work.unasked or self.feeding or may_lease)

    def finish(self) -> None:
        """After `stopping` is set: wait for the thread, and ask for nothing more."""
        self.thread.join(15)
        with self.work.changed:
            for future in self.asking:
                future.cancel()

    def _feed(self) -> None:
        try:
            while not self.job.stopping.is_set():
                self.step()
        except ServerAway as error:
            self._forget_unready()
            self.job.stop_waiting()
            self.work.end(error, None)
        except NoBackendLeft as error:
            self.work.end(error, "llm")
        except (Refused, UserError) as error:
            self.work.end(error, "released")
        except Exception as error:  # a fault of this program
            self.work.end(error, "released")
            raise

    def step(self) -> None:
        """One round: take answers, ask for captions, take a lease where there is room."""
        work = self.work
        self.feeding = True
        self._drop_lost()
        self._release()
        self._take_answers()
        while work.unasked and self._has_room():
            self._find_captions(work.unasked.popleft())
        self.feeding = False
        self._lease()
        with work.changed:
            work.changed.notify_all()
            if not any(future.done() for future in self.asking):
                work.changed.wait(TICK_S)

    def _has_room(self) -> bool:
        """Whether to ask for another prompt.

        What is being asked for counts as much as what is ready, or the asking would pause until
        little is ready, and the device then wait for an answer's latency.
        """
        images = self.settings.images_per_prompt
        ahead = len(self.asking) * images + len(self.work.ready)
        return ahead < max(ASK_AHEAD * images, READY_BATCHES * self.batch_size)

    # ------------------------------------------------------------ leases

    def _lease(self) -> None:
        """Take another lease when all indices of the last one are being asked for."""
        work = self.work
        now = time.monotonic()
        if work.unasked or len(work.leases) >= LEASES or now < work.next_lease_at:
            return
        most = self.settings.max_leases
        if work.no_more_leases or (most is not None and self.leases_taken >= most):
            work.no_more_leases = True
            return
        limits = self.prompter.limits() if self.prompter else None
        answer = self.job.get_indices(self.settings.chunk_size, limits)
        if isinstance(answer, Grant):
            self.dry = False
            self.leases_taken += 1
            self._take(answer)
        elif isinstance(answer, AllDone):
            work.no_more_leases = True
        else:
            self.dry = True
            work.pause(answer.retry_after_s)
            if isinstance(answer, Quarantined):
                log.warning("%s; asking again in %.0f s", answer.reason, answer.retry_after_s)

    def _take(self, grant: Grant) -> None:
        """Look at what the folder holds of the granted indices; queue them for asking."""
        dataset_dir = self.settings.dataset_dir
        found: dict[int, IndexFiles] = {}
        try:
            for folder in {number // FOLDER for number in grant.indices}:
                found |= scan_folder(dataset_dir, folder, only=set(grant.indices))
            for number, files in found.items():
                samples.remove_temporary(dataset_dir, number, grant.lease, files.temporary)
        except OSError as error:
            pause = self.work.pause_for_disk()
            self.job.release(grant.lease, "disk")
            log.warning(
                "lease %s is released, new work in %.0f s at the earliest: %s",
                grant.lease,
                pause,
                disk_error(error),
            )
            return
        turn = self.leases_taken
        indices = [
            Index(n, grant.lease, self.items[n], found.get(n, IndexFiles()), turn)
            for n in grant.indices
        ]
        self.work.add_lease(grant.lease, indices, grant.canary)

    def _drop_lost(self) -> None:
        for lease in [lease for lease in self.work.leases if lease in self.job.lost]:
            log.warning(
                "lease %s is no longer ours: nothing more is generated for it; "
                "what is published stays",
                lease,
            )
            for index in list(self.work.leases[lease]):
                self.work.forget(index)

    def _release(self) -> None:
        """Release all leases where that was asked for."""
        if reason := self.work.take_release_reason():
            for lease in self.work.forget_all():
                if lease not in self.job.lost:
                    self.job.release(lease, reason)

    def _forget_unready(self) -> None:
        """The server is away for good: others will do what has no captions yet."""
        for index in [*self.work.unasked, *self.asking.values()]:
            self.work.forget(index)
        self.work.unasked.clear()
        self.asking.clear()

    # ------------------------------------------------------------ captions

    def _find_captions(self, index: Index) -> None:
        """The captions of an index: those published, those in the prompts file, or an LLM's."""
        if index.over:
            return
        try:
            stands = self._published(index)
        except OSError as error:
            self._disk_failed(index, error)
            return
        wanted = self.settings.images_per_prompt
        if stands and images_wanted(stands) >= wanted:
            self._use(index, stands["texts"], stands["short"])
            return
        judged = screened(self.settings.screen, index.item)
        if judged.refusal:
            self._refuse(index, stands, judged.refusal)
            return
        index.record = stands
        captions = _captions_so_far(index)
        missing = wanted - len(captions)
        if not missing:
            self._use(index, captions, None)
        elif "variations" in index.item:
            given = judged.variations[len(captions) - 1 : wanted - 1]
            captions = captions + [_caption(text, "prompts file") for text in given]
            left = wanted - len(captions)
            reason = "the prompts file holds fewer variations"
            if judged.refused:
                reason += f"; refused: {summary(judged.refused)}"
            self._use(index, captions, {"missing": left, "reason": reason} if left else None)
        else:
            self._ask(index, missing, [caption["text"] for caption in captions[1:]])

    def _refuse(self, index: Index, stands: Captions | None, refusal: str) -> None:
        """Publish that nothing is generated for a prompt, and why; what stands, stays."""
        log.warning("prompt %d is not generated: %s", index.number, refusal)
        captions = stands["texts"] if stands else []
        missing = self.settings.images_per_prompt - len(captions)
        self._use(index, captions, {"missing": missing, "reason": refusal})

    def _published(self, index: Index) -> Captions | None:
        if index.files.captions is None:
            return None
        return read_captions(self.settings.dataset_dir, index.number)

    def _ask(self, index: Index, missing: int, known: list[str]) -> None:
        assert self.prompter is not None, "a prompt without variations has a prompter"
        future = self.prompter.submit(index.item["prompt"], missing, known)
        self.asking[future] = index
        future.add_done_callback(self._wake)

    def _wake(self, _: object) -> None:
        with self.work.changed:
            self.work.changed.notify_all()

    def _take_answers(self) -> None:
        for future in [future for future in self.asking if future.done()]:
            index = self.asking.pop(future)
            if future.cancelled() or index.over:
                continue
            answer = future.result()  # raises NoBackendLeft
            added = cast(list[Caption], answer.texts)
            self._use(index, _captions_so_far(index) + added, cast(Missing | None, answer.short))
        if self.prompter:
            self.prompter.set_share(self.job.llm_share)

    def _use(self, index: Index, captions: list[Caption], short: Missing | None) -> None:
        """Publish the captions of an index, if none stand, and queue its missing samples."""
        dataset_dir = self.settings.dataset_dir
        record: Captions = {
            "prompt_index": index.number,
            "original_prompt": index.item["prompt"],
            "source": index.item["source"],
            "texts": captions,
            "short": short,
        }
        try:
            index.record = record = publish_captions(dataset_dir, record, index.lease)
            augs = range(len(record["texts"]))
            todo = [aug for aug in augs if self._is_missing(index, aug)]
        except OSError as error:
            self._disk_failed(index, error)
            return
        self.work.enqueue(index, todo)

    def _is_missing(self, index: Index, aug: int) -> bool:
        """Whether a sample is to be generated.

        What an earlier holder has left half-published is completed, what is broken is removed.
        """
        image = aug in index.files.images
        its_json = aug in index.files.jsons
        if (image and its_json) or (aug in index.files.failed and not image):
            return False
        dataset_dir = self.settings.dataset_dir
        if image and samples.roll_forward(dataset_dir, index.number, aug, index.lease):
            return False
        if image or its_json:
            samples.remove_sample(dataset_dir, index.number, aug)
            what = "the image is broken" if image else "its image is gone"
            log.warning("%s: %s; generated again", stem(index.number, aug), what)
        return True

    def _disk_failed(self, index: Index, error: OSError) -> None:
        self.work.fail(Sample(index, 0), "disk", disk_error(error), at_once=True)


def _captions_so_far(index: Index) -> list[Caption]:
    """What stands of an index's captions; the original prompt is the first of them."""
    return index.record["texts"] if index.record else [_caption(index.item["prompt"], None)]


def _caption(text: str, backend: str | None) -> Caption:
    return {"text": text, "llm_model_name": None, "backend": backend}
