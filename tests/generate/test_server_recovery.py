"""What a job server makes of a ledger that is lost, torn or old, of lost files, of extensions."""

import shutil
import time

import pytest

from generate.dataset.layout import path_of
from generate.protocol.answers import AllDone, Wait
from generate.protocol.connection import Refused
from tests.fakes.running_server import finish, granted, order, until


def test_a_ledger_that_was_lost_is_rebuilt_from_the_folder(start):
    """Guarantee 15, and the tokens never repeat (guarantee 3)."""
    server = start()
    client = server.client(total=2500)
    first, second = granted(client, 20), granted(client, 20)
    finish(client, first)
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    server.start()
    until(
        lambda: server.dataset() and server.dataset()["done"] == len(first.indices),
        "the rebuild",
        20,
    )
    answer = client.heartbeat({"leases": [second.lease], "state": "drawing", "drawing": []})
    assert answer.stale == [second.lease]  # leases are void
    assert finish(client, second) and server.dataset()["sum_ok"]
    third = granted(client, 20)
    assert third.lease not in (first.lease, second.lease) and int(third.lease.split("-")[0]) > int(
        second.lease.split("-")[0]
    )
    assert not set(third.indices) & set(first.indices)


def test_a_ledger_rolled_back_to_yesterday(start):
    """The folder wins: what was finished since is not made again; no lease's name comes twice."""
    server = start(ttl_s=3)
    client = server.client()
    granted(client)
    server.stop()
    copy = server.root / "yesterday.sqlite"
    shutil.copy(server.root / ".server" / "ledger.sqlite", copy)
    server.start()
    later = granted(client)
    finish(client, later)
    server.kill()
    for path in (server.root / ".server").glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(copy, server.root / ".server" / "ledger.sqlite")
    copy.unlink()
    server.start()
    seen, names = set(), set()
    while not isinstance(answer := client.get_indices(5), AllDone):
        if isinstance(answer, Wait):
            time.sleep(0.1)
            continue
        assert answer.lease not in names and answer.lease != later.lease
        names.add(answer.lease)
        seen |= set(answer.indices)
        finish(client, answer)
    assert not seen & set(later.indices) and server.dataset()["done"] == 20


def test_a_torn_ledger_is_recognised(start):
    server = start()
    client = server.client()
    finish(client, granted(client))
    server.kill()
    path = server.root / ".server" / "ledger.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    server.start()
    until(lambda: server.dataset() and server.dataset()["done"] == 5, "the rebuild", 20)
    assert "Traceback" not in server.log()


def test_files_that_vanish_are_drawn_again(start):
    """The folder wins: before all is said to be done, its names are compared."""
    server = start()
    client = server.client(total=8)
    while not isinstance(answer := client.get_indices(8), AllDone):
        if not isinstance(answer, Wait):
            finish(client, answer)
        time.sleep(0.05)
    server.stop()
    path_of(server.root / "generated_images" / "storm", 3, 1, ".jpg").unlink()
    draft = server.root / "generated_images" / "storm" / "000000" / ".COMPLETE.tmp"
    draft.write_text('{"indices"')  # as a server leaves it that is killed while it writes the mark
    server.start()
    grant = granted(client)
    assert grant.indices == [3]
    assert not (server.root / "generated_images" / "storm" / "000000" / "COMPLETE").exists()
    finish(client, grant)
    until(lambda: isinstance(client.get_indices(8), AllDone), "all done")
    until(
        (server.root / "generated_images" / "storm" / "000000" / "COMPLETE").exists,
        "the mark, which is written last",
    )
    assert not draft.exists()


def test_extend(start):
    """More images a prompt reopen exactly what is then missing.

    A smaller definition, or one whose prompts changed, is refused.
    """
    server = start()
    client = server.client(total=4)
    until(lambda: finish(client, granted(client, 4)) or True, "work")
    while not isinstance(answer := client.get_indices(4), AllDone):
        if not isinstance(answer, Wait):
            finish(client, answer)
        time.sleep(0.05)
    wider = server.client(total=6, images=3)
    with pytest.raises(Refused, match="--extend"):
        wider.get_indices(1)
    wider.definition |= {
        "extend": True,
        "prefix_total": 4,
        "prefix_sha256": "2" * 64,
        "prompts_sha256": "1" * 64,
    }
    with pytest.raises(Refused, match="the first 4 prompts are not the same"):
        wider.get_indices(1)
    wider.definition |= {"prefix_sha256": "0" * 64}
    seen = set()
    while not isinstance(answer := wider.get_indices(6), AllDone):
        if not isinstance(answer, Wait):
            seen |= set(answer.indices)
            finish(wider, answer, images=3)
        time.sleep(0.05)
    assert (
        seen == set(range(6))
        and (server.root / "generated_images" / "storm" / "dataset.2.yaml").exists()
    )
    with pytest.raises(Refused, match=r"extended: 6 prompts, 3 images each"):
        client.get_indices(1)
    smaller = server.client(total=3, images=2)
    with pytest.raises(Refused, match=r"total|images_per_prompt"):
        smaller.get_indices(1)


def test_money_is_kept_over_restarts_and_paid_llms_stay_off_after_a_lost_ledger(start):
    """Guarantees 15 and 16 over the wire: shares are durable, and never more than the cap."""
    server = start()
    limits = {"budget_usd": 1.0, "backends": {"paid": {"model": "m", "requests_per_minute": 60}}}
    use = {"reported": 1, "usd": 0.0, "wanted_usd": 0.4, "call_usd": 0.1, "backends": {}}
    clients = [server.client(total=50, host=f"node{i}") for i in range(4)]

    def granted_usd(client, reported):
        client.get_indices(1, llm=limits)
        client.heartbeat(
            {
                "leases": [],
                "state": "drawing",
                "drawing": [],
                "images": 0,
                "llm_use": use | {"reported": reported},
            }
        )
        return client.llm_share["granted_usd"]

    shares = [granted_usd(client, 1) for client in clients]
    assert 0.8 <= sum(shares) <= 1.0
    server.kill()
    server.start()
    assert [granted_usd(client, 2) for client in clients] == shares
    assert order(server, "--llm_budget_usd", "2").returncode == 0
    assert sum(granted_usd(client, 3) for client in clients) <= 2.0
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    server.start()
    granted_usd(clients[0], 4)
    assert "--llm_spent_usd" in clients[0].llm_share["paid_off"]
    assert order(server, "--llm_spent_usd", "0.5").returncode == 0
    granted_usd(clients[0], 5)
    assert not clients[0].llm_share["paid_off"]
