"""Check the ledger's counts against the rows that they count, and correct wrong ones.

    check_counts(store, by_rows=True)

No count should ever be wrong. If one is, it must not stop a run: it is counted again and logged.
Each count comes from rows of its own, so that their sum remains a check that can fail (guarantee
13).
"""

import logging

from generate.server.storage.blocks import bits_of
from generate.server.storage.store import Store

log = logging.getLogger("image_server")

Counts = dict[str, int]


def check_counts(store: Store, by_rows: bool = False) -> None:
    """Correct wrong counts. by_rows: compare each with its rows, instead of the sum alone."""
    for name in store.names():
        if not (counts_are_right(store, name) if by_rows else sum_is_right(store, name)):
            recount(store, name)


def sum_is_right(store: Store, dataset: str) -> bool:
    """Whether waiting + leased + done + failed = total."""
    return bool(
        store.one(
            "SELECT waiting + leased + done + set_aside = total FROM datasets WHERE name = ?",
            dataset,
        )[0]
    )


def counts_are_right(store: Store, dataset: str) -> bool:
    """Every count by its rows; one scan of the blocks."""
    return sum_is_right(store, dataset) and _stored(store, dataset) == _by_rows(store, dataset)


def recount(store: Store, dataset: str) -> None:
    """Set the counts by done bits, held and troubled indices; log what was wrong."""
    before = _stored(store, dataset)
    wrong = []
    with store.transaction():
        for block, opened in store.all("SELECT block, open FROM blocks WHERE dataset = ?", dataset):
            free = store.open_bits(dataset, [block])[block].bit_count()
            if free != opened:
                wrong.append(block)
                store.add_open(dataset, block, free - opened)
        counts = _by_rows(store, dataset)
        store.add(dataset, **{name: counts[name] - before[name] for name in counts})
    log.warning(
        "%s: the ledger's counts were wrong and were made anew: %s, were %s; blocks: %s",
        dataset,
        counts,
        before,
        wrong[:10],
    )


def _stored(store: Store, dataset: str) -> Counts:
    row = store.one("SELECT waiting, leased, done, set_aside FROM datasets WHERE name = ?", dataset)
    return dict(zip(("waiting", "leased", "done", "set_aside"), row, strict=True))


def _by_rows(store: Store, dataset: str) -> Counts:
    opened = 0
    done = 0
    for open_count, bits in store.all("SELECT open, done FROM blocks WHERE dataset = ?", dataset):
        opened += open_count
        done += bits_of(bits).bit_count()
    troubled = dict(
        store.all("SELECT state, COUNT(*) FROM trouble WHERE dataset = ? GROUP BY state", dataset)
    )
    return {
        "waiting": opened + troubled.get("waiting", 0),
        "leased": store.one("SELECT COUNT(*) FROM held WHERE dataset = ?", dataset)[0],
        "done": done,
        "set_aside": troubled.get("set_aside", 0),
    }
