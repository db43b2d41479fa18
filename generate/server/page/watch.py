"""Threads behind the status page: one makes the document, one looks into the folders.

watch = Watch(run)                 # run: status.Run, the server
watch.start()
watch.read(Pages())                # the document of the last look

The first thread makes a document every two seconds, and all polls read it, so that a hundred open
pages cost the ledger as much as one. Only further pages of the two long tables ask the ledger
again, with one bounded query. The second thread is separate, so that the page can report a file
system that hangs.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from generate.protocol.output_root import server_folder
from generate.server.ledger.ledger import Ledger
from generate.server.page.folder_extras import FolderExtras
from generate.server.page.health import ledger_silent
from generate.server.page.history import RunHistory
from generate.server.page.newest import (
    NEWEST,
    Candidate,
    add_prompts,
    caption_of,
    from_folders,
    newest_images,
    rejected_address,
)
from generate.server.page.status import Pages, Run, StatusDocument

EVERY_S = 2.0
NEWEST_EVERY_S = 6.0  # more often, many GPUs would change all pictures before one looked at them
FIRST_PAUSE_S = 0.2  # the first images show as soon as there is a first document
FIRST_DOCUMENT_S = 10  # how long a poll waits for it
STALE_S = 30  # a ledger that has not answered for this long hangs on its disk
Json = dict[str, Any]
Key = tuple[str, int, int, str]  # data set, index, augmentation, seed
log = logging.getLogger("image_server")


def key_of(row: Json) -> Key:
    return row["dataset"], row["index"], row["aug"], row["seed"]


class Watch:
    """The newest document, made by threads of its own."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.history = RunHistory(server_folder(run.output_root) / "history.json")
        self.notice: list[str] = []
        self.document: Json | None = None
        self.made_at = time.monotonic()
        self.newest: list[Json] = []
        self.candidates: list[Candidate] = []
        self.earlier: list[Candidate] = []  # finished before this server started
        self.extras = FolderExtras(run.output_root)
        self.rejected: dict[Key, Json] = {}  # prompt and image of those rejected lately
        self._first = threading.Event()
        self._later: dict[Pages, tuple[float, Json]] = {}  # pages -> (when made, document)
        self._paging = threading.Lock()

    def start(self) -> None:
        for step, pause_s in ((self.look, EVERY_S), (self.look_into_folders, NEWEST_EVERY_S)):
            threading.Thread(target=self._repeat, args=(step, pause_s), daemon=True).start()

    def _repeat(self, step: Callable[[], None], pause_s: float) -> None:
        """Call `look` again and again; an error of one call is logged."""
        logged = ""
        while True:
            try:
                step()
                logged = ""
            except Exception as error:
                if str(error) != logged:
                    log.warning("status page: %s: %s", type(error).__name__, error)
                    logged = str(error)
            time.sleep(pause_s if self.document else FIRST_PAUSE_S)

    def look(self) -> None:
        """Make the document, and note the images of the run's life."""
        self.notice = self.run.notice()  # before the lock is taken: it may ask the ledger too
        document, self.candidates = self.run.read(self._look)
        self.history.save(time.monotonic())
        self._add_from_folders(document)
        self.document = document
        self.made_at = time.monotonic()
        self._first.set()

    def _look(self, ledger: Ledger, now: float) -> tuple[Json, list[Candidate]]:
        queries = ledger.queries
        counts = {name: queries.counts(name) for name in queries.names()}
        running = [worker for worker in queries.workers(now) if worker["dataset"]]
        active = {name for name, count in counts.items() if count["leased"]}
        images = {name: count["images"] for name, count in counts.items()}
        self.history.observe(now, time.time(), images, running, active)
        candidates = [
            (worker["dataset"], index)
            for worker in running[: 2 * NEWEST]
            for index in list(worker["drawing"] or ())[:1]
        ]
        for name in counts:
            candidates += [(name, index) for index, _ in queries.recent(name, NEWEST)]
        document = StatusDocument(self.run, self.history, self.notice).make(ledger, now)
        return document, candidates

    def look_into_folders(self) -> None:
        """For the newest images, the texts of rejected ones, packed folders and reports."""
        root = self.run.output_root
        wanted = list(self.candidates)
        if not wanted and self.document:  # after a restart: once, as nothing changes
            names = [counts["name"] for counts in self.document["datasets"]]
            self.earlier = self.earlier or from_folders(root, names)
            wanted = self.earlier
        self.newest = newest_images(root, wanted)
        if document := self.document:
            rows = document["rejected_lately"]
            self.rejected = {key_of(row): self._of_rejected(row) for row in rows}
            self.extras.look((counts["name"], counts["total"]) for counts in document["datasets"])

    def _of_rejected(self, row: Json) -> Json:
        """What the folders hold of an image that was not accepted; looked for until it is there."""
        known = self.rejected.get(key_of(row), {})
        root = self.run.output_root
        prompt = known.get("prompt") or caption_of(root, row["dataset"], row["index"], row["aug"])
        return {"prompt": prompt, "image": known.get("image") or rejected_address(root, row)}

    def _add_from_folders(self, document: Json) -> None:
        add_prompts(self.run.output_root, document["set_aside"]["rows"])
        document["newest"] = self.newest
        for row in document["rejected_lately"]:
            row |= self.rejected.get(key_of(row), {})
        for counts in document["datasets"]:
            counts |= self.extras.of(counts["name"])

    def read(self, pages: Pages) -> Json | None:
        """The document of the last look; other pages of the long tables are asked for anew.

        None: the ledger has not answered yet.
        """
        self._first.wait(FIRST_DOCUMENT_S)
        document = self.document
        if document is None:
            return None
        if pages != Pages():
            document = self._later_pages(pages)
        silent_s = time.monotonic() - self.made_at
        if silent_s > STALE_S:
            halted = ledger_silent(silent_s, self.run.output_root, document["time"])
            return document | {"weather": halted}
        return document

    def _later_pages(self, pages: Pages) -> Json:
        # one at a time, and the same document to all who ask within EVERY_S: the leases have the
        # ledger to themselves meanwhile
        with self._paging:
            now = time.monotonic()
            self._later = {
                key: kept for key, kept in self._later.items() if now - kept[0] <= EVERY_S
            }
            if pages not in self._later:
                maker = StatusDocument(self.run, self.history, self.notice, pages)
                document = self.run.read(maker.make)
                self._add_from_folders(document)
                self._later[pages] = (time.monotonic(), document)
            return self._later[pages][1]
