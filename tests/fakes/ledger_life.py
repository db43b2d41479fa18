"""A short history of a ledger that can end at any step on disk.

forking.py runs it: Forking("ledger_life")("die_at", path, epoch, step, log).
"""

import json
import os
from pathlib import Path

from generate.protocol.answers import Grant
from generate.server.ledger.granting import WorkRequest
from generate.server.ledger.ledger import open_ledger
from generate.server.ledger.live_leases import Heartbeat, LeaseLimits
from generate.server.storage import schema

WORKER = {"host": "n", "gpu": "g"}
FILE_CALLS = ("open", "pwrite", "fsync", "rename", "close")


def life(path, epoch, answered, dies=lambda what: None):
    """A short life of a server: every verb once or more.

    answered(fact) is called when an answer has been given; dies(what) before each step on disk.
    """
    for name in FILE_CALLS:
        real = getattr(os, name)

        def dying(*args, real=real, name=name, **kwargs):
            dies(name)
            return real(*args, **kwargs)

        setattr(schema.os, name, dying)
    now = 0.0
    connect = schema.sqlite3.connect

    def traced(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(lambda sql: dies(sql.split(" ")[0]))
        return connection

    schema.sqlite3.connect = traced
    ledger = open_ledger(path, epoch, now, LeaseLimits(max_strikes=1, max_failures=2, ttl_s=20))
    definition = {"name": "d", "total": 1500, "images_per_prompt": 1, "order_seed": None}
    ledger.define(now, definition)
    answered({"defined": 1500})
    while work := ledger.comparison.next_check():
        found = {1200: (1, 0), 1201: (1, 0)} if work[1] == 1 else {}
        ledger.comparison.folder_checked(*work, found)
    answered({"done": [1200, 1201]})
    grants = [ledger.lease(now, WorkRequest("d", f"c{n}", f"l{n}", WORKER, 4)) for n in range(4)]
    assert all(isinstance(grant, Grant) for grant in grants)
    a, b, c, d = grants
    answered({"held": {idx: grant.lease for grant in (a, d) for idx in grant.indices[2:]}})
    results = [{"index": idx, "images": 1} for idx in a.indices[:2]]
    ledger.complete(now, "c0", "x0", a.lease, results, dict.fromkeys(a.indices, True))
    answered({"done": a.indices[:2]})
    results = [{"index": b.indices[0], "reason": "prompt", "error": "no", "known_good": True}]
    ledger.fail(now, "c1", "x1", b.lease, results)
    answered({"failed": [b.indices[0]]})
    ledger.release(now, "c2", "x2", c.lease, "preempted")
    answered({"released": len(c.indices)})
    ledger.define(now, definition | {"total": 2500})
    answered({"defined": 2500})
    for n in range(1, 62):
        ledger.heartbeat(n, Heartbeat("c0", [a.lease], "loading"))
        ledger.heartbeat(n, Heartbeat("c3", [d.lease], "loading"))
        ledger.sweep(n)
    ledger.retry_failed("d", [b.indices[0]])
    answered({"failed": []})
    ledger.close()


def die_at(path, epoch, number, log):
    """A life that ends at its number-th step on disk; the log has a JSON line per answer."""
    count = 0

    def dies(what):
        nonlocal count
        count += 1
        if count == number:
            os._exit(7)

    with open(log, "a", buffering=1) as handle:
        life(Path(path), epoch, lambda fact: handle.write(json.dumps(fact) + "\n"), dies)
