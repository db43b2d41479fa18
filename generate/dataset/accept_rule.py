"""The rule of what is accepted, where it was changed in a run: which captions it opens again.

    rule = rule_of(definition)                  # None: it never changed, and every .failed stands
    rule.gave_up(dataset_dir, 12345, 3)         # whether a .failed that lies there stands
    rule.refused(tries)                         # the tries before the first that it would accept

A caption was given up under the rule of that time. It is tried again if the present rule allows
more images, or would have accepted one of those generated: that seed is then generated again, since
its image was not kept. So it ends as if the run had begun with the present rule. Published images
stay under any later rule: each JSON names the expression by which it was accepted.

    awaits_dhash(accept, scores)                # the prompt's other images decide

An image that is refused whatever its dhash is not compared with others: its dhash stays null.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.command_line import UserError
from common.expression import Expression, parse
from generate.dataset.tries import Tried, not_accepted

# As in common/scores/, which needs numpy: the job server does without.
DHASH = "dhash"
BITS = 64  # of a fingerprint


def awaits_dhash(accept: Expression, scores: Mapping[str, Any], most: float = BITS) -> bool:
    """Whether an image has no dhash yet, and some dhash up to `most` would have it accepted."""
    if scores.get(DHASH, 0) is not None:
        return False
    return any(accept.holds({**scores, DHASH: bits}) for bits in range(int(most) + 1))


@dataclass(frozen=True)
class Rule:
    """accept: None where all images are accepted."""

    accept: Expression | None
    max_tries: int

    @classmethod
    def of(cls, definition: Mapping[str, Any]) -> "Rule":
        """UserError: an expression that is none."""
        accept = definition.get("accept")
        return cls(parse(accept) if accept else None, definition.get("max_tries") or 1)

    def refused(self, tries: Sequence[Tried]) -> list[Tried]:
        """The tries that it refuses, in order, up to the first that it accepts, or might."""
        before: list[Tried] = []
        for tried in tries:
            if self.accept is None or self.accept.holds(tried.scores):
                break
            if awaits_dhash(self.accept, tried.scores):
                break
            before.append(tried)
        return before

    def gave_up(self, dataset_dir: str | os.PathLike[str], index: int, aug: int) -> bool:
        """Whether a caption's .failed stands: given up for another reason, or by this rule too."""
        tries = not_accepted(dataset_dir, index, aug)
        return tries is None or len(self.refused(tries)) == len(tries) >= self.max_tries


def rule_of(definition: Mapping[str, Any]) -> Rule | None:
    """The rule of a data set, where it is not the one it was begun with; else None."""
    if not definition.get("rule_changed"):
        return None
    try:
        return Rule.of(definition)
    except UserError:  # edited by hand: what was given up stays so
        return None
