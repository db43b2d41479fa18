"""Check that the expression in a JSON accepts its image, and none of the tries before.

why = not_accepted(record)       # "its scores do not fulfil 'nsfw < 0.2': nsfw 0.4"; None: it is

A JSON without `accept` is of a run that accepts all images.
"""

import functools
from collections.abc import Mapping
from typing import Any

from common.command_line import UserError
from common.expression import Expression, parse


def not_accepted(record: Mapping[str, Any]) -> str | None:
    """What is wrong with a sample's scores by its own `accept`, or None."""
    accept = record.get("accept")
    if accept is None:
        return None
    rule = _rule(accept) if isinstance(accept, str) else None
    if rule is None:
        return f"its expression {accept!r} is none"
    scores = _scores(record)
    if not rule.holds(scores):
        return f"its scores do not fulfil {accept!r}: {_said(rule, scores)}"
    tries = record.get("rejected")
    for number, tried in enumerate(tries if isinstance(tries, list) else (), start=1):
        if rule.holds(scores := _scores(tried)):
            return f"its try {number} was rejected and fulfils {accept!r}: {_said(rule, scores)}"
    return None


@functools.lru_cache
def _rule(text: str) -> Expression | None:
    try:
        return parse(text)
    except UserError:
        return None


def _scores(record: Any) -> dict[str, Any]:
    found = record.get("scores") if isinstance(record, Mapping) else None
    return found if isinstance(found, dict) else {}


def _said(rule: Expression, scores: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {scores.get(name)}" for name in sorted(rule.names))
