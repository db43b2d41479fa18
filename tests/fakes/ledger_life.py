"""A short life of a ledger that can end at any step on disk. forking.py runs it: Forking("ledger_life")("die_at", path, epoch, step, log)."""

import json
import os
from pathlib import Path

from generate.protocol.answers import Grant
from generate.server import schema as ledger_tables
from generate.server.ledger import Ledger
from generate.server.live_leases import LeaseLimits

WORKER = {"host": "n", "gpu": "g"}
FILE_CALLS = ("open", "pwrite", "fsync", "rename", "close")


def life(path, epoch, answered, dies=lambda what: None):
    """A short life of a server: every verb once or more. answered(fact): called when an answer has been given; dies(what) before each
    step on disk."""
    for name in FILE_CALLS:
        real = getattr(os, name)
        setattr(
            ledger_tables.os, name, lambda *args, real=real, name=name: (dies(name), real(*args))[1]
        )
    now, connect = 0.0, ledger_tables.sqlite3.connect

    def traced(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(lambda sql: dies(sql.split(" ")[0]))
        return connection

    ledger_tables.sqlite3.connect = traced
    ledger = Ledger(path, epoch, now, LeaseLimits(max_strikes=1, max_failures=2, ttl_s=20))
    ledger.define(now, {"name": "d", "total": 1500, "images_per_prompt": 1, "order_seed": None})
    answered({"defined": 1500})
    while work := ledger.next_check():
        ledger.folder_checked(now, *work, {1200: (1, 0), 1201: (1, 0)} if work[1] == 1 else {})
    answered({"done": [1200, 1201]})
    grants = [ledger.lease(now, "d", f"c{n}", f"l{n}", WORKER, 4) for n in range(4)]
    assert all(isinstance(grant, Grant) for grant in grants)
    a, b, c, d = grants
    answered({"held": {idx: grant.lease for grant in (a, d) for idx in grant.indices[2:]}})
    ledger.complete(
        now,
        "c0",
        "x0",
        a.lease,
        [{"index": idx, "images": 1} for idx in a.indices[:2]],
        dict.fromkeys(a.indices, True),
    )
    answered({"done": a.indices[:2]})
    ledger.fail(
        now,
        "c1",
        "x1",
        b.lease,
        [{"index": b.indices[0], "reason": "prompt", "error": "no", "known_good": True}],
    )
    answered({"set_aside": [b.indices[0]]})
    ledger.release(now, "c2", "x2", c.lease, "preempted")
    answered({"given_back": len(c.indices)})
    ledger.define(now, {"name": "d", "total": 2500, "images_per_prompt": 1, "order_seed": None})
    answered({"defined": 2500})
    for n in range(1, 62):
        ledger.beat(n, "c0", [a.lease], "loading")
        ledger.beat(n, "c3", [d.lease], "loading")
        ledger.sweep(n)
    ledger.retry_failed(61, "d", [b.indices[0]])
    answered({"set_aside": []})
    ledger.close()


def die_at(path, epoch, number, log):
    """A life that ends at its number-th step on disk; what it was answered stands in the log, a line of JSON each."""
    count = 0

    def dies(what):
        nonlocal count
        count += 1
        if count == number:
            os._exit(7)

    with open(log, "a", buffering=1) as handle:
        life(Path(path), epoch, lambda fact: handle.write(json.dumps(fact) + "\n"), dies)
