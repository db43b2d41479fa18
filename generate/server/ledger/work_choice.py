"""Choose the indices of a lease: a suspect alone, or fresh ones from all over the file.

chosen = WorkChoice(store, comparison, blame, live).choose(now, "HPDv2", key, size=10)
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from generate.server.ledger.blame import Blame
from generate.server.ledger.live_leases import LiveLeases
from generate.server.storage.blocks import OPEN_BLOCKS, block_of, first_of, numbers, shuffled_places
from generate.server.storage.comparison import FolderComparison
from generate.server.storage.recount import recount
from generate.server.storage.store import Store

LOOK_AGAIN = 32  # leases
NEXT_SUSPECTS = 20  # looked at for one that this worker has not failed


@dataclass(frozen=True)
class Chosen:
    """The indices of a new lease."""

    indices: list[int]
    suspect: bool = False  # to be generated beside a canary prompt


class WorkChoice:
    """Chooses among the indices that wait."""

    def __init__(
        self, store: Store, comparison: FolderComparison, blame: Blame, live: LiveLeases
    ) -> None:
        self.store = store
        self.comparison = comparison
        self.blame = blame
        self.live = live
        self.turns: dict[str, int] = {}  # data set: position of the block that gave last
        # data set: as of _window(), and leases since it was counted
        self.windows: dict[str, tuple[int, int, int]] = {}

    def size(self, now: float, dataset: str, asked: int) -> int:
        """At most half of a fair share of what waits.

        So the last leases hold one index each, and no slow worker holds all that is left.
        """
        clients = len(self.live.active(now, dataset))
        waiting: int = self.store.one("SELECT waiting FROM datasets WHERE name = ?", dataset)[0]
        return max(1, min(asked, waiting // (2 * max(1, clients))))

    def choose(self, now: float, dataset: str, key: str, size: int) -> Chosen:
        """A suspect if there is one that this worker has not failed; else fresh indices.

        Else a suspect that it has failed, if no other worker is there to judge it. key: the
        worker's. Only blocks that were compared with the folder count.
        """
        suspects = self._suspects(dataset)
        failed = [idx for idx in suspects if self.blame.has_failed(key, dataset, idx)]
        for idx in suspects:
            if idx not in failed:
                return Chosen([idx], suspect=True)
        indices = self._fresh(dataset, size)
        if not indices and failed:
            others = self.live.active_workers(now, dataset) - {key}
            if all(self.blame.quarantined_until(other) is not None for other in others):
                return Chosen([failed[0]], suspect=True)
        if not indices and not suspects and self.comparison.is_complete(dataset):
            self._check_idle(dataset)
        return Chosen(indices)

    def _check_idle(self, dataset: str) -> None:
        """If work waits, none can be chosen and none is leased, a count is wrong: recount."""
        if not self.store.one("SELECT leased FROM datasets WHERE name = ?", dataset)[0]:
            recount(self.store, dataset)

    def _suspects(self, dataset: str) -> list[int]:
        rows = self.store.all(
            "SELECT idx FROM trouble WHERE dataset = ? AND state = 'waiting' ORDER BY idx LIMIT ?",
            dataset,
            NEXT_SUSPECTS,
        )
        return [idx for (idx,) in rows if self.comparison.is_compared(dataset, block_of(idx))]

    def _fresh(self, dataset: str, size: int) -> list[int]:
        """The next free indices of the open blocks: each gives its share, in turns.

        In the file's order the first one gives all it has, and what it lacks comes from the next.
        """
        seed = self.store.definition(dataset).get("order_seed")
        blocks, count = self._open_blocks(dataset, seed, size)
        free = self.store.open_bits(dataset, [block for block, _, _ in blocks])
        if any(free[block].bit_count() != opened for block, opened, _ in blocks):
            recount(self.store, dataset)
            blocks, count = self._open_blocks(dataset, seed, size)
            free = self.store.open_bits(dataset, [block for block, _, _ in blocks])
        indices: list[int] = []
        for n, (block, _, position) in enumerate(blocks):
            rest = size - len(indices)
            share = rest if seed is None else -(-rest // (count - n))
            indices += itertools.islice(_in_order(seed, block, free[block]), share)
            self.turns[dataset] = position
            if len(indices) == size:
                break
        return indices

    def _open_blocks(
        self, dataset: str, seed: int | None, size: int
    ) -> tuple[list[tuple[int, int, int]], int]:
        """([(block, open indices, position)] for `size` indices, how many are drawn from in turns).

        Of a random order those come first that follow the one that gave last.
        """
        count, last = self._window(dataset)
        turn = -1 if seed is None else min(self.turns.get(dataset, -1), last)
        # while the folders are being compared any of them may be left out
        limit = size if self.comparison.is_complete(dataset) else OPEN_BLOCKS
        rows: list[tuple[int, int, int]] = []
        for after, until in ((turn, last), (-1, turn)):
            rows += self.store.all(
                "SELECT block, open, position FROM blocks WHERE dataset = ? AND open > 0"
                " AND position > ? AND position <= ? ORDER BY position LIMIT ?",
                dataset,
                after,
                until,
                limit - len(rows),
            )
        if len(rows) < limit:
            self.windows.pop(dataset, None)  # few are left: they are counted at each lease
        blocks = [row for row in rows if self.comparison.is_compared(dataset, row[0])]
        return blocks[:size], count - len(rows) + len(blocks)

    def _window(self, dataset: str) -> tuple[int, int]:
        """(how many blocks are drawn from in turns, position of the last).

        To count them takes a tenth of a lease. A full window is counted at every LOOK_AGAIN-th: one
        block less is no harm.
        """
        count, last, leases = self.windows.get(dataset, (0, -1, LOOK_AGAIN))
        if count < OPEN_BLOCKS or leases >= LOOK_AGAIN:
            leases = 0
            count, last = self.store.one(
                "SELECT COUNT(*), COALESCE(MAX(position), -1) FROM (SELECT position FROM blocks"
                " WHERE dataset = ? AND open > 0 ORDER BY position LIMIT ?)",
                dataset,
                OPEN_BLOCKS,
            )
        self.windows[dataset] = count, last, leases + 1
        return count, last


def _in_order(seed: int | None, block: int, bits: int) -> Iterator[int]:
    """The indices of a block's one bits, in the order in which they are handed out."""
    places = numbers(bits)
    if seed is not None:
        places = (place for place in shuffled_places(seed, block) if bits >> place & 1)
    return (first_of(block) + place for place in places)
