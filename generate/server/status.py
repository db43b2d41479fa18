"""What is known of a run, as one JSON document: the page, GET /status, /metrics and the terminal all show these figures.

    document = status_document(ledger, server, now, history)      # under the ledger's lock: a few queries, each bounded

Its size is bounded too (about 30 kB for 1,000 workers and 50,000 prompts set aside): long tables come in pages.
"""

import math
import shlex
import statistics
import time
from datetime import datetime, timezone
from urllib.parse import urlsplit

WORKERS_PAGE = 50
SET_ASIDE_PAGE = 10
LATENCY_BOUNDS_S = [
    0.05 * 2**k for k in range(14)
]  # upper bounds of an LLM call's latency classes, one more class above
SLOW = 0.5  # of the median speed of the workers that draw the same data set …
SILENT_BEATS = (
    4  # beats missed until a client counts as silent; after a TTL it is not shown any more
)
SLOW_AFTER_S = 120  # … once watched for this long
TEXT = 2000  # characters of an error or a prompt

WHAT_TO_DO = {
    "disk": [
        "Look at the space left: df -h {root}; quota -s",
        "Make room, or raise the quota. Nothing is lost: the next probe that succeeds starts everybody again.",
    ],
    "llm": [
        "See the table of LLM backends below for what they answer.",
        "Start the LLM servers again (ollama serve), or mend the key or the budget. The clients try again by themselves.",
    ],
    "gpu": [
        "Read the log named below: a driver, CUDA or memory error that every worker meets is usually the container's or the --batch_size's."
    ],
    "image": [
        "Look at the newest images: every check of a drawn image fails. Is it the right model, revision and dtype?"
    ],
    "prompt": ["Read the errors below: every prompt is refused. Is it the right prompts file?"],
}
WHAT_TO_DO["unknown"] = [
    "Read the log named below; leases start again by themselves with the first probe that succeeds."
]


def status_document(ledger, server, now, history, notice=None, workers_page=0, set_aside_page=0):
    """The status document (dict, JSON types only) of every data set of the output root.

    ledger: ledger.Ledger; server: what status_page.blueprint() asks of it; now: the ledger's seconds; history: run_history.RunHistory;
    notice: what the server is busy with beside its clients (a sentence), or None. workers_page, set_aside_page: pages of
    the two long tables, from 0; a page behind the last one is the last one.
    """
    clock = Clock(now)
    names = ledger.names()
    workers = [
        _worker(worker, clock, history, ledger.options)
        for worker in ledger.workers()
        # who has given everything back has left: it would soon count as silent
        if now - worker["beat_at"] <= ledger.options.ttl_s
        and not (worker["state"] == "releasing" and not worker["leases"])
    ]
    _mark_slow(workers, history)
    datasets = [_dataset(name, ledger, workers, history, clock) for name in names]
    document = {
        "document": 1,
        "time": clock.iso(now),
        "server": _server(server, clock),
        "weather": None,
        "datasets": datasets,
        "workers": _page(
            sorted(
                workers,
                key=lambda w: (not w["slow"], w["host"] or "", str(w["gpu"]), w["client_id"]),
            ),
            workers_page,
            WORKERS_PAGE,
        ),
        "quarantined": [_quarantined(row, clock, server) for row in ledger.quarantined()][:100],
        "set_aside": set_aside(ledger, server, clock, datasets, set_aside_page),
        "errors": [
            {"count": row["count"], **_error(row, clock, "last_error")}
            for row in ledger.errors()[:20]
        ],
        "llm": _llm(server, clock),
        "newest": [],
    }
    states = [worker["state"] for worker in workers]
    document["workers"].update(
        by_state={state: states.count(state) for state in sorted(set(states))},
        slow=sum(worker["slow"] for worker in workers),
    )
    document["weather"] = _weather(ledger.weather(), document, clock, server, notice)
    return document


class Clock:
    """The ledger counts seconds of its own; people read UTC and ages."""

    def __init__(self, now):
        self.now, self.unix_s = now, time.time()

    def iso(self, at):
        if at is None or isinstance(at, str):
            return at
        return (
            datetime.fromtimestamp(self.unix_s + at - self.now, timezone.utc)
            .isoformat(timespec="seconds")
            .replace("+00:00", "Z")
        )

    def seconds_to(self, at):
        return None if at is None else max(0.0, round(at - self.now, 1))


def _server(server, clock):
    about = server.about()
    return {
        **about,
        "output_root": str(server.output_root),
        "ssh": tunnel(about),
        "uptime_s": round(
            clock.unix_s
            - datetime.fromisoformat(about["started"].replace("Z", "+00:00")).timestamp()
        ),
    }


def tunnel(about):
    """The line that forwards the page's port: through the login host, or to the server's own machine where it listens on loopback only."""
    address, port = urlsplit(about["url"]), about["port"]
    if address.hostname in ("127.0.0.1", "::1", "localhost"):
        return f"ssh -N -L {port}:{address.netloc} {about['hostname']}"
    return f"ssh -N -L {port}:{address.netloc} <login host>"


def _dataset(name, ledger, workers, history, clock):
    definition, counts = ledger.definition(name), ledger.counts(name)
    per_prompt = definition["images_per_prompt"]
    per_hour = history.per_hour(name)
    if per_hour is None:
        speeds = [
            w["images_per_hour"]
            for w in workers
            if w["dataset"] == name and w["images_per_hour"] is not None
        ]
        per_hour = sum(speeds) if speeds else None
    left = (counts["waiting"] + counts["leased"]) * per_prompt
    return {
        "name": name,
        **{
            key: counts[key]
            for key in (
                "total",
                "waiting",
                "leased",
                "done",
                "set_aside",
                "short",
                "short_images",
                "images",
            )
        },
        "sum_ok": counts["waiting"] + counts["leased"] + counts["done"] + counts["set_aside"]
        == counts["total"],
        "images_expected": counts["total"] * per_prompt,
        "images_per_prompt": per_prompt,
        "images_per_hour": None if per_hour is None else round(per_hour, 1),
        "eta_s": 0 if left == 0 else round(left / per_hour * 3600) if per_hour else None,
        "given_back": counts["given_back"],
        "prompts_file": definition.get("prompts_file"),
        "model": definition.get("model"),
        "history": history.points(name)
        + ([[round(clock.unix_s), counts["images"]]] if left else []),
    }


def log_of(worker):
    """Bare name of a worker's log file in the output root, or None: <array>_<task>.out, or what the client calls it."""
    if worker.get("log"):
        return worker["log"]
    return (
        f"{worker['array_job']}_{worker['task']}.out"
        if worker.get("array_job") is not None
        else None
    )


def _worker(row, clock, history, options):
    worker, drawing, age = (
        row["worker"] or {},
        list(row["drawing"] or ()),
        clock.now - row["beat_at"],
    )
    speed = history.worker_per_hour(row["client_id"])
    return {
        **{key: worker.get(key) for key in ("host", "gpu", "array_job", "task", "restart")},
        "client_id": row["client_id"],
        "dataset": row["dataset"],
        "state": "silent"
        if age > SILENT_BEATS * options.heartbeat_s
        else row["state"] or "unknown",
        "lease": ", ".join(row["leases"] or ()),
        "drawing": drawing[:5],
        "drawing_more": len(drawing[5:]),
        "images": row["images"],
        "images_per_hour": None if speed is None else round(speed, 1),
        "slow": False,
        "beat_age_s": round(max(0.0, age), 1),
        "log": log_of(worker),
    }


def _mark_slow(workers, history):
    """Slow: draws less than half as fast as the median of three or more that draw the same data set, watched for two minutes."""
    drawing = [
        w
        for w in workers
        if w["state"] == "drawing"
        and w["images_per_hour"] is not None
        and history.watched_s(w["client_id"]) >= SLOW_AFTER_S
    ]
    for name in {w["dataset"] for w in drawing}:
        peers = [w for w in drawing if w["dataset"] == name]
        median = statistics.median(w["images_per_hour"] for w in peers)
        for worker in peers if len(peers) >= 3 else ():
            worker["slow"] = worker["images_per_hour"] < SLOW * median


def _page(rows, page, size):
    pages = max(1, math.ceil(len(rows) / size))
    page = min(page, pages - 1)
    return {
        "total": len(rows),
        "page": page,
        "pages": pages,
        "rows": rows[page * size : (page + 1) * size],
    }


def _command(server, option):
    return f"python generate/image_server.py --output_root {shlex.quote(str(server.output_root))} {option}"


def _error(row, clock, name="error"):
    worker = row.get("worker") or {}
    return {
        "time": clock.iso(row.get("time")),
        "reason": row.get("reason"),
        name: (row.get("error") or "")[:TEXT],
        "host": worker.get("host"),
        "gpu": worker.get("gpu"),
        "log": log_of(worker),
    }


def _quarantined(row, clock, server):
    return {
        "host": row["host"],
        "gpu": row["gpu"],
        "since": clock.iso(row.get("since")),
        "probe_in_s": clock.seconds_to(row.get("until")),
        "failures": row.get("failures"),
        "last_errors": [_error(error, clock) for error in row.get("errors") or ()][-3:],
        "log": log_of(row.get("worker") or {}),
        "command": _command(server, f"--release_quarantine {shlex.quote(row['host'] or '')}"),
    }


def set_aside(ledger, server, clock, datasets, page):
    """One page of the prompts set aside, over all data sets; the query costs the same however many there are."""
    total = sum(dataset["set_aside"] for dataset in datasets)
    pages = max(1, math.ceil(total / SET_ASIDE_PAGE))
    page = min(page, pages - 1)
    skip, rows = page * SET_ASIDE_PAGE, []
    for dataset in datasets:
        if skip < dataset["set_aside"] and len(rows) < SET_ASIDE_PAGE:
            for row in ledger.set_aside(dataset["name"], skip, SET_ASIDE_PAGE - len(rows))[1]:
                errors = [_error(error, clock) for error in row["errors"]][-3:]
                rows.append(
                    {
                        "dataset": dataset["name"],
                        "index": row["index"],
                        "prompt": None,
                        "marks": row["marks"],
                        "errors": errors,
                    }
                )
        skip = max(0, skip - dataset["set_aside"])
    return {
        "total": total,
        "page": page,
        "pages": pages,
        "command": _command(server, "--retry_failed"),
        "rows": rows,
    }


# ---------------------------------------------------------------- LLM backends


def quantile_s(counts, share):
    """Seconds within which that share of the calls ended (None without calls), as if a latency class's calls were spread evenly over it.

    counts: calls per class of LATENCY_BOUNDS_S and one above, of which only the lower bound is known.
    """
    wanted, lower = share * sum(counts), 0.0
    for bound, count in zip([*LATENCY_BOUNDS_S, LATENCY_BOUNDS_S[-1]], counts):
        if count and wanted <= count:
            return round(lower + (bound - lower) * wanted / count, 3)
        wanted, lower = wanted - count, bound
    return None if not sum(counts) else LATENCY_BOUNDS_S[-1]


def _llm(server, clock):
    accounts = getattr(server, "accounts", None)
    totals = accounts.totals() if accounts else {}
    backends = []
    for name, use in sorted(totals.items()):
        clients = use.get("clients") or {}
        seconds = use.get("seconds") or []
        backends.append(
            {
                "name": name,
                "model": use.get("model"),
                "state": next(
                    (state for state in ("healthy", "cooling", "off") if clients.get(state)),
                    use.get("state") or "unused",
                ),
                "clients": clients,
                "until_s": use.get("until_s"),
                "because": (use.get("because") or "")[:TEXT] or None,
                "calls": use.get("calls", 0),
                "failures": use.get("failures") or {},
                "seconds": seconds,
                "p50_s": quantile_s(seconds, 0.5),
                "p95_s": quantile_s(seconds, 0.95),
                **{
                    key: use.get(key, 0)
                    for key in ("prompt_tokens", "completion_tokens", "usd", "reserved_usd")
                },
                "budget_usd": use.get("budget_usd"),
            }
        )
    sums = {
        key: sum(backend[key] for backend in backends)
        for key in ("calls", "prompt_tokens", "completion_tokens", "usd", "reserved_usd")
    }
    failures = sum(sum(backend["failures"].values()) for backend in backends)
    money = {
        "budget_usd": (accounts.budget_usd or None) if accounts else None,
        "paid_off": accounts.paid_off if accounts else None,
    }
    return {**sums, "failures": failures, **money, "backends": backends}


# ---------------------------------------------------------------- weather


def _weather(weather, document, clock, server, notice):
    """What the run as a whole suffers from, in words, and what to do; the ledger's own verdict first."""
    workers, datasets = document["workers"], document["datasets"]
    open_indices = sum(dataset["waiting"] + dataset["leased"] for dataset in datasets)
    answer = {
        "state": weather["state"],
        "reason": weather.get("reason"),
        "since": clock.iso(weather.get("since")),
        "probe_in_s": clock.seconds_to(weather.get("probe_at")),
        "errors": [_error(error, clock, "last_error") for error in weather.get("errors") or ()][
            -5:
        ],
        "what_to_do": [],
    }
    if weather["state"] == "storm":
        answer["headline"] = (
            "Every worker fails, so no work is given out: nobody is blamed, nothing is set aside."
        )
        answer["what_to_do"] = [
            line.format(root=server.output_root)
            for line in WHAT_TO_DO.get(weather.get("reason"), WHAT_TO_DO["unknown"])
        ]
    elif weather["state"] == "draining":
        answer["headline"] = "Draining: running leases are finished, no new ones are given."
        answer["what_to_do"] = [_command(server, "--resume")]
    elif notice:
        answer.update(state="rebuilding", headline=notice)
    elif not datasets:
        answer.update(
            state="idle",
            headline="No data set yet: no client has asked for work.",
            what_to_do=["python generate/generate_images.py PROMPTS.json …"],
        )
    elif not open_indices:
        answer.update(
            state="finished",
            headline="All work is done."
            if not document["set_aside"]["total"]
            else "All work is done but for the prompts set aside.",
        )
    elif not workers["total"]:
        answer.update(
            state="idle",
            headline="Work is left, and no client is asking for it.",
            what_to_do=[
                "squeue --me",
                "python generate/generate_images.py PROMPTS.json … --use_slurm",
            ],
        )
    elif workers["by_state"].get("waiting_llm") == workers["total"] and not any(
        b["clients"].get("healthy") for b in document["llm"]["backends"]
    ):
        answer.update(
            state="storm",
            reason="llm",
            headline="Every client waits for an LLM, and none is healthy.",
            what_to_do=WHAT_TO_DO["llm"],
        )
    else:
        answer.update(state="fair", headline="Running.")
    return answer
