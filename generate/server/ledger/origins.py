"""Captions and images by LLM and by source: the counts that clients report, and their section.

    tally(store, "HPDv2", results)           # of prompts accepted now, in their transaction
    section(queries, "HPDv2", judged=True)   # "origins" of the status document

Counted when a prompt is done. A ledger that is lost begins to count anew.
"""

from typing import Any

from common.console import visible
from generate.protocol.fields import BadField, Fields
from generate.server.ledger.queries import Queries
from generate.server.storage.store import Store

KINDS = ("llm", "source")
COUNTS = ("captions", "images", "rejected")
MOST = 10**9  # of a count
MOST_REPORTED = 50  # names in the report of a prompt
MOST_NAMES = 100  # of a kind that a data set counts apart; further ones are counted together
SHOWN = 12  # of a kind in the document; the smaller ones are added up
LONGEST = 100  # characters of a name
OTHERS = "others"
ADD = ", ".join(f"{name} = {name} + ?" for name in COUNTS)
Json = dict[str, Any]


def reported(item: Fields) -> Json:
    """What a completed prompt says of where its captions are from; BadField."""
    told = item.object("origins", None)
    found: dict[tuple[str, str], list[int]] = {}
    for kind in KINDS if told else ():
        names = told.object(kind, None)
        if names and len(names.values) > MOST_REPORTED:
            raise BadField(f"{told.where}{kind} has more than {MOST_REPORTED} names")
        for name in names.values if names else ():
            counts = names.numbers(name, len(COUNTS), 0, MOST)
            if len(counts) != len(COUNTS):
                raise names.bad(name, f"{len(COUNTS)} whole numbers", counts)
            found[kind, visible(name)[:LONGEST]] = counts
    return {"origins": found}


def tally(store: Store, dataset: str, results: list[Json]) -> None:
    """Add up what was reported of prompts that are accepted now."""
    sums: dict[tuple[str, str], list[int]] = {}
    for result in results:
        for key, counts in result.get("origins", {}).items():
            before = sums.get(key, [0] * len(COUNTS))
            sums[key] = [a + b for a, b in zip(before, counts, strict=True)]
    for (kind, name), counts in sums.items():
        place = "dataset = ? AND kind = ? AND name = ?"
        if store.run(f"UPDATE origins SET {ADD} WHERE {place}", *counts, dataset, kind, name):
            continue
        known = store.one(
            "SELECT COUNT(*) FROM origins WHERE dataset = ? AND kind = ?", dataset, kind
        )[0]
        store.run(
            "INSERT INTO origins VALUES (?, ?, ?, ?, ?, ?)"
            f" ON CONFLICT (dataset, kind, name) DO UPDATE SET {ADD}",
            dataset,
            kind,
            OTHERS if known >= MOST_NAMES else name,
            *counts,
            *counts,
        )


def begin_anew(store: Store, dataset: str) -> None:
    """What was counted of a data set counts no more, in the caller's transaction."""
    store.run("DELETE FROM origins WHERE dataset = ?", dataset)


def section(queries: Queries, name: str, judged: bool) -> Json:
    """{"llm": rows, "source": rows}, those with most images first.

    A row: {"name", "captions", "images", "rejected", "share": of its images that were accepted, or
    None}. judged: whether the data set has --accept.
    """
    found: Json = {kind: [] for kind in KINDS}
    for kind, *row in queries.origins(name):
        found[kind].append(row)
    return {kind: [_row(row, judged) for row in _shortened(rows)] for kind, rows in found.items()}


def _shortened(rows: list[list[Any]]) -> list[list[Any]]:
    """At most SHOWN rows; the last one adds up what is left."""
    rows = sorted(rows, key=lambda row: (row[0] == OTHERS, -row[2], row[0]))
    if len(rows) <= SHOWN:
        return rows
    rest = rows[SHOWN - 1 :]
    return [*rows[: SHOWN - 1], [OTHERS, *(sum(row[k] for row in rest) for k in (1, 2, 3))]]


def _row(row: list[Any], judged: bool) -> Json:
    known = dict(zip(("name", *COUNTS), row, strict=True))
    drawn = known["images"] + known["rejected"]
    return {**known, "share": round(known["images"] / drawn, 4) if judged and drawn else None}
