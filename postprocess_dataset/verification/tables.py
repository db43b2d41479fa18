"""One pass over the table: its rows, their order and numbers, its scores.

rows = check_table("HPDv2.parquet", evidence, found)      # how many; -1: part of it is unreadable
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from common.command_line import UserError
from common.console import visible
from postprocess_dataset import table
from postprocess_dataset.column_values import values_of
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.tar_facts import FACTS, SHA256, facts_of, hash_of
from postprocess_dataset.progress import Progress, first_line
from postprocess_dataset.shard_rows import check_columns, fits
from postprocess_dataset.sorted_rows import ORDER
from postprocess_dataset.verification.evidence import Evidence, Row

NEEDED = {"__key__", "caption", "image_sha256", "idx", *ORDER}
KINDS = {field.name: field.type for field in table.schema() if field.name in NEEDED | set(FACTS)}


class TablePass:
    """path: a parquet file, or a directory of part files."""

    def __init__(self, path: str, evidence: Evidence, found: Findings) -> None:
        self.path = path
        self.evidence = evidence
        self.found = found
        self.rows = 0
        self.ends: list[int] = []  # row numbers at which a generation ends
        self.before: tuple[Any, ...] = ()  # the place of the last row in the order
        self.whole = True
        self.has_facts = True
        self.progress = Progress("rows")

    def run(self) -> tuple[int, bool]:
        """(rows read, whether all could be read). UserError: there is no such table."""
        files = table.files(self.path)
        try:
            facts = table.facts(self.path)
        except UserError:
            facts = None  # of a file that is torn: it is named when its rows are read
        for rows in facts["generations"] if facts else ():
            self.ends.append((self.ends[-1] if self.ends else 0) + rows)
        for path in files:
            try:
                for batch in self._batches(path):
                    self._batch(batch)
            except (pa.ArrowException, OSError, UnicodeError, UserError) as error:
                self.found.add("unreadable_shard", path, first_line(error), mend="table")
                self.whole = False
        self.progress.close()
        return self.rows, self.whole

    def _batches(self, path: str) -> Iterator[pa.RecordBatch]:
        schema = table.footer(path).schema.to_arrow_schema()
        if absent := sorted(NEEDED - set(schema.names)):
            raise UserError(
                f"{path}: no table of convert_json_to_parquet.py: it has no {absent[0]}"
            )
        check_columns([path])
        for field in schema:
            if field.name in KINDS and not fits(field.type, KINDS[field.name]):
                raise UserError(
                    f"{path}: its column {field.name} is {visible(str(field.type), 80)}, "
                    f"not {KINDS[field.name]}"
                )
        scores = [name for name in schema.names if name.startswith("score")]
        columns = {*NEEDED, *(n for n in scores if pa.types.is_floating(schema.field(n).type))}
        # A table of an earlier version keeps what it did not know in `extra`.
        self.has_facts = set(FACTS) <= set(schema.names)
        yield from table.read_rows([path], columns=sorted(columns | set(FACTS) & set(schema.names)))

    def _batch(self, batch: pa.RecordBatch) -> None:
        keys = values_of(batch["__key__"])
        numbers = values_of(batch["idx"])
        self._order(zip(*(values_of(batch[name]) for name in ORDER), strict=True), numbers)
        facts: Iterator[bytes | None] = iter([None] * len(keys))
        if self.has_facts:
            columns = (column.to_pylist() for column in batch.select(FACTS).columns)
            facts = map(facts_of, zip(*columns, strict=True))
        self.evidence.add_rows(self._rows(batch, facts))
        for name in batch.schema.names:
            if name.startswith("score"):
                bad = pc.invert(pc.is_finite(batch[name]))
                for row in pc.indices_nonzero(pc.fill_null(bad, False)).to_pylist():
                    self.found.add("nan_score", f"table: {keys[row]}", f"{name} is no number")
        self.progress.add(len(keys))

    def _rows(self, batch: pa.RecordBatch, hashes: Iterator[bytes | None]) -> Iterator[Row]:
        columns = (values_of(batch[n]) for n in ("__key__", "image_sha256", "caption", "idx"))
        for key, sha256, caption, number, facts in zip(*columns, hashes, strict=True):
            if key is None or caption is None:
                self.found.add("torn", f"table: row {number}", "no key or no caption", mend="table")
                continue
            digest = bytes.fromhex(sha256) if sha256 and SHA256.fullmatch(sha256) else None
            yield key, digest, hash_of(caption), facts, number

    def _order(self, places: Iterator[tuple[Any, ...]], numbers: list[int]) -> None:
        for place, number in zip(places, numbers, strict=True):
            where = f"table: row {self.rows}"
            if self.ends and self.rows == self.ends[0]:  # an --update begins: sorted in itself
                self.ends.pop(0)
                self.before = ()
            if self.before and _sortable(place) < _sortable(self.before):
                why = f"{place[-1]} stands after {self.before[-1]}"
                self.found.add("wrong_order", where, why, mend="table")
            elif number != self.rows:
                self.found.add("wrong_order", where, f"its idx is {number}", mend="table")
            self.before = place
            self.rows += 1


def _sortable(place: tuple[Any, ...]) -> tuple[tuple[bool, Any], ...]:
    """A place in the order, also where a value is null: nulls come last."""
    return tuple((value is None, 0 if value is None else value) for value in place)
