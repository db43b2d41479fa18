"""dhash in a run: each image is compared with those of its prompt that were accepted before it.

    order = InOrder(dataset_dir, work.changed)
    order.put(candidate, values)    # it waits for those of lower number
    order.take()                    # [Waiting]: those to be compared now
    order.dhash(waiting)            # in how many bits it differs from the nearest; OSError
    order.put_back(waiting)         # it is not its turn, and it may be accepted yet
    order.ready, order.blocked      # how many could be taken now, how many could not

An image is judged when each caption of a lower number has ended: its image is published, or it was
given up, or it failed. It is compared with all images of its prompt that are published by then, as
they lie in the folder. So neither batches nor deaths nor who draws change what is accepted: a
prompt's images come into the folder in the order of their numbers, and whoever takes it over goes
on after the last. One that is too near to a published image is refused before its turn, as more
images cannot make it less near: so all near copies of a prompt are drawn anew together.
"""

import logging
import threading
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

from common.packed_folder import read_file
from common.scores.interface import Values
from common.untrusted import IMAGE_BYTES, Refused, open_jpeg
from generate.client.candidate import Candidate
from generate.client.work import Index
from generate.dataset.accept_rule import BITS
from generate.dataset.layout import path_of

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Waiting:
    """An image, its values but for the dhash, and its fingerprint."""

    candidate: Candidate
    values: Values
    print: int
    in_turn: bool = False  # no caption of lower number is open
    open_captions: int = 0  # of its prompt, when it was taken last; then new ones may be published
    compared: int = 0  # with so many published images
    nearest: float = BITS  # of those

    @property
    def index(self) -> Index:
        return self.candidate.sample.index


class InOrder:
    """One thread puts and takes. changed: notified when an image of lower number has ended, too."""

    def __init__(self, dataset_dir: Path, changed: threading.Condition) -> None:
        self.dataset_dir = dataset_dir
        self.changed = changed
        self._waiting: dict[Index, dict[int, Waiting]] = {}
        # prompt -> caption -> fingerprint of its published image; None: it cannot be read
        self._prints: weakref.WeakKeyDictionary[Index, dict[int, int | None]]
        self._prints = weakref.WeakKeyDictionary()

    def put(self, candidate: Candidate, values: Values) -> None:
        """Its pixels are needed no more: thousands may wait."""
        from common.scores.dhash import fingerprint  # numpy takes 0.1 s: for this score alone

        mine = fingerprint(candidate.pixels)
        self.put_back(Waiting(replace(candidate, pixels=None), values, mine))

    def put_back(self, waiting: Waiting) -> None:
        """To be taken again when another caption of its prompt has ended."""
        aug = waiting.candidate.sample.aug
        assert aug is not None, "the canary prompt is not judged"
        with self.changed:
            self._waiting.setdefault(waiting.index, {})[aug] = waiting
            self.changed.notify_all()

    @property
    def ready(self) -> int:
        """How many take() would return; those of a prompt that is over are among them."""
        with self.changed:
            return sum(len(self._next(index)) for index in self._waiting)

    @property
    def blocked(self) -> int:
        """How many wait until a caption of their prompt has ended."""
        with self.changed:
            return sum(map(len, self._waiting.values())) - self.ready

    def take(self) -> list[Waiting]:
        """All that is ready."""
        with self.changed:
            taken = []
            for index in list(self._waiting):
                for aug in self._next(index):
                    waiting = self._waiting[index].pop(aug)
                    waiting.in_turn = aug == min(index.todo, default=None)
                    waiting.open_captions = len(index.todo)
                    taken.append(waiting)
                if not self._waiting[index]:
                    del self._waiting[index]
            return taken

    def _next(self, index: Index) -> list[int]:
        first = min(index.todo, default=None)
        return [
            aug
            for aug, waiting in self._waiting[index].items()
            if index.over or aug == first or waiting.open_captions != len(index.todo)
        ]

    def dhash(self, waiting: Waiting) -> float:
        """To be called before its own image is published. OSError: the disk."""
        from common.scores.dhash import nearest

        index = waiting.index
        prints = self._prints.setdefault(index, {})
        for aug in self._published(index) - prints.keys():
            prints[aug] = self._read(index.number, aug)
        fresh = [each for each in list(prints.values())[waiting.compared :] if each is not None]
        waiting.nearest = min(waiting.nearest, nearest(waiting.print, fresh))
        waiting.compared = len(prints)
        return waiting.nearest

    def _published(self, index: Index) -> set[int]:
        """The captions of a prompt whose images lie in the folder."""
        assert index.record is not None, "an index without captions has no image"
        with self.changed:
            given_up = (index.given_up | index.files.failed) - index.files.images
            open_or_gone = index.todo | given_up | index.failures.keys()
            return set(range(len(index.record["texts"]))) - open_or_gone

    def _read(self, index: int, aug: int) -> int | None:
        from numpy import asarray

        from common.scores.dhash import fingerprint

        path = path_of(self.dataset_dir, index, aug, ".jpg")
        try:
            data = read_file(path, IMAGE_BYTES)
        except (FileNotFoundError, Refused) as error:
            log.warning("no image is compared with %s, which cannot be read: %s", path, error)
            return None
        try:
            return fingerprint(asarray(open_jpeg(data).convert("RGB")))
        except Exception as error:  # whatever a damaged image makes Pillow raise
            log.warning("no image is compared with %s, which is broken: %s", path, error)
            return None
