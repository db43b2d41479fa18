"""Classes of an LLM call's seconds: clients count calls in them, the server adds them up."""

# Upper bounds of the classes (0.05 s … 410 s); one more class lies above.
LATENCY_BOUNDS_S: list[float] = [0.05 * 2**k for k in range(14)]


def quantile_s(counts: list[int], share: float) -> float | None:
    """Seconds within which that share of the calls ended; None without calls.

    Interpolated: the calls of a class count as spread evenly over it. counts: calls for each class
    of LATENCY_BOUNDS_S and for one above, of which only the lower bound is known.
    """
    wanted = share * sum(counts)
    lower = 0.0
    for bound, count in zip([*LATENCY_BOUNDS_S, LATENCY_BOUNDS_S[-1]], counts, strict=False):
        if count and wanted <= count:
            return round(lower + (bound - lower) * wanted / count, 3)
        wanted -= count
        lower = bound
    return LATENCY_BOUNDS_S[-1] if sum(counts) else None
