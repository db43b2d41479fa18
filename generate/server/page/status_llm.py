"""The LLM backends in the status document: calls, failures, latencies, tokens, money."""

from typing import Any

from generate.llms.budget import Accounts
from generate.protocol.latency import quantile_s

Json = dict[str, Any]
STATES = ("healthy", "cooling", "off")  # as clients report them; the best one counts
SUMS = ("calls", "prompt_tokens", "completion_tokens", "usd", "reserved_usd")
TEXT = 2000  # characters of a reason


def llm_section(accounts: Accounts) -> Json:
    """The "llm" of the status document, under the ledger's lock, whose file the accounts share."""
    backends = [_backend(name, use) for name, use in sorted(accounts.totals().items())]
    return {
        **{key: sum(backend[key] for backend in backends) for key in SUMS},
        "failures": sum(sum(backend["failures"].values()) for backend in backends),
        "budget_usd": accounts.budget_usd or None,
        "paid_off": accounts.paid_off,
        "backends": backends,
    }


def _backend(name: str, use: Json) -> Json:
    clients = use.get("clients") or {}
    seconds = use.get("seconds") or []
    seen = [state for state in STATES if clients.get(state)]
    return {
        "name": name,
        "model": use.get("model"),
        "state": seen[0] if seen else use.get("state") or "unused",
        "clients": clients,
        "until_s": use.get("until_s"),
        "because": (use.get("because") or "")[:TEXT] or None,
        "failures": use.get("failures") or {},
        "seconds": seconds,
        "p50_s": quantile_s(seconds, 0.5),
        "p95_s": quantile_s(seconds, 0.95),
        **{key: use.get(key, 0) for key in SUMS},
        "budget_usd": use.get("budget_usd"),
    }
