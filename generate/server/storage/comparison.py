"""The record of which blocks were compared with the folders since this start; the folder wins.

    while work := comparison.next_check():           # (data set, block)
        comparison.folder_checked(*work, found)      # {index: (images, short)} of its folder

Every start compares all blocks once before it grants from them (guarantee 3), and all of them
again before it says that all is done (guarantee 12). Kept in memory is only which blocks were
compared since this start. folder_check.py lists the folders.
"""

from collections.abc import Container, Iterable

from generate.server.storage.blocks import (
    OPEN_BLOCKS,
    Figures,
    blob_of,
    block_of,
    blocks_of,
    first_of,
    sums_of,
)
from generate.server.storage.store import Store

Block = tuple[str, int]  # data set, number


class FolderComparison:
    """Compared blocks, one byte each; under the ledger's lock."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # data set -> one byte a block: compared with the folder since this start
        self.compared: dict[str, bytearray] = {}
        # (data set, block) whose folder is being read -> indices accepted meanwhile
        self.reading: dict[tuple[str, int], set[int]] = {}
        for name in store.names():
            self.begin(name)

    def begin(self, dataset: str) -> None:
        """Compare every block again. A reading under way is void: it used an older count."""
        self.forget(dataset)
        total = self.store.one("SELECT total FROM datasets WHERE name = ?", dataset)[0]
        self.compared[dataset] = bytearray(blocks_of(total))

    def forget(self, dataset: str) -> None:
        self.compared.pop(dataset, None)
        self.reading = {key: value for key, value in self.reading.items() if key[0] != dataset}

    def check_again(self, dataset: str) -> None:
        """Every block is to be compared anew, before "all done" is answered."""
        self.compared[dataset] = bytearray(len(self.compared[dataset]))

    def compare_again(self, blocks: Iterable[Block]) -> None:
        """These are to be compared anew: their folders were moved. A reading of them is void."""
        for dataset, block in blocks:
            self.reading.pop((dataset, block), None)
            if block < len(self.compared.get(dataset, b"")):
                self.compared[dataset][block] = 0

    def is_complete(self, dataset: str) -> bool:
        """Whether all blocks of a data set were compared; one that was forgotten has none."""
        return self.compared.get(dataset, b"").find(0) < 0

    def is_compared(self, dataset: str, block: int) -> bool:
        return bool(self.compared[dataset][block])

    def checks_left(self) -> int:
        return sum(compared.count(0) for compared in self.compared.values())

    def next_check(
        self, away: Container[str] = (), put_off: Container[Block] = ()
    ) -> tuple[str, int] | None:
        """(data set, block) to be compared next; None: all were. Begins that check.

        away: data sets whose folder is not there; put_off: blocks that could not be read just now.
        """
        for next_of in (self._next_open, self._next_any):
            for dataset in self.compared:
                block = None if dataset in away else next_of(dataset, put_off)
                if block is not None:
                    self.reading[dataset, block] = set()
                    return dataset, block
        return None

    def _next_open(self, dataset: str, put_off: Container[Block]) -> int | None:
        """The first block not yet compared among those from which work is granted now."""
        if self.is_complete(dataset):
            return None
        rows = self.store.all(
            "SELECT block FROM blocks WHERE dataset = ? AND open > 0 ORDER BY position LIMIT ?",
            dataset,
            OPEN_BLOCKS,
        )
        blocks = (block for (block,) in rows if not self.is_compared(dataset, block))
        return next((block for block in blocks if (dataset, block) not in put_off), None)

    def _next_any(self, dataset: str, put_off: Container[Block]) -> int | None:
        block = self.compared[dataset].find(0)
        while (dataset, block) in put_off:
            block = self.compared[dataset].find(0, block + 1)
        return None if block < 0 else block

    def accepted(self, dataset: str, indices: set[int]) -> None:
        """Note indices completed just now: a reading under way may have missed their files."""
        for idx in indices:
            self.reading.get((dataset, block_of(idx)), set()).add(idx)

    def outdate(self, dataset: str, indices: list[int]) -> None:
        """Void the readings under way of these indices' folders: their files are being removed."""
        for block in {block_of(idx) for idx in indices}:
            self.reading.pop((dataset, block), None)

    def folder_checked(self, dataset: str, block: int, found: Figures) -> tuple[int, int] | None:
        """Take over what the folder of a block holds: figures of its done indices.

        Returns (reopened, newly done). What was accepted since next_check() began stays done; a
        leased index stays leased; one that failed permanently is done only with all its images,
        since its .failed marks are this ledger's own. None: the reading was outdated meanwhile (an
        extension, a retry), nothing was taken over, and next_check() will name the block again.
        """
        accepted = self.reading.pop((dataset, block), None)
        if accepted is None:
            return None
        before = self.store.done_in(dataset, block)
        newly = self._newly_done(dataset, block, found, before)
        lost = before - found.keys() - accepted
        known = newly if accepted else (before | newly) & found.keys()
        sums = sums_of(found[idx] for idx in known)
        row = self.store.one(
            "SELECT images, short, short_images FROM blocks WHERE dataset = ? AND block = ?",
            dataset,
            block,
        )
        old = dict(zip(sums, row, strict=True))
        if accepted:  # their own figures are in the old sums
            sums = {name: old[name] + sums[name] for name in sums}
        if lost or newly or sums != old:
            with self.store.transaction():
                for idx in newly & self.store.trouble_in(dataset, block).keys():
                    self.store.clear(dataset, idx)
                bits = sum(1 << idx - first_of(block) for idx in (before | newly) - lost)
                self.store.run(
                    "UPDATE blocks SET done = ?, open = open + ?, images = ?, short = ?,"
                    " short_images = ? WHERE dataset = ? AND block = ?",
                    blob_of(bits),
                    len(lost) - len(newly),
                    *sums.values(),
                    dataset,
                    block,
                )
                changes = {name: sums[name] - old[name] for name in sums}
                more = len(newly) - len(lost)
                self.store.add(dataset, done=more, waiting=-more, **changes)
        self.compared[dataset][block] = 1
        return len(lost), len(newly)

    def _newly_done(self, dataset: str, block: int, found: Figures, before: set[int]) -> set[int]:
        per = self.store.definition(dataset)["images_per_prompt"]
        trouble = self.store.trouble_in(dataset, block)
        return {
            idx
            for idx in found.keys() - before - self.store.held_in(dataset, block)
            if trouble.get(idx) != "set_aside" or sum(found[idx]) >= per
        }
