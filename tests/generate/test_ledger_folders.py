"""What the ledger makes of folders that were replaced or forgotten, and of wrong counts."""

import pytest

from generate.protocol.answers import AllDone, Grant, Wait
from generate.server.folder_check import some_of
from generate.server.ledger.granting import WorkRequest
from generate.server.storage.blocks import OPEN_BLOCKS
from tests.fakes.ledger_run import A, B, C, Run, audit


def test_the_log_names_the_prompts_whose_files_are_missing():
    assert some_of([7]) == "prompt index 7"
    assert some_of(list(range(3, 15))) == "prompt index 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 2 more"


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_reading_begun_before_a_retry_is_outdated(run):
    """The folder was listed, its .failed marks go, and only then the listing arrives.

    It must not make the index done again.
    """
    for client, worker in (("a", A), ("b", B), ("c", C)):
        run.fail(run.lease(client, worker), client, "prompt", canary=True)
        run.generate(run.lease(client, worker), client=client)
    assert run.counts()["set_aside"] == 1
    comparison = run.ledger.comparison
    comparison.check_again("d")
    work = comparison.next_check()
    found = {idx: (n, 0) for idx, n in run.folder.items()} | {0: (0, 0)}
    assert run.ledger.retry_failed("d", [0]) == 1
    assert comparison.folder_checked(*work, found) is None
    assert 0 not in run.done_in(0)
    run.check()
    assert 0 not in run.done_in(0)
    assert not comparison.checks_left()


def test_before_all_done_the_folder_is_compared_after_the_last_prompt(tmp_path):
    """Also where that prompt was done before: the counts are those of the comparison before."""
    run = Run(tmp_path, total=2)
    run.generate(run.lease(size=1))
    run.generate(run.lease(size=1))
    assert isinstance(run.lease(), Wait)
    del run.folder[1]  # seen by the comparison that this has begun
    run.check()
    grant = run.lease()
    assert grant.indices == [1]
    run.generate(grant)
    del run.folder[0]
    assert isinstance(run.lease(), Wait), "not all done: something may have left meanwhile"
    run.check()
    assert run.lease().indices == [0]


def test_a_comparison_grows_old_while_nobody_asks(tmp_path):
    """The last client died while it waited; files went; another one comes hours later."""
    run = Run(tmp_path, total=2)
    run.generate(run.lease(size=1))
    run.generate(run.lease(size=1))
    assert isinstance(run.lease(), Wait)
    run.check()
    del run.folder[1]
    run.now += 3600
    assert isinstance(run.lease(), Wait), "not all done: something may have left meanwhile"
    run.check()
    assert run.lease().indices == [1]


def test_two_data_sets_folders_are_compared_in_turn(tmp_path):
    run = Run(tmp_path, total=400_000)
    comparison = run.ledger.comparison
    run.define(name="other", total=1000)
    comparison.check_again("d")
    names = [comparison.next_check() for _ in range(2)]
    for _ in range(OPEN_BLOCKS + 10):
        name, block = comparison.next_check()
        comparison.folder_checked(name, block, {})
    assert names[0][0] == "d"
    assert comparison.is_complete("other"), (
        "the large one keeps the small one waiting for its open folders only"
    )


def test_an_extension_goes_on_from_where_the_ledger_is(run):
    run.define(dataset_id="one")
    grant = run.lease(size=5)
    run.define(dataset_id="one", total=110)
    assert run.heartbeat("a", [grant.lease]).stale == []
    assert run.ledger.store.definition("d")["total"] == 110


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset_id": "two"},
        {"dataset_id": "two", "total": 2000},
        {"dataset_id": "one", "total": 40},
        {"dataset_id": "two", "images_per_prompt": 3, "model": "another"},
    ],
    ids=["another folder", "another, larger", "less prompts", "another model"],
)
def test_a_folder_that_was_replaced_is_begun_anew(run, caplog, changes):
    """Deleted and made again, or restored from a backup: its leases are void, the folder counts."""
    run.define(dataset_id="one")
    run.generate(run.lease(size=10))
    grant = run.lease(size=5)
    run.fail(run.lease("b", B), "b")
    run.folder = {3: 3}
    run.define(**changes)
    assert "another one" in caplog.text
    assert isinstance(run.lease("c", C), Wait), "nothing is granted before the folder was compared"
    run.check()
    assert run.done_in(0) == {3}
    assert run.counts()["total"] == changes.get("total", 100)
    audit(run.ledger, "d")
    assert run.heartbeat("a", [grant.lease]).stale == [grant.lease]
    assert set(run.complete(grant, grant.indices).values()) == {"stale"}
    assert run.ledger.store.definition("d")["model"] == changes.get("model", "m")
    version = run.ledger.store.version("d")
    run.define(**changes)
    assert run.ledger.store.version("d") == version, "the same folder again changes nothing"


def test_a_probes_lease_in_a_replaced_folder_leaves_its_worker_a_probe(run):
    run.quarantine()
    run.passes(601, {"b": [run.succeeds.lease]})
    assert run.lease("a", A).canary
    run.define(dataset_id="two", total=50)
    run.check()
    run.passes(601)
    assert isinstance(run.lease("a", A), Grant)


def test_a_smaller_folder_and_the_right_one_again(run):
    """dataset.yaml was edited, a server started, and the right file was restored."""
    run.generate(run.lease(size=10))
    run.define(total=20)
    run.restart()
    assert run.done_in(0) == set(range(10))
    run.define()
    run.check()
    assert run.counts()["total"] == 100 and run.counts()["done"] == 10
    audit(run.ledger, "d")


def test_a_forgotten_data_set_leaves_nothing(run):
    run.define(name="other", total=30)
    run.check()
    grant = run.ledger.lease(run.now, WorkRequest("other", "a", "r", A, 5))
    run.ledger.forget(run.now, "other")
    assert run.ledger.store.names() == ["d"]
    assert run.heartbeat("a", [grant.lease]).stale == [grant.lease]
    assert set(run.complete(grant, grant.indices).values()) == {"stale"}
    assert run.ledger.comparison.next_check() is None
    for table in ("blocks", "held", "leases", "trouble", "blames", "given_back"):
        query = f"SELECT COUNT(*) FROM {table} WHERE dataset = 'other'"
        assert run.ledger.store.one(query) == (0,)
    run.restart()
    assert run.ledger.store.names() == ["d"]


WRONG = {
    "waiting": "UPDATE datasets SET waiting = waiting + ?",
    "leased": "UPDATE datasets SET leased = leased + ?",
    "done": "UPDATE datasets SET done = done + ?",
    "failed": "UPDATE datasets SET set_aside = set_aside + ?",
    "open": "UPDATE blocks SET open = open + ?",
}


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize("count", WRONG)
@pytest.mark.parametrize("moment", ["start", "minute", "grant"])
def test_a_count_that_is_off_by_one_is_made_right(run, caplog, moment, count, by):
    """It stops nobody, and it is logged."""
    run.generate(run.lease(size=5))
    run.lease("b", B, 3)
    run.ledger.store.run(WRONG[count], by)
    with pytest.raises(AssertionError):
        audit(run.ledger, "d")
    if moment == "start":
        run.restart()
    elif moment == "minute":
        run.passes(62)
    assert run.lease("c", C).indices == [8]
    if moment == "grant" and count != "open":
        run.passes(62)
    audit(run.ledger, "d")
    assert "counts were wrong" in caplog.text


@pytest.mark.parametrize("count", WRONG)
def test_a_wrong_count_never_makes_all_done(tmp_path, count):
    """One prompt is left, and a count says that none is."""
    run = Run(tmp_path, total=10)
    for _ in range(9):
        run.generate(run.lease())
    run.ledger.store.run(WRONG[count], -1)
    for _ in range(5):
        answer = run.lease("b", B)
        assert not isinstance(answer, AllDone)
        if isinstance(answer, Grant):
            break
        run.check()
    assert answer.indices == [9]
    run.generate(answer, client="b")
    while not isinstance(run.lease("b", B), AllDone):
        run.passes(61)
        run.check()
    audit(run.ledger, "d")
