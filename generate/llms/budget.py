"""The run's accounts of rate limits and money: which client may call which LLM how often, and spend
what. Used by the job server.

    accounts = Accounts(sqlite3.connect("ledger.sqlite"))
    accounts.register({"budget_usd": 5.0, "backends": {"openai": {"requests_per_minute": 500}}})
    accounts.report(now, "client-1", prompter.use())
    accounts.share(now, "client-1")

Money (guarantee 16): a client spends only what it was granted, and a grant is on disk before the
client gets it. A grant is a running total that only grows, a few worst-case calls ahead of what the
client has reported as spent. The grant counts against the cap, not the report: a client that is
killed between a call and its report has spent at most its grant, so the cap holds. A client that
closes in order returns what it did not spend. Reports are running totals too: each may be lost,
repeated or late.

Rates: every limit a minute is divided evenly among the clients heard of in the last `client_ttl_s`
seconds.
"""

import copy
import sqlite3
from dataclasses import replace
from typing import Any

from generate.llms.account_tables import AccountTables, ClientAccount
from generate.llms.usage import add_to, empty_total

# A report without money is written at most this often: 1,000 clients with a heartbeat every 15 s
# would be 66 fsyncs a second.
SAVE_EVERY_S = 60.0
# A client that ended is kept this long, for it may have been paused only; then its sums are folded
# into those of the past.
KEEP_S = 3600.0
KILLED = "(killed clients)"
LIMITS = ("requests_per_minute", "tokens_per_minute")


class Accounts:
    """All methods are to be called under one lock; `now` is a monotonic clock in seconds.

    After a call `connection.in_transaction` says whether something is to be committed before the
    answer leaves.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        client_ttl_s: float = 180.0,
        raised_by: str = "image_server.py --llm_budget_usd",
    ) -> None:
        """raised_by: the option that raises the cap, for messages."""
        self.connection = connection
        self.client_ttl_s = client_ttl_s
        self.raised_by = raised_by
        self.tables = AccountTables(connection)
        self.clients = self.tables.clients()
        self.facts = self.tables.facts()
        self.began: float | None = None
        self.now = float("-inf")
        self.folded = float("-inf")

    @property
    def budget_usd(self) -> float:
        """The cap of the run in USD."""
        return float(self.facts.get("budget_usd", 0.0))

    @property
    def paid_off(self) -> str | None:
        """Why nothing paid may be called at this moment, or None."""
        if self.facts.get("rebuilt"):
            return (
                "the job server's ledger was lost, so that nobody knows what was spent: "
                "name it with image_server.py --llm_spent_usd"
            )
        if self.budget_usd <= 0:
            said = "the run's budget is 0 USD, as its first client said"
            return f"{said}; change it with {self.raised_by}"
        return None

    def register(self, llm: dict[str, Any]) -> None:
        """llm: Prompter.limits(). The first client's values hold, for the budget and each backend.

        Only set_budget() changes the budget.
        """
        if "budget_usd" not in self.facts:
            self._fact("budget_usd", float(llm.get("budget_usd") or 0.0))
        known = self.facts.get("backends", {})
        backends = llm.get("backends") or {}
        new = {name: limits for name, limits in backends.items() if name not in known}
        if new:
            self._fact("backends", {**known, **new})
        for key in ("call_usd", "wanted_usd"):  # until a client has reported its own
            if llm.get(key) and key not in self.facts:
                self._fact(key, llm[key])

    def set_budget(self, budget_usd: float | None = None, spent_usd: float | None = None) -> None:
        """Set the cap, or what was spent, as the user says.

        spent_usd: what was spent until now by the providers' bills; it ends the pause after the
        ledger was rebuilt.
        """
        if budget_usd is not None:
            self._fact("budget_usd", float(budget_usd))
        if spent_usd is not None:
            self._fact("spent_before_usd", max(0.0, float(spent_usd) - self.granted()))
            self._fact("rebuilt", False)

    def rebuilt(self) -> None:
        """The ledger was lost: paid backends stay off until set_budget(spent_usd=…)."""
        self._fact("rebuilt", True)

    def granted(self) -> float:
        """USD that any client, dead or alive, may have spent; never less than what was billed."""
        live = sum(client.granted_usd for client in self.clients.values())
        return float(self._past()["granted_usd"]) + live

    def spent(self) -> float:
        """USD that live clients report, silent ones were granted, and the user named."""
        before = float(self.facts.get("spent_before_usd", 0.0))
        clients = self.clients.values()
        counted = [c.granted_usd if self._is_silent(c) else c.spent_usd for c in clients]
        return before + float(self._past()["granted_usd"]) + sum(counted)

    def report(self, now: float, client_id: str, llm_use: dict[str, Any]) -> None:
        """llm_use: Prompter.use(), running totals; one older than the last changes nothing."""
        client = self._client(now, client_id)
        if llm_use.get("reported", 0) < client.use.get("reported", 0):
            return
        spent = max(client.spent_usd, float(llm_use.get("usd", 0.0)))
        # Where an older ledger came back, the client knows its grant better.
        granted = max(client.granted_usd, float(llm_use.get("granted_usd", 0.0)), spent)
        closed = bool(llm_use.get("closed"))
        before = (client.spent_usd, client.granted_usd, client.closed)
        changed = (spent, granted, closed) != before
        reported = replace(
            client,
            spent_usd=spent,
            granted_usd=spent if closed else granted,
            closed=closed,
            use=llm_use,
        )
        if changed or now - client.saved >= SAVE_EVERY_S:
            self._save(now, client_id, reported)
        self.clients[client_id] = reported

    def share(self, now: float, client_id: str) -> dict[str, Any]:
        """What a client may do: {"clients", "granted_usd", "paid_off", "backends"}.

        granted_usd is a running total; paid_off says why the paid backends pause, or is None.
        backends: {name: {"requests_per_minute", "tokens_per_minute"}}, floats, None = no limit.
        """
        self._client(now, client_id)
        paid_off = self.paid_off or self._grant(now, client_id)
        live = [c for c in self.clients.values() if not self._is_dead(c, now) and not c.closed]
        clients = len(live) or 1
        backends = {
            name: {key: limits[key] / clients if limits.get(key) else None for key in LIMITS}
            for name, limits in self.facts.get("backends", {}).items()
        }
        return {
            "clients": clients,
            "backends": backends,
            "granted_usd": self.clients[client_id].granted_usd,
            "paid_off": paid_off,
        }

    def _grant(self, now: float, client_id: str) -> str | None:
        """Raise a client's grant to what it wants, as far as the cap allows; why not, or None."""
        client = self.clients[client_id]
        wanted, call = (
            float(client.use.get(key, self.facts.get(key, 0.0)))
            for key in ("wanted_usd", "call_usd")
        )
        if wanted <= 0 or client.closed:
            return None
        left = self.budget_usd - self.facts.get("spent_before_usd", 0.0) - self.granted()
        more = min(wanted - client.unspent_usd, left)
        # less than a call's worth would be of no use to anybody
        if more > 0 and client.unspent_usd + more >= call:
            self._save(now, client_id, replace(client, granted_usd=client.granted_usd + more))
        elif left < call and client.unspent_usd < call:
            cap = f"the cap of {self.budget_usd:.2f} USD is reached"
            return f"{cap} (a call can cost {call:.2g}); raise it with {self.raised_by}"
        return None

    def forget(self, now: float, client_id: str) -> None:
        """The client has ended, or was silent for client_ttl_s: its grant counts as spent."""
        if client_id in self.clients:
            client = self.clients[client_id]
            client.heard = now - self.client_ttl_s - 1
            self._save(now, client_id, client)

    def totals(self) -> dict[str, dict[str, Any]]:
        """Sums over all clients that ever were, by backend.

        {"model", "clients": {state: live clients}, "until_s", "because", "calls", "failures":
        {kind: n}, "prompt_tokens", "completion_tokens", "usd", "reserved_usd", "seconds": calls
        per latency class}
        """
        limits = self.facts.get("backends", {})
        totals = {name: empty_total(about.get("model")) for name, about in limits.items()}
        add_to(totals, self._past()["backends"])
        for client in self.clients.values():
            self._add_client(totals, client)
            if self._is_silent(client) or client.closed:
                continue
            paid = [name for name, use in client.backends.items() if use.get("paid")]
            for name, use in client.backends.items():
                total = totals[name]
                state = use.get("state")
                total["clients"][state] = total["clients"].get(state, 0) + 1
                total["because"] = use.get("because") or total["because"]
                total["until_s"] = use.get("until_s") or total["until_s"]
                total["reserved_usd"] += client.unspent_usd / len(paid) if name in paid else 0.0
        return totals

    def _add_client(self, totals: dict[str, dict[str, Any]], client: ClientAccount) -> None:
        """Add a client's running totals; the unreported grant of a silent one counts as spent."""
        add_to(totals, client.backends)
        if self._is_silent(client) and client.unspent_usd > 0:
            add_to(totals, {KILLED: {"usd": client.unspent_usd}})

    def _client(self, now: float, client_id: str) -> ClientAccount:
        if self.began is None:
            self.began = now
        self.now = now
        if now - self.folded >= SAVE_EVERY_S:
            self.folded = now
            self._fold(now)
        client = self.clients.get(client_id) or self._new(client_id)
        client.heard = now
        return client

    def _new(self, client_id: str) -> ClientAccount:
        """Begin an account; a past client's is moved back, or its grant would count twice."""
        client = self.tables.past_client(client_id)
        if client:
            past = copy.deepcopy(self._past())
            past["granted_usd"] -= client.granted_usd
            add_to(past["backends"], client.backends, -1)
            if client.unspent_usd > 0:
                add_to(past["backends"], {KILLED: {"usd": client.unspent_usd}}, -1)
            with self.tables.all_or_nothing():
                self.tables.write_fact("past", past)
                self.tables.bring_back(client_id, client)
            self.facts["past"] = past
        self.clients[client_id] = client or ClientAccount()
        return self.clients[client_id]

    def _fold(self, now: float) -> None:
        """Add clients that ended long ago to the sums, so that memory holds the live ones only.

        The last PAST_KEPT of those that had money stay on disk, in case one was only paused. If one
        comes back later than that, its grant is counted twice, never too little.
        """
        kept_s = self.client_ttl_s + KEEP_S
        ended = [id for id, client in self.clients.items() if now - self._heard(client) > kept_s]
        if not ended:
            return
        past = copy.deepcopy(self._past())
        for client_id in ended:
            past["granted_usd"] += self.clients[client_id].granted_usd
            self._add_client(past["backends"], self.clients[client_id])
        with self.tables.all_or_nothing():
            self.tables.write_fact("past", past)
            for client_id in ended:
                self.tables.retire(client_id, self.clients[client_id])
        self.facts["past"] = past
        for client_id in ended:
            del self.clients[client_id]

    def _past(self) -> dict[str, Any]:
        """Sums of the clients that ended long ago."""
        past: dict[str, Any] = self.facts.get("past", {"granted_usd": 0.0, "backends": {}})
        return past

    def _heard(self, client: ClientAccount) -> float:
        """When it was last heard of; after a restart every client has client_ttl_s to report."""
        heard = self.began if client.heard is None else client.heard
        return float("inf") if heard is None else heard

    def _is_dead(self, client: ClientAccount, now: float) -> bool:
        return not client.closed and now - self._heard(client) > self.client_ttl_s

    def _is_silent(self, client: ClientAccount) -> bool:
        """Dead, or not heard of since this server began: its whole grant may be spent."""
        unheard = client.heard is None and not client.closed
        return unheard or self._is_dead(client, self.now)

    def _save(self, now: float, client_id: str, client: ClientAccount) -> None:
        """Write to disk first: if the disk fails, no grant may be in memory alone."""
        self.tables.write_client(client_id, client)
        client.saved = now
        self.clients[client_id] = client

    def _fact(self, name: str, value: Any) -> None:
        """To disk first, as in _save()."""
        self.tables.write_fact(name, value)
        self.facts[name] = value
