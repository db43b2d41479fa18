"""The feeder: a thread ahead of the device that takes leases and finds captions.

    feeder = Feeder(work, job, prompter, items, settings)
    feeder.start(batch_size=16)
    feeder.more_can_come()     # False: no more captions will be ready soon
    feeder.finish()

By Little's law a device that takes r prompts in the time of one LLM answer is kept busy by r calls
in flight: r slots of the LLMs, and leases of r prompts each, since while images of one lease are
generated the captions of the other must come.
"""

import functools
import logging
import threading
import time
from collections.abc import Sequence

from common.command_line import UserError
from common.files import keep_damaged
from generate.client.captioner import Captioner
from generate.client.job_client import JobClient
from generate.client.work import ClientSettings, Index, Work
from generate.dataset import samples, tries
from generate.dataset.accept_rule import Rule
from generate.dataset.collected import remove_collected
from generate.dataset.disk import refuse_unusable, shared_fault, spare
from generate.dataset.extension import newer_definition
from generate.dataset.layout import FOLDER, folder_name, path_of
from generate.dataset.links import remove
from generate.dataset.prompts_file import Item
from generate.dataset.scan import IndexFiles, scan_folder
from generate.dataset.tries import Tried
from generate.llms.failures import NoBackendLeft
from generate.llms.prompter import Prompter
from generate.protocol.answers import AllDone, Grant, Quarantined
from generate.protocol.connection import Extended, Refused, ServerAway

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
        self.captioner = Captioner(work, prompter, settings)
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
        return bool(self.captioner.asking or work.unasked or self.feeding or may_lease)

    def finish(self) -> None:
        """After `stopping` is set: wait for the thread, and ask for nothing more."""
        self.thread.join(15)
        self.captioner.cancel()

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
        self.captioner.take_answers()
        if self.prompter:
            self.prompter.set_share(self.job.llm_share)
        while work.unasked and self._has_room():
            self.captioner.find(work.unasked.popleft())
        self.feeding = False
        self._lease()
        with work.changed:
            work.changed.notify_all()
            if not self.captioner.has_answers():
                work.changed.wait(TICK_S)

    def _has_room(self) -> bool:
        """Whether to ask for another prompt.

        Prompts being asked for count like those that are ready. Else asking would pause until few
        are ready, and the device would then wait for an answer.
        """
        images = self.settings.images_per_prompt
        ahead = len(self.captioner.asking) * images + len(self.work.ready)
        shapes = self.settings.recipes.shapes  # each makes batches of its own
        return ahead < max(ASK_AHEAD * images, READY_BATCHES * self.batch_size * shapes)

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
        try:
            answer = self.job.get_indices(self.settings.chunk_size, limits)
        except Refused as error:
            if not isinstance(error, Extended) and not self._was_extended():
                raise
            log.info("the data set was extended: what is held is finished first")
            work.leave_for_extension()
            return
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

    def _was_extended(self) -> bool:
        newer = newer_definition(self.settings.dataset_dir, self.job.definition)
        return newer is not None

    def _take(self, grant: Grant) -> None:
        """Look at what the folder holds of the granted indices; queue them for asking."""
        dataset_dir = self.settings.dataset_dir
        rule = self._rule
        found: dict[int, IndexFiles] = {}
        tried: dict[int, dict[int, list[Tried]]] = {}
        try:
            for folder in {number // FOLDER for number in grant.indices}:
                refuse_unusable(dataset_dir / folder_name(folder * FOLDER))
                found |= scan_folder(dataset_dir, folder, set(grant.indices), rule)
            for number, files in found.items():
                tried[number] = self._take_over(number, grant.lease, files)
        except OSError as error:
            reason, why = shared_fault(error)
            pause = self.work.pause_for_disk()
            self.job.release(grant.lease, reason)
            log.warning(
                "lease %s is released, new work in %.0f s at the earliest: %s",
                grant.lease,
                pause,
                why,
            )
            return
        turn = self.leases_taken
        indices = [
            Index(n, grant.lease, self.items[n], found.get(n, IndexFiles()), turn)
            for n in grant.indices
        ]
        for index in indices:
            index.tried = tried.get(index.number, {})
        self.work.add_lease(grant.lease, indices, grant.canary)

    def _take_over(self, number: int, lease: str, files: IndexFiles) -> dict[int, list[Tried]]:
        """Clear away what earlier holders of a prompt have left; its tries, by augmentation.

        What cannot be removed is named and stays: nothing of it is needed.
        """
        dataset_dir = self.settings.dataset_dir
        tried: dict[int, list[Tried]] = {}
        for name in files.strays:
            with spare():
                samples.set_stray_aside(dataset_dir, number, name)
        with spare():
            tried = self._tries(number, lease, files)
        samples.remove_temporary(dataset_dir, number, lease, files.temporary)
        if files.collected:
            with spare():
                remove_collected(dataset_dir, number)
        for aug in files.opened:
            with spare():
                remove(path_of(dataset_dir, number, aug, ".failed"))
        with spare():
            self._set_aside_damaged(number, files)
        return tried

    def _set_aside_damaged(self, number: int, files: IndexFiles) -> None:
        """Rename a prompt's damaged .failed, so that a new one finds its name free."""
        marks = [
            path_of(self.settings.dataset_dir, number, aug, ".failed")
            for aug in sorted(files.damaged)
        ]
        kept = [keep_damaged(mark).name for mark in marks]
        if kept:
            log.warning(
                "%s damaged, which gives nothing up: it is generated; kept as %s",
                ", ".join(mark.name for mark in marks),
                ", ".join(kept),
            )

    def _tries(self, number: int, lease: str, files: IndexFiles) -> dict[int, list[Tried]]:
        """Tries of a prompt that were not accepted, by augmentation; also those of captions that
        were given up and that a changed rule opens again.
        """
        settings = self.settings
        seed = functools.partial(settings.recipes.seed, number)
        opened = {
            aug: tries.by_seed(
                tries.not_accepted(settings.dataset_dir, number, aug) or [],
                functools.partial(seed, aug, self.items[number]),
            )
            for aug in files.opened
        }
        place = settings.dataset_dir, number, lease
        tried = tries.take_over(*place, files.temporary, opened)
        if self._rule is None:
            return tried
        return {aug: self._rule.refused(each) for aug, each in tried.items()}

    @property
    def _rule(self) -> Rule | None:
        """Where what is accepted was changed since the data set was begun."""
        return self.settings.judge.changed if self.settings.judge else None

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
        """The server does not come back: leave prompts without captions to other clients."""
        for index in list(self.work.unasked):
            self.work.forget(index)
        self.work.unasked.clear()
        self.captioner.forget()
