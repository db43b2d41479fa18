"""Images that were rejected lately, and the conditions that refused them, for the page.

    lately = RejectedLately()
    lately.note(now, "HPDv2", told, after=17)     # of a heartbeat; after: what it told before
    section(queries, clock.iso)                   # "rejected_lately" of the status document

Kept in memory: after a restart the next heartbeats fill it again. One row for each caption, with
its last image, so that one difficult caption does not hide the others.
"""

from collections.abc import Callable, Iterable
from typing import Any

from common.command_line import UserError
from common.expression import MOST_PARTS, parse, parts_of
from generate.protocol.fields import Fields

KEPT = 24
SHOWN = 8
MOST_TOLD = 16  # in a heartbeat; this project's clients tell 4
MOST_SCORES = 10  # of an image
MOST_SEED = 2**64
Json = dict[str, Any]
Key = tuple[str, int, int]  # data set, index, augmentation


class RejectedLately:
    """Under the ledger's lock."""

    def __init__(self) -> None:
        self._rows: dict[Key, Json] = {}  # oldest first

    def note(self, now: float, dataset: str | None, told: Iterable[Json], after: int) -> None:
        """Take in what a heartbeat tells; after: the client's count in the heartbeat before."""
        for entry in told:
            key = (dataset or "", entry["index"], entry["aug"])
            if entry["number"] <= after or self._rows.get(key, {}).get("seed") == entry["seed"]:
                continue
            self._rows.pop(key, None)
            self._rows[key] = entry | {"at": now}
        while len(self._rows) > KEPT:
            del self._rows[next(iter(self._rows))]

    def newest(self) -> list[tuple[Key, Json]]:
        """The rows, newest first."""
        return list(self._rows.items())[::-1]


def reported(fields: Fields) -> list[Json]:
    """What a heartbeat tells; BadField."""
    if not fields.values.get("rejected_lately"):
        return []
    return [
        {
            "number": item.number("number", 0, 10**12),
            "index": item.number("index", 0, 10**9),
            "aug": item.number("aug", 0, 10**6),
            "attempt": item.number("attempt", 0, 10**6),
            "seed": item.number("seed", 0, MOST_SEED),
            "scores": _scores(item.tree("scores", 10 * MOST_SCORES) or {}),
        }
        for item in fields.objects("rejected_lately", MOST_TOLD)
    ]


def _scores(told: Json) -> Json:
    return {
        str(name)[:40]: value if type(value) in (int, float) else None
        for name, value in list(told.items())[:MOST_SCORES]
    }


def section(queries: Any, iso: Callable[[float], str | None]) -> list[Json]:
    """The newest rows of the data sets that are known.

    {"dataset", "index", "aug", "try": from 1, "seed": as text, since JavaScript would round it,
    "scores", "refused_by": the conditions that do not hold, "time", "prompt", "image": None as yet}
    """
    names = set(queries.names())
    rows = [(key, row) for key, row in queries.rejected_lately() if key[0] in names][:SHOWN]
    accepts = {name: queries.definition(name).get("accept") for (name, *_), _ in rows}
    return [
        {
            "dataset": dataset,
            "index": index,
            "aug": aug,
            "try": row["attempt"] + 1,
            "seed": str(row["seed"]),
            "scores": row["scores"],
            "refused_by": refused_by(accepts[dataset], row["scores"]),
            "time": iso(row["at"]),
            "prompt": None,
            "image": None,
        }
        for (dataset, index, aug), row in rows
    ]


def refused_by(accept: str | None, scores: Json) -> list[str]:
    """The conditions of an expression that do not hold for these scores."""
    try:
        parts = parts_of(parse(accept or ""))[:MOST_PARTS]
    except UserError:  # edited by hand
        return []
    return [part.text for part in parts if not part.holds(scores)]
