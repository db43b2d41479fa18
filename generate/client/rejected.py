"""Images that are not accepted: some are kept, and heartbeats report the newest.

    rejected = Rejected(settings)
    rejected.keep(candidate, values)         # with --keep_rejected, before its seed is noted
    rejected.note(index.number, aug, tried)
    rejected.told            # [{"number", "index", "aug", "attempt", "seed", "scores"}, …]

number: how many this client had rejected by then, so that the server knows which ones are new.
"""

import logging
from typing import Any

from common.scores.interface import Values
from generate.client.candidate import Candidate
from generate.client.work import ClientSettings
from generate.dataset.disk import PASSING
from generate.dataset.rejected_images import RejectedImages
from generate.dataset.tries import Tried

log = logging.getLogger(__name__)

TOLD = 4  # in a heartbeat, every 15 s: a look at them, not an account


class Rejected:
    """One thread keeps and notes, others read."""

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self.count = 0
        self.in_the_way: set[str] = set()  # what was said
        self.told: list[dict[str, Any]] = []

    def keep(self, candidate: Candidate, values: Values) -> None:
        """Before its seed is noted, or a kill in between would lose it. OSError of the disk.

        Where something else has the name of its folder, or another user owns it, it is not kept: it
        is only to look at.
        """
        sample, settings = candidate.sample, self.settings
        if settings.judge and settings.judge.keep:
            metadata = candidate.metadata | {"scores": values} | settings.judge.facts()
            kept = RejectedImages(settings.dataset_dir, settings.judge.keep)
            try:
                kept.keep(candidate.jpeg, metadata, sample.attempt, sample.index.lease)
            except OSError as error:
                if error.errno in PASSING:
                    raise
                if error.strerror not in self.in_the_way:
                    log.warning(
                        "rejected images are not kept: %s: %s; move it to another folder, or make "
                        "it yours",
                        error.filename,
                        error.strerror,
                    )
                self.in_the_way.add(str(error.strerror))

    def note(self, index: int, aug: int, tried: Tried) -> None:
        self.count += 1
        what = {"index": index, "aug": aug, "attempt": tried.attempt, "seed": tried.seed}
        entry = {"number": self.count, **what, "scores": tried.scores}
        self.told = [*self.told, entry][-TOLD:]
