"""Which rows of a table go into the tars: --where, over its columns and a table of scores.

    where = Where("score_clip > 0.28 and width >= 512", scores="scores")
    where.check(files)                    # UserError: a name that is none of the columns
    batch.filter(where.mask(batch))
    where.kept(files, 10_000)             # how many of 10,000 rows, sha256 of their keys

Names are the table's columns, `score_NAME`, and what dhash finds: `dhash_distance`,
`dhash_set_distance`, `near_duplicate_of`, `near_duplicate_cosine`. A score is taken from the table
of scores, where that has it; else from the scores that the sample's JSON had when the table was
made. A row without a score is unknown to a comparison, and not taken.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
import pyarrow as pa

from common.command_line import UserError
from common.expression import Expression, parse
from postprocess_dataset import near_table, table
from postprocess_dataset.column_values import values_of
from postprocess_dataset.score_table import ScoreTable
from postprocess_dataset.shard_rows import KEY, columns_of, row_keys

SCORE = "score_"
EXTRA = "extra"  # the column with what the JSONs hold beside the known fields


@dataclass(frozen=True)
class Where:
    """text: the expression; scores: the folder of a table of scores, or None."""

    text: str
    scores: str | None = None

    @cached_property
    def expression(self) -> Expression:
        """UserError where the text is none."""
        return parse(self.text)

    @cached_property
    def table(self) -> ScoreTable | None:
        """The table of scores."""
        return ScoreTable.read(self.scores) if self.scores else None

    def versions(self) -> dict[str, str] | None:
        """{score: version} of the table of scores: others are another filter."""
        return self.table.facts["scores"] if self.table else None

    def check(self, files: Sequence[str]) -> None:
        """UserError when the expression names what nobody has, or the scores lack a key."""
        columns = set(columns_of(files))
        known = columns | set(self.table.names if self.table else ())
        for name in sorted(self.expression.names - known):
            if name.startswith(SCORE) and not self.table and EXTRA in columns:
                continue  # the JSONs may have it
            hint = "" if self.table else "; scores: score_images.py, then --scores"
            if name in near_table.COLUMNS:
                hint = "; near duplicates: score_images.py again, with dhash and without --part"
            shown = ", ".join(sorted(known - {EXTRA}))
            raise UserError(f"--where names {name}, and the table has {shown}{hint}")
        if self.table and KEY not in columns:
            raise UserError(f"{files[0]} has no column {KEY}, by which scores are joined")

    def columns(self, files: Sequence[str]) -> list[str]:
        """The columns of the table that are read."""
        wanted = {KEY, EXTRA, *self.expression.names}
        return [name for name in columns_of(files) if name in wanted]

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Of each row, whether it is taken."""
        named = self.expression.names - set(self.table.names if self.table else ())
        here = [name for name in named if name in batch.schema.names]
        columns = {name: values_of(batch[name]) for name in here}
        scores = list(self._scores(batch))
        return pa.array(
            [
                self.expression.holds(
                    {**scores[row], **{name: column[row] for name, column in columns.items()}}
                )
                for row in range(len(batch))
            ],
            pa.bool_(),
        )

    def _scores(self, batch: pa.RecordBatch) -> Iterator[Mapping[str, Any]]:
        if self.table:
            for key in values_of(batch[KEY]):
                yield self.table.of(key)
        elif EXTRA in batch.schema.names:
            for extra in values_of(batch[EXTRA]):
                yield _own_scores(extra)
        else:
            yield from ({} for _ in range(len(batch)))

    def kept(self, files: Sequence[str], stop: int) -> tuple[int, str]:
        """(how many of the table's first `stop` rows are taken, sha256 over their keys)."""
        digest = hashlib.sha256()
        count = row = 0
        for batch in table.read_rows(files, 0, stop, columns=self.columns(files) or None):
            keys = row_keys(batch, row)
            row += len(batch)
            for key, taken in zip(keys, self.mask(batch).to_pylist(), strict=True):
                if taken:
                    digest.update(f"{key}\n".encode())
                    count += 1
        return count, digest.hexdigest()


def _own_scores(extra: str | None) -> dict[str, Any]:
    try:
        scores = orjson.loads(extra or "{}").get("scores")
    except (orjson.JSONDecodeError, AttributeError):
        return {}
    return (
        {f"{SCORE}{name}": value for name, value in scores.items()} if type(scores) is dict else {}
    )
