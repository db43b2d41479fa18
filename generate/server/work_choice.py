"""Which indices a worker gets next: a suspect alone, or the next free ones in the seeded order.

chosen = WorkChoice(store, comparison, blame, live).choose(now, "HPDv2", key, size=10)
"""

import itertools
from dataclasses import dataclass

from generate.server.blame import Blame
from generate.server.blocks import block_of, first_of, numbers
from generate.server.comparison import NEXT_BLOCKS, FolderComparison
from generate.server.live_leases import LiveLeases
from generate.server.recount import recount
from generate.server.store import Store

NEXT_SUSPECTS = 20  # looked at for one that this worker has not failed


@dataclass(frozen=True)
class Chosen:
    indices: list[int]
    suspect: bool = False  # to be generated beside a canary prompt


class WorkChoice:
    def __init__(
        self, store: Store, comparison: FolderComparison, blame: Blame, live: LiveLeases
    ) -> None:
        self.store = store
        self.comparison = comparison
        self.blame = blame
        self.live = live

    def size(self, now: float, dataset: str, asked: int) -> int:
        """At most half of a fair share of what waits.

        So the last leases hold one index each, and no straggler holds the rest.
        """
        clients = len(self.live.active(now, dataset))
        waiting: int = self.store.one("SELECT waiting FROM datasets WHERE name = ?", dataset)[0]
        return max(1, min(asked, waiting // (2 * max(1, clients))))

    def choose(self, now: float, dataset: str, key: str, size: int) -> Chosen:
        """A suspect if there is one that this worker has not failed; else fresh indices.

        Else a suspect that it has failed, if no other worker is there to judge it. key: the
        worker's. Only blocks that were compared with the folder count, in their stored order.
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
        """Work waits and none can be chosen: if nobody holds any either, a count is wrong."""
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
        indices: list[int] = []
        for block, opened in self.store.all(
            "SELECT block, open FROM blocks WHERE dataset = ? AND open > 0"
            " ORDER BY position LIMIT ?",
            dataset,
            NEXT_BLOCKS,
        ):
            if len(indices) == size:
                break
            if self.comparison.is_compared(dataset, block):
                bits = self.store.open_bits(dataset, block)
                if bits.bit_count() != opened:
                    recount(self.store, dataset)
                places = itertools.islice(numbers(bits), size - len(indices))
                indices += [first_of(block) + place for place in places]
        return indices
