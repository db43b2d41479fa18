"""Acceptance of a data set with --accept: the counts that clients report, and their section.

    tally(store, "HPDv2", results, accepted)         # with a completion, in its transaction
    section(queries, "HPDv2", definition)            # "acceptance" of the status document
    too_few(queries, "HPDv2", definition, 0.01)      # None, or why the run is to end

Counted when a prompt is done. A ledger that is lost begins to count anew, and so does a data set
whose rule is changed.
"""

from collections.abc import Container
from typing import Any

from common.command_line import UserError
from common.expression import MOST_PARTS, parse, parts_of
from generate.protocol.fields import Fields
from generate.server.ledger import origins
from generate.server.ledger.queries import Queries
from generate.server.storage.store import Store

MOST = 10**9  # images of a prompt
ENOUGH = 2000  # images of finished prompts, before a share of them says anything
Json = dict[str, Any]


def reported(item: Fields) -> Json:
    """What a completed prompt says of its images."""
    return {
        "rejected": item.number("rejected", 0, MOST, 0),
        "not_accepted": item.number("not_accepted", 0, MOST, 0),
        "refused": item.numbers("refused", MOST_PARTS, 0, MOST, []),
    }


def tally(store: Store, dataset: str, results: list[Json], accepted: Container[int]) -> None:
    """Add up what was reported of the prompts that are accepted now."""
    new = [result for result in results if result["index"] in accepted]
    for name in ("truncated", "rejected", "not_accepted"):
        store.tally(dataset, name, sum(result.get(name, 0) for result in new))
    origins.tally(store, dataset, new)
    if not store.definition(dataset).get("accept"):
        return
    store.tally(dataset, "accepted", sum(result.get("images", 0) for result in new))
    for result in new:
        for number, count in enumerate(result.get("refused", ())):
            store.tally(dataset, f"refused_{number}", count)


def begin_anew(store: Store, dataset: str) -> None:
    """Delete the counts of an earlier rule."""
    store.run(
        "DELETE FROM tallies WHERE dataset = ? AND (name IN ('accepted', 'rejected',"
        " 'not_accepted') OR name LIKE 'refused_%')",
        dataset,
    )


def too_few(queries: Queries, name: str, definition: Json, floor: float) -> str | None:
    """Why nothing more is granted: of the images of all clients too few were accepted. Or None.

    If 2 % are accepted in the long run and the floor is 1 %, the first ENOUGH images end the run by
    chance once in 6,000 times.
    """
    if not definition.get("accept") or not floor:
        return None
    accepted = queries.tally(name, "accepted")
    judged = accepted + queries.tally(name, "rejected")
    if judged < ENOUGH or accepted >= floor * judged or not queries.counts(name)["waiting"]:
        return None
    return (
        f"{accepted / judged:.2%} of {judged:,} images were accepted by {definition['accept']!r}, "
        f"less than --min_accepted {floor:g}: the run ends; --preview 8 shows how the scores lie, "
        "--min_accepted 0 goes on all the same"
    )


def section(queries: Queries, name: str, definition: Json) -> Json | None:
    """None where all images are accepted.

    {"accept": the expression, "accepted", "rejected": images, "share" (None: none was judged yet),
    "not_accepted": captions given up, "parts": [{"text", "refused": images at which it is false}]}
    """
    if not definition.get("accept"):
        return None
    accepted, rejected = queries.tally(name, "accepted"), queries.tally(name, "rejected")
    judged = accepted + rejected
    try:
        parts = parts_of(parse(definition["accept"]))[:MOST_PARTS]
    except UserError:  # edited by hand
        parts = []
    return {
        "accept": definition["accept"],
        "accepted": accepted,
        "rejected": rejected,
        "share": round(accepted / judged, 4) if judged else None,
        "not_accepted": queries.tally(name, "not_accepted"),
        "parts": [
            {"text": part.text, "refused": queries.tally(name, f"refused_{number}")}
            for number, part in enumerate(parts)
        ],
    }
