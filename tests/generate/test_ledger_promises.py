"""The job server's promises at the ledger, one or more tests each, named for it; tests/mutants/run.py shows that each can fail.

Promises 9 to 11, about whose fault a failure is: test_ledger_blame.py.
"""

import sqlite3

import pytest

from generate.llms.budget import Accounts
from generate.protocol.answers import AllDone, Grant, Wait, WorkLeft
from generate.server import ledger as ledger_module
from generate.server.ledger import Ledger
from generate.server.store import DefinitionDiffers, bits_of
from tests.fakes.ledger_run import A, B, C, Run


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_promise_01_durable_before_the_reply(run):
    assert (
        run.ledger.one("PRAGMA synchronous")[0] == 2
        and run.ledger.one("PRAGMA journal_mode")[0] == "delete"
    )
    grant = run.lease(size=4)
    run.draw(grant, grant.indices[:1])
    run.fail(grant, idx=grant.indices[1])
    assert not run.ledger.connection.in_transaction
    run.ledger.connection.close()
    with sqlite3.connect(run.path) as reader:
        assert reader.execute("SELECT idx FROM held ORDER BY idx").fetchall() == [(2,), (3,)]
        assert bits_of(reader.execute("SELECT done FROM blocks").fetchone()[0]) == 1


def test_promise_02_first_completion_stands_and_names_are_looked_at(run):
    first = run.lease(size=2)
    assert run.ledger.complete(
        run.now, "a", "x", first.lease, [{"index": 0, "images": 1}], {0: False}
    ) == {0: "missing"}
    assert run.draw(first, [0]) == {0: "accepted"}
    run.passes(200)
    second = run.lease("b", B, 2)
    assert 0 not in second.indices and 1 in second.indices
    assert run.draw(first, [0, 1]) == {0: "already_done", 1: "stale"}
    assert run.counts()["done"] == 1


def test_promise_02_extension_reopens_what_is_missing(run):
    grant = run.lease(size=10)
    run.draw(grant)
    run.folder[3], run.per = 2, 2
    with pytest.raises(DefinitionDiffers, match="model"):
        run.ledger.define(run.now, {**run.definition, "images_per_prompt": 2, "model": "other"})
    assert run.ledger.define(run.now, {**run.definition, "images_per_prompt": 2}) == 2
    assert isinstance(run.lease(size=5), Wait), (
        "nothing is granted before the folder was compared by the new count"
    )
    run.check()
    assert run.ledger.done_in("d", 0) == {3} and run.counts()["images"] == 2
    assert (
        run.ledger.define(
            run.now,
            {**run.definition, "images_per_prompt": 2, "total": 2500, "prompts_sha256": "1"},
        )
        == 3
    )
    run.check()
    assert run.counts()["waiting"] == 2499
    with pytest.raises(DefinitionDiffers, match="images_per_prompt|total"):
        run.ledger.define(run.now, run.definition)


def test_promise_03_one_lease_an_index_and_names_that_never_repeat(run):
    grants = [run.lease(f"c{n}", A, 10) for n in range(4)]
    assert len({idx for grant in grants for idx in grant.indices}) == sum(
        len(grant.indices) for grant in grants
    )
    copy = run.path.read_bytes()
    later = run.lease("late", A, 10)
    run.ledger.note_changes()
    run.ledger.connection.close()
    run.path.write_bytes(copy)
    run.epoch += 1
    run.ledger = Ledger(run.path, run.epoch, run.now, run.options)
    run.check()
    assert run.ledger.rebuilt and run.ledger.lost == "rolled back"
    assert run.lease("new").lease not in {grant.lease for grant in [*grants, later]}
    assert run.ledger.beat(run.now, "late", [later.lease], "drawing").stale == [later.lease]
    assert run.fail(later, "late").stale and not run.ledger.release(
        run.now, "late", "y", later.lease, "released"
    )


def test_promise_03_the_folder_is_compared_before_a_grant(run):
    run.draw(run.lease(size=5))
    run.folder = {7: 1}
    run.restart(check=False)
    assert isinstance(run.lease(size=5), Wait)
    run.check()
    assert run.ledger.done_in("d", 0) == {7} and run.lease(size=8).indices == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        8,
    ]


def test_promise_03_accepted_while_the_folder_is_read(run):
    """A completion between the listing and its report is not undone by it."""
    grant = run.lease(size=3)
    run.restart(check=False)
    work = run.ledger.next_check()
    run.draw(grant)
    run.ledger.folder_checked(run.now, *work, {})
    assert run.ledger.done_in("d", 0) == set(grant.indices)


def test_promise_04_a_lease_that_is_over_changes_nothing(run):
    grant = run.lease(size=3)
    run.passes(200)
    other = run.lease("b", B, 3)
    before = "\n".join(run.ledger.connection.iterdump())
    assert run.draw(grant) == dict.fromkeys(grant.indices, "stale") and run.fail(grant).stale
    after = "\n".join(run.ledger.connection.iterdump())
    assert [
        line for line in after.splitlines() if '"answers"' not in line and '"server"' not in line
    ] == [
        line for line in before.splitlines() if '"answers"' not in line and '"server"' not in line
    ]
    assert run.draw(other, client="b")[other.indices[0]] == "accepted"


def test_promise_05_a_late_sweep_adds_its_lateness(run):
    grant = run.lease()
    run.now += 500  # the server stood still: nobody could beat
    assert run.ledger.sweep(run.now) == []
    run.passes(100)
    assert run.ledger.held_by("a")
    run.passes(25)
    assert (
        not run.ledger.held_by("a")
        and run.ledger.beat(run.now, "a", [grant.lease], "drawing").stale
    )


def test_promise_05_only_drawing_must_show_progress(run):
    waiting, hung = run.lease("waiting"), run.lease("hung", B)
    for _ in range(200):
        run.passes(10)
        run.ledger.beat(run.now, "waiting", [waiting.lease], "waiting_llm", images=0)
        run.ledger.beat(run.now, "hung", [hung.lease], "drawing", images=5)
    assert run.ledger.held_by("waiting") and not run.ledger.held_by("hung")


def test_promise_06_a_restart_keeps_leases_but_not_the_dead_for_ever(run):
    alive, dead = run.lease("alive"), run.lease("dead")
    for _ in range(12):  # a server that dies once a minute
        run.restart()
        run.passes(10)
        run.ledger.beat(run.now, "alive", [alive.lease], "drawing", images=run.now)
        run.passes(50, {"alive": [alive.lease]})
    assert run.ledger.held_by("alive") and not run.ledger.held_by("dead"), dead
    run.restart()
    run.passes(100)
    assert run.ledger.held_by("alive"), "one TTL of grace"


def test_promise_07_a_repeat_gets_the_stored_answer(run):
    grant = run.lease(request="once", size=3)
    assert run.lease(request="once", size=3) == grant
    results, seen = (
        [{"index": idx, "images": 1} for idx in grant.indices[:2]],
        dict.fromkeys(grant.indices, True),
    )
    first = run.ledger.complete(run.now, "a", "twice", grant.lease, results, seen)
    run.restart(check=False)
    assert (
        run.ledger.complete(run.now, "a", "twice", grant.lease, results, seen)
        == first
        == dict.fromkeys(grant.indices[:2], "accepted")
    )
    assert run.counts()["leased"] == 1 and run.counts()["done"] == 2


def test_promise_07_stored_answers_are_bounded(run, monkeypatch):
    monkeypatch.setattr(ledger_module, "ANSWERS_KEPT", 10)
    for _ in range(30):
        run.ledger.release(run.now, "a", run.request(), run.lease().lease, "released")
    assert run.ledger.one("SELECT COUNT(*) FROM answers")[0] == 10


def test_promise_07_a_bare_request_gets_its_lease_again(run):
    grant = run.lease("job:5", request=None, size=5)
    run.passes(1000)
    assert run.lease("job:5", request=None, size=5) == grant
    run.ledger.complete(
        run.now,
        "job:5",
        None,
        grant.lease,
        [{"index": idx, "images": 1} for idx in grant.indices[:3]],
        dict.fromkeys(grant.indices[:3], True),
    )
    assert run.lease("job:5", request=None, size=5).indices == grant.indices[3:]
    run.ledger.complete(
        run.now,
        "job:5",
        None,
        grant.lease,
        [{"index": idx, "images": 1} for idx in grant.indices[3:]],
        dict.fromkeys(grant.indices, True),
    )
    assert not set(run.lease("job:5", request=None, size=5).indices) & set(grant.indices)


def test_promise_08_only_the_unfinished_rest_goes_back(run):
    grant = run.lease(size=10)
    run.draw(grant, grant.indices[:7])
    assert run.ledger.release(run.now, "a", "z", grant.lease, "preempted")
    assert run.counts()["given_back"] == {"preempted": 3} and run.counts()["done"] == 7
    assert (
        run.lease("b", B, 10).indices[:3] == grant.indices[7:] and run.marks(grant.indices[7]) == 0
    )


def test_promise_12_come_back_is_not_all_done(tmp_path):
    run = Run(tmp_path, total=2)
    first, second = run.lease(), run.lease("b", B)
    assert isinstance(run.lease("c", C), Wait) and isinstance(
        run.ledger.peek(run.now, "d"), WorkLeft
    )
    run.draw(first)
    run.draw(second, client="b")
    del run.folder[0]
    assert isinstance(run.lease(), Wait), "the folder is compared first"
    run.check()
    again = run.lease()
    assert again.indices == [0], "what is missing is drawn again"
    run.draw(again)
    run.lease()
    run.check()
    assert isinstance(run.lease(), AllDone) and isinstance(run.ledger.peek(run.now, "d"), AllDone)


def test_promise_12_chunks_shrink_to_one(tmp_path):
    run, sizes = Run(tmp_path, total=200), []
    for _ in range(1000):
        for client in ("a", "b"):
            grant = run.lease(client, A, 50)
            if not isinstance(grant, Grant):
                assert sizes[0] == 50 and sizes[-1] == 1 and sorted(sizes, reverse=True) == sizes
                return
            sizes.append(len(grant.indices))
            run.draw(grant, client=client)


def test_promise_13_the_sum_is_a_check_that_can_fail(run):
    grant = run.lease(size=5)
    run.draw(grant, grant.indices[:2])
    assert {**run.counts(), "given_back": 0, "images": 0} == {
        **dict(
            total=100, waiting=95, leased=3, done=2, set_aside=0, images=0, short=0, short_images=0
        ),
        "given_back": 0,
    }
    run.ledger.run("UPDATE blocks SET open = open - 1")
    with pytest.raises(RuntimeError, match="damaged"):
        run.lease("b", B)


def steps_of_a_lease(run):
    """Steps of SQLite's virtual machine for a lease and its completion."""
    steps, connection = [0], run.ledger.connection
    grant = run.lease(size=10)
    run.draw(grant)
    connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 1)
    for _ in range(5):
        run.draw(run.lease(size=10))
    connection.set_progress_handler(None, 0)
    return steps[0]


def test_promise_14_a_request_costs_the_same_at_a_thousandfold_total(tmp_path):
    small, large = Run(tmp_path, total=100_000, seed=1), None
    (tmp_path / "large").mkdir()
    large = Run.__new__(Run)
    large.check = lambda: large.ledger._checked.__setitem__(
        "d", bytearray(b"\1") * 100_000
    )  # a folder of 100,000 empty folders takes a minute
    Run.__init__(large, tmp_path / "large", total=100_000_000, seed=1)
    assert steps_of_a_lease(large) <= 1.2 * steps_of_a_lease(small)
    assert large.path.stat().st_size < 100_000_000 / 8, "within the bit an index"


def test_promise_14_the_order_is_a_seeded_permutation_of_blocks(tmp_path):
    def order(name, seed):
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, total=20_000, seed=seed)
        return [block for (block,) in run.ledger.all("SELECT block FROM blocks ORDER BY position")]

    assert order("a", None) == list(range(20)) != order("b", 5) == order("c", 5)
    assert sorted(order("d", 6)) == list(range(20)) and order("e", 6) != order("f", 5)


def test_promise_15_the_file_has_one_server_and_a_lost_one_is_rebuilt(run):
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Ledger(run.path, 2, run.now)
    grant = run.lease(size=10)
    run.draw(grant, grant.indices[:4])
    run.ledger.connection.close()
    run.path.unlink()
    run.start()
    assert run.ledger.rebuilt and run.ledger.lost == "deleted" and run.counts()["done"] == 4
    assert run.ledger.beat(run.now, "a", [grant.lease], "drawing").stale, "leases are void"
    run.ledger.connection.close()
    with pytest.raises(RuntimeError, match="epoch"):
        Ledger(run.path, 1, run.now)


def test_promise_15_a_torn_file_is_recognised(run):
    run.draw(run.lease(size=10))
    run.ledger.connection.close()
    data = run.path.read_bytes()
    for n, torn in enumerate(
        (b"", b"rubbish" * 1000, data[:5000], data[:8192] + bytes(len(data) - 8192))
    ):
        run.path.write_bytes(torn)
        run.start()
        assert run.ledger.rebuilt and run.counts()["done"] == 10, n
        run.ledger.connection.close()


def test_promise_16_accounts_commit_with_the_ledger(run):
    """Others' tables share the commit; a failure undoes both, and the memory follows the disk."""
    run.ledger.connection.execute("CREATE TABLE money (usd REAL)")
    with pytest.raises(ZeroDivisionError):
        with run.ledger.transaction():
            run.ledger.connection.execute("INSERT INTO money VALUES (1)")
            run.lease(size=3)
            raise ZeroDivisionError
    assert (
        run.counts()["leased"] == 0
        and not run.ledger.deadlines
        and not run.ledger.all("SELECT * FROM money")
    )
    run.passes(300)
    assert len(run.lease(size=3).indices) == 3


def test_promise_16_the_cap_is_never_passed(run):
    """Shares of the money are on disk before they are spent; what a dead client was granted counts as spent."""
    accounts = Accounts(run.ledger.connection)
    accounts.register(
        {"budget_usd": 1.0, "call_usd": 0.1, "wanted_usd": 0.4, "backends": {"paid": {}}}
    )
    granted = [accounts.share(run.now, f"c{n}")["granted_usd"] for n in range(5)]
    assert granted[:2] == [0.4, 0.4] and sum(granted) <= 1.0 + 1e-9
    again = Accounts(run.ledger.connection)
    assert again.share(run.now, "a new one")["granted_usd"] == 0 and again.spent() == pytest.approx(
        1.0
    )


@pytest.mark.parametrize("order", ["retry", "repair"])
def test_a_reading_begun_before_a_retry_or_a_repair_is_outdated(run, order):
    """The folder was listed, its .failed marks or images go, and only then the listing arrives: it must not make the index done again."""
    if order == "retry":
        for client, worker in (("a", A), ("b", B), ("c", C)):
            run.fail(run.lease(client, worker), client, "prompt", known_good=True)
            run.draw(run.lease(client, worker), client=client)
        assert run.counts()["set_aside"] == 1
    else:
        run.draw(run.lease())
    run.ledger.check_again("d")
    work, found = (
        run.ledger.next_check(),
        {idx: (n, 0) for idx, n in run.folder.items()} | {0: (int(order == "repair"), 0)},
    )
    if order == "retry":
        assert run.ledger.retry_failed(run.now, "d", [0]) == 1
    else:
        grant = run.ledger.repair(run.now, "d", "a", "r", A, [0])
        run.ledger.release(run.now, "a", "r2", grant.lease, "released")
    assert run.ledger.folder_checked(run.now, *work, found) is None and 0 not in run.ledger.done_in(
        "d", 0
    )
    run.check()
    assert 0 not in run.ledger.done_in("d", 0) or order == "repair", (
        "made anew: the folder's word counts"
    )
    assert not run.ledger.checks_left()


def test_what_changes_nothing_is_no_commit(run):
    """A release of what is gone, a sweep of nothing, a completion that the folder does not show: no sync, no change counted."""
    grant, changes = run.lease(size=2), lambda: run.ledger.one("SELECT changes FROM server")[0]
    before = changes(), run.path.read_bytes()
    results = [{"index": idx, "images": 1, "short": 0} for idx in grant.indices]
    run.ledger.complete(
        run.now, "a", "late", grant.lease, results, dict.fromkeys(grant.indices, False)
    )
    run.ledger.sweep(run.now)
    run.ledger.retry_failed(run.now, "d", [5])
    run.ledger.slurm_seen(run.now, {})
    assert (changes(), run.path.read_bytes()) == before
    run.ledger.drain(run.now)
    assert changes() == before[0] + 1


def test_two_data_sets_folders_are_compared_in_turn(tmp_path):
    run = Run(tmp_path, total=200_000)
    run.ledger.define(run.now, {**run.definition, "name": "other", "total": 1000})
    run.ledger.check_again("d")
    names = [run.ledger.next_check() for _ in range(2)]
    for _ in range(60):
        name, block = run.ledger.next_check()
        run.ledger.folder_checked(run.now, name, block, {})
    assert names[0][0] == "d" and not run.ledger._checked["other"].count(0), (
        "the large one keeps the small one waiting for 50 folders only"
    )
