"""The random order: any beginning of a run is a fair sample of the file.

What chi-square asserts here: the prompts that were handed out first hold each source as often as a
draw of so many from the whole file would, within what chance allows (p > 0.001 for each prefix).
"""

import itertools
import random
from collections import Counter

import pytest

from generate.protocol.answers import Grant
from generate.server.storage.blocks import BLOCK, OPEN_BLOCKS, shuffled_places, spread
from tests.fakes.ledger_run import Run

CHI2 = {3: 16.266, 9: 27.877}  # of one draw in 1,000, by degrees of freedom
SHARES = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}


def sources(total, mixed):
    """The source of each index: sorted by source, or mixed as combine.py leaves them."""
    found = [name for name, share in SHARES.items() for _ in range(round(total * share))]
    if mixed:
        random.Random(3).shuffle(found)
    return found


def unfairness(indices, of_index):
    """Chi-square of the sources of these indices, over its critical value."""
    counts = Counter(of_index[index] for index in indices)
    wanted = {name: share * len(indices) for name, share in SHARES.items()}
    statistic = sum((counts[name] - n) ** 2 / n for name, n in wanted.items())
    return statistic / CHI2[len(SHARES) - 1]


def handed_out(run, count):
    """The first `count` indices that clients get, in leases of 7 to 20, some given back."""
    order = []
    draw = random.Random(5)
    while len(order) < count:
        grant = run.lease(size=draw.choice([7, 10, 20]))
        assert isinstance(grant, Grant)
        if draw.random() < 0.05:
            run.release(grant)
            continue
        order += grant.indices
        run.complete(grant, grant.indices)
    return order


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "sorted by source"])
def test_the_first_hundredth_of_a_million_prompts_is_a_fair_sample(tmp_path, mixed):
    run = Run(tmp_path, total=1_000_000, seed=42)
    run.ledger.store.connection.execute("PRAGMA synchronous = OFF")
    of_index = sources(1_000_000, mixed)
    order = handed_out(run, 10_000)
    assert len(set(order)) == len(order)
    for count in (300, 1_000, 3_000, 10_000):
        assert unfairness(order[:count], of_index) < 1, (count, unfairness(order[:count], of_index))
    within = Counter(index % BLOCK // 100 for index in order)
    statistic = sum((n - len(order) / 10) ** 2 / (len(order) / 10) for n in within.values())
    assert statistic < CHI2[9], "a folder gives its first prompts first"
    assert len({index // BLOCK for index in order}) == OPEN_BLOCKS
    assert len({index // BLOCK for index in order[:10]}) > 5, "a lease draws from one folder"


def test_any_prefix_of_a_whole_run_is_fair_and_the_open_folders_are_bounded():
    """The order over a thousand folders, by the same two functions that the ledger calls."""
    blocks = spread(range(1_000), random.Random("42 0"))
    assert sorted(blocks) == list(range(1_000))
    of_index = sources(1_000_000, mixed=True)
    order = []
    for first in range(0, 1_000, OPEN_BLOCKS):  # each batch of open folders gives evenly
        opened = blocks[first : first + OPEN_BLOCKS]
        for place in range(0, BLOCK, 50):
            order += [block * BLOCK + shuffled_places(42, block)[place] for block in opened]
    for count in itertools.accumulate([1.4] * 17, lambda a, b: a * b, initial=50):
        assert unfairness(order[: int(count)], of_index) < 1, int(count)


def test_each_beginning_of_the_blocks_is_spread_over_all_of_them():
    for seed, n in itertools.product(range(20), (1, 2, 7, 64, 1000)):
        order = spread(range(n), random.Random(seed))
        assert sorted(order) == list(range(n))
    for seed in range(20):
        first = sorted(spread(range(1024), random.Random(seed))[:256])
        # a half of an odd number is one more or less: never two blocks away
        gaps = [b - a for a, b in itertools.pairwise(first)]
        assert max(gaps) <= 12 and len(set(gaps)) > 3


def test_the_order_of_the_file_stays_available(tmp_path):
    run = Run(tmp_path, total=3_000, seed=None)
    assert handed_out(run, 1_200)[:1_100] == list(range(1_100))


def test_an_extension_keeps_the_order_that_was_begun(tmp_path):
    run = Run(tmp_path, total=2_500, seed=42)
    table = "SELECT block FROM blocks ORDER BY position"
    before = [block for (block,) in run.ledger.store.all(table)]
    run.define(total=9_000)
    run.check()
    after = [block for (block,) in run.ledger.store.all(table)]
    assert after[: len(before)] == before and sorted(after) == list(range(9))
    run.restart()
    assert [block for (block,) in run.ledger.store.all(table)] == after
    taken = handed_out(run, 800)
    assert {index // BLOCK for index in taken} == set(range(9))
