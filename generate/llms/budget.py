"""The run's accounts of rate limits and money: who may call which LLM how often, and who may spend what. Used by the job server.

Money (promise 16): a client spends only out of what it was granted, and a grant is on disk before the client hears of it. A grant is
a running total that only grows, a few worst-case calls ahead of what the client has reported as spent. What counts against the cap is
always the grant, never the report: a client killed between a call and its report can have spent at most its grant, so that the cap
holds whoever dies. A client that closes in order gives back what it did not spend. Reports are running totals too: each may be lost,
repeated or come late.

Rates: every limit a minute is divided evenly among the clients heard of in the last `client_ttl_s` seconds.

    accounts = Accounts(sqlite3.connect("ledger.sqlite"))
    accounts.register({"budget_usd": 5.0, "backends": {"openai": {"model": "gpt-4o-mini", "requests_per_minute": 500}}})
    accounts.report(now, "client-1", prompter.use()); accounts.share(now, "client-1")
"""

import json

TABLES = """
create table if not exists llm_clients (
    client_id text primary key, granted_usd real not null, spent_usd real not null, closed integer not null, use text not null);
create table if not exists llm_past (
    client_id text primary key, granted_usd real not null, spent_usd real not null, closed integer not null, use text not null);
create table if not exists llm_facts (name text primary key, value text not null);
"""
COUNTERS = ("calls", "prompt_tokens", "completion_tokens", "usd")
SAVE_EVERY_S = 60.0  # a report without money is written at most this often: 1,000 clients beating every 15 s would be 66 fsyncs a second
KEEP_S = 3600.0  # a client that ended is kept this long, for it may have been paused only; then its sums are folded into those of the past
KILLED = "(killed clients)"


class Accounts:
    """All methods are to be called under one lock; `now` is the server's monotonic clock in seconds.

    After a call `connection.in_transaction` says whether something is to be committed before the answer leaves.
    """

    def __init__(
        self, connection, client_ttl_s=180.0, raised_by="image_server.py --llm_budget_usd"
    ):
        self.connection, self.client_ttl_s, self.raised_by = connection, client_ttl_s, raised_by
        for statement in TABLES.strip().split(";\n"):
            connection.execute(statement)
        self.clients = {}  # client_id -> {"granted_usd", "spent_usd", "closed", "use", "heard" (None: not since this start), "saved"}
        for client_id, *row in connection.execute(
            "select client_id, granted_usd, spent_usd, closed, use from llm_clients"
        ):
            self.clients[client_id] = _client_of(*row)
        self.facts = {
            name: json.loads(value)
            for name, value in connection.execute("select name, value from llm_facts")
        }
        self.began, self.now, self.looked = None, float("-inf"), float("-inf")

    @property
    def budget_usd(self):
        return self.facts.get("budget_usd", 0.0)

    @property
    def paid_off(self):
        """Why nothing paid may be called at this moment, or None."""
        if self.facts.get("rebuilt"):
            return "the job server's ledger was lost, so that nobody knows what was spent: name it with image_server.py --llm_spent_usd"
        if self.budget_usd <= 0:
            return f"the run's budget is 0 USD, as its first client said; change it with {self.raised_by}"
        return None

    def register(self, llm):
        """llm: Prompter.limits(). The first word stands, for the budget and for each backend; set_budget() changes the budget."""
        if "budget_usd" not in self.facts:
            self._fact("budget_usd", float(llm.get("budget_usd") or 0.0))
        backends = self.facts.get("backends", {})
        new = {
            name: limits
            for name, limits in (llm.get("backends") or {}).items()
            if name not in backends
        }
        if new:
            self._fact("backends", {**backends, **new})
        for key in ("call_usd", "wanted_usd"):  # until a client has reported its own
            if llm.get(key) and key not in self.facts:
                self._fact(key, llm[key])

    def set_budget(self, budget_usd=None, spent_usd=None):
        """The user's word. spent_usd: what the providers' bills say was spent before this moment, which ends the pause after a rebuild."""
        if budget_usd is not None:
            self._fact("budget_usd", float(budget_usd))
        if spent_usd is not None:
            self._fact("spent_before_usd", max(0.0, float(spent_usd) - self.granted()))
            self._fact("rebuilt", False)

    def rebuilt(self):
        """The ledger was rebuilt from the folder: what was spent is unknown, and paid backends stay off until set_budget(spent_usd=…)."""
        self._fact("rebuilt", True)

    def granted(self):
        """USD that may have been spent by any client, dead or alive; never less than what the providers billed."""
        return self.facts.get("past", {}).get("granted_usd", 0.0) + sum(
            client["granted_usd"] for client in self.clients.values()
        )

    def spent(self):
        """USD counted as spent: what live clients report, all that silent ones were granted, and what the user named."""
        counted = (
            c["granted_usd"] if self._silent(c) else c["spent_usd"] for c in self.clients.values()
        )
        return (
            self.facts.get("spent_before_usd", 0.0)
            + self.facts.get("past", {}).get("granted_usd", 0.0)
            + sum(counted)
        )

    def report(self, now, client_id, llm_use):
        """llm_use: Prompter.use(), running totals; an older report than the last one changes nothing."""
        client = self._client(now, client_id)
        known = client["use"]
        if llm_use.get("reported", 0) < known.get("reported", 0):
            return
        spent = max(client["spent_usd"], float(llm_use.get("usd", 0.0)))
        granted = max(
            client["granted_usd"], float(llm_use.get("granted_usd", 0.0)), spent
        )  # an older ledger came back: the client knows better
        closed = bool(llm_use.get("closed"))
        changed = (spent, granted, closed) != (
            client["spent_usd"],
            client["granted_usd"],
            client["closed"],
        )
        client.update(
            spent_usd=spent, granted_usd=spent if closed else granted, closed=closed, use=llm_use
        )
        if changed or now - client["saved"] >= SAVE_EVERY_S:
            self._save(now, client_id)

    def share(self, now, client_id):
        """What it may do: {"clients", "granted_usd", "paid_off", "backends": {name: {"requests_per_minute", "tokens_per_minute"}}}.

        granted_usd is a running total; paid_off says why the paid backends pause, or is None. Limits are floats, null = no limit.
        """
        client = self._client(now, client_id)
        live = (
            sum(1 for c in self.clients.values() if not self._dead(c, now) and not c["closed"]) or 1
        )
        paid_off = self.paid_off
        wanted, call = (
            float(client["use"].get(key, self.facts.get(key, 0.0)))
            for key in ("wanted_usd", "call_usd")
        )
        if not paid_off and wanted > 0 and not client["closed"]:
            left = self.budget_usd - self.facts.get("spent_before_usd", 0.0) - self.granted()
            more = min(wanted - (client["granted_usd"] - client["spent_usd"]), left)
            if (
                more > 0 and client["granted_usd"] - client["spent_usd"] + more >= call
            ):  # less than a call's worth would only lie about
                client["granted_usd"] += more
                self._save(now, client_id)
            elif left < call and client["granted_usd"] - client["spent_usd"] < call:
                cost = f"a call can cost {call:.2g}"
                paid_off = f"the cap of {self.budget_usd:.2f} USD is reached ({cost}); raise it with {self.raised_by}"
        backends = {
            name: {
                key: limits[key] / live if limits.get(key) else None
                for key in ("requests_per_minute", "tokens_per_minute")
            }
            for name, limits in self.facts.get("backends", {}).items()
        }
        return {
            "clients": live,
            "backends": backends,
            "granted_usd": client["granted_usd"],
            "paid_off": paid_off,
        }

    def forget(self, now, client_id):
        """The client is gone: its grant counts as spent. (One that is not heard of for client_ttl_s is forgotten without this call.)"""
        if client_id in self.clients:
            self.clients[client_id]["heard"] = now - self.client_ttl_s - 1
            self._save(now, client_id)

    def totals(self):
        """{backend: {"model", "clients": {state: live clients}, "until_s", "because", "calls", "failures": {kind: n}, "prompt_tokens",
        "completion_tokens", "usd", "reserved_usd", "seconds": calls per latency class}}, summed over all clients that ever were."""
        totals = {
            name: _empty(limits.get("model"))
            for name, limits in self.facts.get("backends", {}).items()
        }
        _add(totals, self.facts.get("past", {}).get("backends", {}))
        for client in self.clients.values():
            self._add_client(totals, client)
            unspent, uses = (
                client["granted_usd"] - client["spent_usd"],
                client["use"].get("backends") or {},
            )
            if self._silent(client) or client["closed"]:
                continue
            paid = [name for name, use in uses.items() if use.get("paid")]
            for name, use in uses.items():
                total = totals[name]
                total["clients"][use.get("state")] = total["clients"].get(use.get("state"), 0) + 1
                total["because"], total["until_s"] = (
                    use.get("because") or total["because"],
                    use.get("until_s") or total["until_s"],
                )
                total["reserved_usd"] += unspent / len(paid) if name in paid else 0.0
        return totals

    def _add_client(self, totals, client):
        """Its running totals; what a silent one was granted and has not reported counts as spent, on a line of its own."""
        _add(totals, client["use"].get("backends") or {})
        unspent = client["granted_usd"] - client["spent_usd"]
        if self._silent(client) and unspent > 0:
            _add(totals, {KILLED: {"usd": unspent}})

    def _client(self, now, client_id):
        self.began, self.now = now if self.began is None else self.began, now
        if now - self.looked >= SAVE_EVERY_S:
            self.looked = now
            self._fold(now)
        client = self.clients.get(client_id) or self._new(now, client_id)
        client["heard"] = now
        return client

    def _new(self, now, client_id):
        """A client that is not known; one that was folded is taken out of the past again, where its grant would be counted twice."""
        row = self.connection.execute(
            "select granted_usd, spent_usd, closed, use from llm_past where client_id = ?",
            (client_id,),
        ).fetchone()
        client = self.clients[client_id] = _client_of(*row or (0.0, 0.0, False, "{}"))
        if row:
            past, unspent = self.facts["past"], client["granted_usd"] - client["spent_usd"]
            past["granted_usd"] -= client["granted_usd"]
            _add(past["backends"], client["use"].get("backends") or {}, -1)
            _add(past["backends"], {KILLED: {"usd": unspent}} if unspent > 0 else {}, -1)
            self._fact("past", past)
            self.connection.execute("delete from llm_past where client_id = ?", (client_id,))
            self._save(now, client_id)
        return client

    def _fold(self, now):
        """Clients that ended long ago become part of the sums, so that memory and cost follow the live ones, not all that ever were.
        Those that had money stay on disk, for the day that one of them was paused only."""
        past = self.facts.get("past", {"granted_usd": 0.0, "backends": {}})
        ended = []
        for client_id, client in self.clients.items():
            if (
                now - (self.began if client["heard"] is None else client["heard"])
                > self.client_ttl_s + KEEP_S
            ):
                ended.append(client_id)
                past["granted_usd"] += client["granted_usd"]
                self._add_client(past["backends"], client)
        if ended:
            self._fact("past", past)
            for client_id in ended:
                client = self.clients.pop(client_id)
                if client["granted_usd"]:
                    self.connection.execute(
                        "insert or replace into llm_past values (?, ?, ?, ?, ?)",
                        _row(client_id, client),
                    )
                self.connection.execute("delete from llm_clients where client_id = ?", (client_id,))

    def _dead(self, client, now=None):
        heard, now = client["heard"], self.now if now is None else now
        heard = (
            self.began if heard is None else heard
        )  # after a restart everyone has client_ttl_s to speak up
        return not client["closed"] and heard is not None and now - heard > self.client_ttl_s

    def _silent(self, client):
        """Dead, or not heard of since this server began: whatever it was granted may be spent."""
        return self._dead(client) or (client["heard"] is None and not client["closed"])

    def _save(self, now, client_id):
        client = self.clients[client_id]
        client["saved"] = now
        self.connection.execute(
            "insert or replace into llm_clients values (?, ?, ?, ?, ?)", _row(client_id, client)
        )

    def _fact(self, name, value):
        self.facts[name] = value
        self.connection.execute(
            "insert or replace into llm_facts values (?, ?)", (name, json.dumps(value))
        )


def _row(client_id, client):
    return (
        client_id,
        client["granted_usd"],
        client["spent_usd"],
        int(client["closed"]),
        json.dumps(client["use"]),
    )


def _client_of(granted_usd, spent_usd, closed, use):
    return dict(
        granted_usd=granted_usd,
        spent_usd=spent_usd,
        closed=bool(closed),
        use=json.loads(use),
        heard=None,
        saved=float("-inf"),
    )


def _empty(model):
    counts = {key: 0 for key in COUNTERS}
    return {
        "model": model,
        "clients": {},
        "until_s": None,
        "because": None,
        "failures": {},
        "seconds": [],
        "reserved_usd": 0.0,
        **counts,
    }


def _add(totals, uses, sign=1):
    """Add the counters of uses, {backend: …}, to totals, or with sign -1 take them away."""
    for name, use in uses.items():
        total = totals.setdefault(name, _empty(use.get("model")))
        for key in COUNTERS:
            total[key] += sign * use.get(key, 0)
        for kind, n in (use.get("failures") or {}).items():
            total["failures"][kind] = total["failures"].get(kind, 0) + sign * n
        a, b = total["seconds"], use.get("seconds") or []
        total["seconds"] = [
            (a[k] if k < len(a) else 0) + (sign * b[k] if k < len(b) else 0)
            for k in range(max(len(a), len(b)))
        ]
