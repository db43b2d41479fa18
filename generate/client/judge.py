"""Which images are accepted: what --scores, --accept and --max_tries say.

definition |= acceptance_of(args)         # for dataset.yaml, no weights loaded
judge = judge_of(args, definition)        # None without --scores
values = judge.score(pixels, texts)       # [{"clip": 0.31, "nsfw": 0.02}, …]
judge.accepts(values[0])
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.command_line import UserError
from common.expression import MOST_PARTS, Expression, parse, parts_of
from common.scores.interface import DHASH, Score, Values, identities, load_scores, values_of
from generate.dataset.accept_rule import BITS, Rule, awaits_dhash, rule_of
from generate.dataset.tries import Tried

MAX_TRIES = 4
UNSCORED: dict[str, Any] = {"scores": None, "accept": None, "max_tries": None}


@dataclass(frozen=True)
class Judge:
    """accept: None where images are only scored."""

    scores: Sequence[Score]
    accept: Expression | None = None
    max_tries: int = 1  # images of a caption that are judged at most
    keep: int = 0  # images of a prompt that are kept though they are not accepted
    min_accepted: float = 0.0  # the least share of accepted images that is worth going on
    changed: Rule | None = None  # accept and max_tries, where the data set was begun with others

    def score(self, pixels: Sequence[Any], texts: Sequence[str]) -> list[Values]:
        """The values of each image; pixels: uint8 arrays, height x width x 3.

        UserError, naming the score, where one fails or gives another number of values.
        """
        return values_of(self.scores, pixels, texts)

    def accepts(self, values: Values) -> bool:
        """By the values as they are kept, so that a reader finds the same."""
        return self.accept is None or self.accept.holds(values)

    @property
    def compares(self) -> bool:
        """Whether images are compared with others of their prompt (--scores dhash)."""
        return any(score.name == DHASH for score in self.scores)

    def awaits_others(self, values: Values, most: float = BITS) -> bool:
        """Whether an image has to be compared with others, to be accepted or for its dhash.

        most: its dhash by those that it was compared with.
        """
        if self.accept is None:
            return self.compares
        return awaits_dhash(self.accept, values, most)

    def report(self, tried: Mapping[int, Sequence[Tried]]) -> dict[str, Any]:
        """Counts of a finished prompt's images that were not accepted, for the job server.

        tried: by augmentation. refused: of each condition, images at which it does not hold; that
        on dhash does not count where other conditions have refused them.
        """
        rejected = [each.scores for one in tried.values() for each in one]
        parts = parts_of(self.accept)[:MOST_PARTS] if self.accept else []
        given_up = sum(len(one) >= self.max_tries for one in tried.values())
        return {
            "rejected": len(rejected),
            "not_accepted": given_up,
            "refused": [sum(_refuses(part, values) for values in rejected) for part in parts],
        }

    def hopeless(self, count: int, last: Values) -> str:
        """What to say when none of the first `count` images was accepted."""
        assert self.accept is not None
        said = ", ".join(f"{name} {value}" for name, value in last.items())
        return (
            f"none of the first {count} images was accepted by {self.accept.text!r} (the last one: "
            f"{said}); --preview 8 shows how the scores lie"
        )

    def facts(self) -> dict[str, Any]:
        """Fields of a sample's JSON beside the values."""
        return {
            "score_versions": [f"{score.name} {score.version}" for score in self.scores],
            "accept": self.accept.text if self.accept else None,
        }


def _refuses(part: Expression, values: Values) -> bool:
    return not part.holds(values) and not awaits_dhash(part, values)


def acceptance_of(args: Namespace) -> dict[str, Any]:
    """The fields of a definition. UserError for options that do not fit together."""
    if not args.scores:
        if args.accept or args.max_tries or args.keep_rejected:
            raise UserError(
                "--accept, --max_tries and --keep_rejected need --scores: which scores?"
            )
        return dict(UNSCORED)
    known = identities(args.scores)
    named = "; ".join(f"{name} {identity}" for name, identity in known.items())
    if not args.accept:
        if args.max_tries or args.keep_rejected:
            option = "--max_tries" if args.max_tries else "--keep_rejected"
            raise UserError(f"{option} needs --accept: which images are drawn again?")
        return UNSCORED | {"scores": named}
    expression = parse(args.accept)
    if unknown := expression.names - known.keys():
        raise UserError(
            f"--accept names {', '.join(sorted(unknown))}, and --scores gives {', '.join(known)}"
        )
    tries = args.max_tries or MAX_TRIES
    return {"scores": named, "accept": expression.text, "max_tries": tries}


def judge_of(args: Namespace, definition: Mapping[str, Any]) -> Judge | None:
    """The scores, loaded; UserError if one cannot be had.

    definition: the one that stands. It may have another rule than the options of a task that was
    submitted before.
    """
    if not args.scores:
        return None
    rule = Rule.of(definition)
    return Judge(
        load_scores(args.scores),
        rule.accept,
        rule.max_tries,
        keep=args.keep_rejected or 0,
        min_accepted=args.min_accepted,
        changed=rule_of(definition),
    )
