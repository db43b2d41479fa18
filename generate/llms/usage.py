"""Running totals of one backend in this process, as they are reported to the job server.

usage = Usage(); usage.calls += 1; usage.answered(1.8, 420, 130)
line("openai", backend.use(now))
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from generate.protocol.latency import LATENCY_BOUNDS_S

SUMMED = ("calls", "successes", "prompt_tokens", "completion_tokens", "usd")
SUMMED_OVER_CLIENTS = ("calls", "prompt_tokens", "completion_tokens", "usd")
Use = dict[str, Any]  # Usage.document() and a backend's state: what travels to the job server


@dataclass
class Usage:
    """calls: asked; successes: answers that were used; seconds: successes per class of latency."""

    calls: int = 0
    successes: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))

    def succeeded(self, seconds: float) -> None:
        """Count an answer that was used, and how long it took."""
        self.successes += 1
        self.seconds[sum(seconds >= bound for bound in LATENCY_BOUNDS_S)] += 1

    def document(self) -> Use:
        """The counters, JSON-serialisable."""
        return {
            "calls": self.calls,
            "successes": self.successes,
            "failures": dict(self.failures),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usd": self.usd,
            "seconds": list(self.seconds),
        }


def added(before: Use | None, now: Use) -> Use:
    """Totals of a backend before and after its file was read again; the later state stands."""
    if before is None:
        return now
    sums = {key: before[key] + now[key] for key in SUMMED}
    failures: Counter[str] = Counter(before["failures"]) + Counter(now["failures"])
    seconds = [a + b for a, b in zip(before["seconds"], now["seconds"], strict=True)]
    return {**now, **sums, "failures": dict(failures), "seconds": seconds}


def empty_total(model: str | None) -> dict[str, Any]:
    """The sums over all clients of a backend that nobody has asked yet."""
    return {
        "model": model,
        "clients": {},
        "until_s": None,
        "because": None,
        "failures": {},
        "seconds": [],
        "reserved_usd": 0.0,
        **dict.fromkeys(SUMMED_OVER_CLIENTS, 0),
    }


def add_to(totals: dict[str, dict[str, Any]], uses: dict[str, Use], sign: int = 1) -> None:
    """Add the counters of uses, {backend: …}, to totals; with sign -1 take them away."""
    for name, use in uses.items():
        total = totals.setdefault(name, empty_total(use.get("model")))
        for key in SUMMED_OVER_CLIENTS:
            total[key] += sign * use.get(key, 0)
        for kind, n in (use.get("failures") or {}).items():
            total["failures"][kind] = total["failures"].get(kind, 0) + sign * n
        more = [sign * n for n in use.get("seconds") or []]
        pairs = itertools.zip_longest(total["seconds"], more, fillvalue=0)
        total["seconds"] = [a + b for a, b in pairs]


def line(name: str, use: Use) -> str:
    """One line for people: calls, failures by kind, latency, tokens, cost, state."""
    failures = "".join(f", {n} × {kind}" for kind, n in use["failures"].items())  # noqa: RUF001
    half = _quantile(use["seconds"], 0.5)
    most = _quantile(use["seconds"], 0.95)
    latency = f"half below {half} s, 95 % below {most} s; " if use["successes"] else ""
    tokens = f"{use['prompt_tokens']:,} + {use['completion_tokens']:,} tokens"
    state = use["state"] + (f" ({use['because']})" if use["because"] else "")
    return (
        f"{name}: {use['calls']:,} calls, {use['successes']:,} good{failures}; {latency}"
        f"{tokens}, {use['usd']:.4f} USD; {state}"
    )


def _quantile(counts: list[int], share: float) -> str:
    """Upper bound of the latency class in which that share of the answers lies."""
    so_far = 0
    for bound, count in zip([*LATENCY_BOUNDS_S, float("inf")], counts, strict=True):
        so_far += count
        if so_far and so_far >= share * sum(counts):
            return f"{bound:.3g}"
    return "-"
