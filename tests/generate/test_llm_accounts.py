"""The run's accounts: whoever dies, whatever is lost, the cap holds.

What they say was spent is never less than what was billed.
"""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import time

import pytest
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from generate.llms.budget import KEEP_S, KILLED, Accounts
from generate.llms.spend_limit import SpendLimit
from tests.fakes.fake_llm import FakeOpenAI

pytestmark = pytest.mark.timeout(120)
BUDGET = 2.0


class Client:
    """A Prompter's books without its LLMs: spends within its limit, reports running totals."""

    def __init__(self, name):
        self.name = name
        self.limit = SpendLimit(call_usd=0.05)
        self.billed_usd = 0.0
        self.calls = 0
        self.outstanding = []

    def use(self, closed=False):
        spent_usd = self.limit.spent_usd
        paid = {"paid": True, "usd": spent_usd, "calls": self.calls, "state": "healthy"}
        return json.loads(json.dumps({**self.limit.report(closed), "backends": {"paid": paid}}))

    def take(self, share):
        self.limit.take(share)


class Money(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.accounts = None
        self.now = 0.0
        self.clients = []
        self.gone = []
        self.names = 0
        self.late = []
        self.restart()
        self.accounts.register(
            {"budget_usd": BUDGET, "backends": {"paid": {"model": "m", "requests_per_minute": 60}}}
        )

    @rule()
    def restart(self):
        """The server was killed: what is on disk is all it knows. Its new clock begins anywhere."""
        self.now = 0.0
        self.accounts = Accounts(self.connection, client_ttl_s=100)

    @rule()
    def arrive(self):
        self.names += 1
        self.clients.append(Client(f"c{self.names}"))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 99), lost=st.booleans(), again=st.booleans())
    def heartbeat(self, which, lost, again):
        client = self.clients[which % len(self.clients)]
        use = client.use()
        self.late.append((client.name, use))
        for _ in range(1 + again):
            self.accounts.report(self.now, client.name, use)
            share = self.accounts.share(self.now, client.name)
        if not lost:
            client.take(share)

    @precondition(lambda self: self.late)
    @rule(which=st.integers(0, 99))
    def an_old_heartbeat_comes_late(self, which):
        name, use = self.late[which % len(self.late)]
        before = sum(row["calls"] for row in self.accounts.totals().values())
        known = name in self.accounts.clients
        self.accounts.report(self.now, name, use)
        assert (
            not known or sum(row["calls"] for row in self.accounts.totals().values()) >= before
        ), "running totals never fall"

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 99), part=st.floats(0, 1))
    def call(self, which, part):
        """A call is reserved, billed for a part of its worst case, and perhaps never settled."""
        client = self.clients[which % len(self.clients)]
        if client.limit.fits(0.05):
            client.limit.reserve(0.05)
            client.billed_usd += 0.05 * part
            client.outstanding.append(0.05 * part)
            client.calls += 1

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 99))
    def settle(self, which):
        client = self.clients[which % len(self.clients)]
        if client.outstanding:
            client.limit.settle(0.05, client.outstanding.pop())

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 99), how=st.sampled_from(["killed", "killed and known", "closed"]))
    def end(self, which, how):
        client = self.clients.pop(which % len(self.clients))
        self.gone.append(client)
        if how == "killed and known":
            self.accounts.forget(self.now, client.name)
        if how == "closed":
            while client.outstanding:
                client.limit.settle(0.05, client.outstanding.pop())
            self.accounts.report(self.now, client.name, client.use(closed=True))

    @rule(seconds=st.sampled_from([1.0, 50.0, 150.0, KEEP_S]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def never_less_than_billed_and_never_above_the_cap(self):
        billed = sum(client.billed_usd for client in self.clients + self.gone)
        assert billed <= self.accounts.granted() + 1e-9
        assert self.accounts.granted() <= BUDGET + 1e-9
        totals = self.accounts.totals()
        assert sum(row["usd"] + row["reserved_usd"] for row in totals.values()) <= BUDGET + 1e-9

    def teardown(self):
        self.now += 10 * KEEP_S
        for client in self.clients:
            while client.outstanding:
                client.limit.settle(0.05, client.outstanding.pop())
            self.accounts.report(self.now, client.name, client.use())
        self.accounts.share(self.now, "one more")
        assert (
            sum(client.billed_usd for client in self.clients + self.gone)
            <= self.accounts.spent() + 1e-9
            <= BUDGET + 2e-9
        )
        assert sum(row["usd"] for row in self.accounts.totals().values()) == pytest.approx(
            self.accounts.spent()
        ), "the page shows what the accounts say"


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@pytest.mark.soak
@pytest.mark.timeout(1800)
class TestMoneyLong(Money.TestCase):
    settings = settings(max_examples=5000, stateful_step_count=80, deadline=None)


def test_rates_are_shared_among_those_who_are_there():
    accounts = Accounts(sqlite3.connect(":memory:"), client_ttl_s=100)
    accounts.register(
        {
            "budget_usd": 0,
            "backends": {
                "groq": {"model": "m", "requests_per_minute": 30, "tokens_per_minute": 8000},
                "ollama": {},
            },
        }
    )
    accounts.register({"budget_usd": 9, "backends": {"groq": {"requests_per_minute": 9999}}})
    for name in ("a", "b", "c"):
        share = accounts.share(10.0, name)
    assert share["clients"] == 3 and share["backends"]["groq"] == {
        "requests_per_minute": 10.0,
        "tokens_per_minute": 8000 / 3,
    }
    assert (
        share["backends"]["ollama"] == {"requests_per_minute": None, "tokens_per_minute": None}
        and share["paid_off"]
        and accounts.budget_usd == 0
    )
    assert accounts.share(200.0, "a")["clients"] == 1
    accounts.report(201.0, "b", {"reported": 1, "closed": False})
    accounts.report(202.0, "b", {"reported": 2, "closed": True})
    accounts.report(
        203.0, "b", {"reported": 1, "closed": False}
    )  # a heartbeat that was superseded on its way
    assert accounts.share(203.0, "a")["clients"] == 1


def test_paid_stays_off_after_a_rebuild_until_the_user_names_what_was_spent():
    accounts = Accounts(sqlite3.connect(":memory:"))
    accounts.rebuilt()
    accounts.register(
        {"budget_usd": 5.0, "call_usd": 0.5, "wanted_usd": 2.0, "backends": {"paid": {}}}
    )
    share = accounts.share(0.0, "a")
    assert share["granted_usd"] == 0 and "--llm_spent_usd" in share["paid_off"]
    accounts.set_budget(spent_usd=4.0)
    share = accounts.share(1.0, "a")
    assert share["paid_off"] is None and share["granted_usd"] == 1.0 and accounts.spent() == 4.0
    assert "cap of 5.00 USD is reached" in accounts.share(2.0, "b")["paid_off"]
    accounts.set_budget(budget_usd=6.0)
    assert accounts.share(3.0, "b")["granted_usd"] == 1.0


def test_a_client_that_returns_after_hours_is_counted_once():
    """Paused (or cut off) for so long that its sums became part of the past.

    Its next heartbeat names its grant again. Money and counters.
    """
    accounts = Accounts(sqlite3.connect(":memory:"), client_ttl_s=10)
    accounts.register(
        {"budget_usd": 2.0, "call_usd": 0.05, "wanted_usd": 0.2, "backends": {"paid": {}}}
    )
    client = Client("sleeper")
    client.take(accounts.share(0.0, "sleeper"))
    client.limit.settle(0.0, 0.05)
    client.calls = 1
    accounts.report(1.0, "sleeper", client.use())
    accounts.share(10 * KEEP_S, "another")
    assert "sleeper" not in accounts.clients and accounts.granted() == pytest.approx(0.4)
    assert accounts.totals()[KILLED]["usd"] == pytest.approx(0.15), (
        "what it had not reported counts as spent"
    )
    client.calls = 2
    accounts.report(10 * KEEP_S + 1, "sleeper", client.use())
    assert accounts.granted() == pytest.approx(0.4) and accounts.spent() == pytest.approx(0.05)
    totals = accounts.totals()
    assert totals["paid"]["calls"] == 2 and totals[KILLED]["usd"] == pytest.approx(0)
    again = Accounts(accounts.connection, client_ttl_s=10)
    assert again.granted() == pytest.approx(0.4), "and so it stands on disk"


def test_many_clients_that_ended_cost_nothing():
    accounts = Accounts(sqlite3.connect(":memory:"), client_ttl_s=10)
    use = {
        "backends": {
            "ollama": {
                "calls": 2,
                "seconds": [1, 1],
                "failures": {"cut": 1},
                "prompt_tokens": 5,
                "state": "healthy",
            }
        }
    }
    for k in range(2000):
        accounts.report(k * 10.0, f"c{k}", {"reported": 1, **use})
    assert len(accounts.clients) < 500
    total = accounts.totals()["ollama"]
    assert (total["calls"], total["seconds"], total["failures"]) == (
        4000,
        [2000, 2000],
        {"cut": 2000},
    )


def test_killed_between_call_and_report_fifty_times(tmp_path, monkeypatch):
    """Real processes with the real openai client.

    The fake provider kills each by SIGKILL in the moment it has billed a call.
    """
    monkeypatch.setenv("TEST_LLM_KEY", "sk-test")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(sys.path)
    )  # the fork server looks there for what it imports beforehand
    price, budget = [15.0, 60.0], 60.0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fakes.paying_client"])
    from tests.fakes import paying_client

    draw, killed, victim = random.Random(5), 0, None
    with FakeOpenAI(usd_per_million=price) as fake:
        file = tmp_path / "backends.yaml"
        backend = {
            "provider": "openai",
            "model": "gpt-4o-mini",
            "name": "paid",
            "base_url": f"{fake.url}/v1",
            "key_env": "TEST_LLM_KEY",
            "usd_per_million": price,
        }
        file.write_text(yaml.safe_dump({"tiers": [{"paid": True, "backends": [backend]}]}))
        connection = sqlite3.connect(tmp_path / "accounts.sqlite")

        def kill_after_bill():
            if victim and fake.billed["calls"] >= last:
                os.kill(victim.pid, signal.SIGKILL)

        fake.after_bill = kill_after_bill
        for k in range(50):
            accounts = Accounts(
                connection
            )  # a server that restarts before each client knows what is on disk
            ours, theirs = context.Pipe()
            last = fake.billed["calls"] + draw.randint(1, 6)
            victim = process = context.Process(
                target=paying_client.run, args=(str(file), theirs, k, budget), daemon=True
            )
            process.start()
            theirs.close()
            patience = time.monotonic() + 20
            try:
                while time.monotonic() < patience:
                    kind, word = ours.recv()
                    if kind == "limits":
                        accounts.register(word)
                    else:
                        accounts.report(float(k), f"client-{k}", word)
                    share = accounts.share(float(k), f"client-{k}")
                    connection.commit()
                    ours.send(share)
                    time.sleep(0.01)
            except (EOFError, ConnectionError):
                killed += 1
            process.kill()
            process.join()
            victim = None
            accounts.forget(float(k), f"client-{k}")
            assert fake.billed["usd"] <= accounts.spent() + 1e-9 <= budget + 1e-6
        assert killed == 50 and fake.billed["calls"] >= 50 and accounts.totals()[KILLED]["usd"] > 0
