"""The interface of a filter of rows, as the tars use it; scored/where.py has one."""

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from common.json_form import COUNT

# What it took, as index.json and release.json tell it, so that others can do the same.
WHERE = {
    "expression": str,
    "scores": (None, {str: str}),
    "rows": COUNT,
    "taken": COUNT,
    "refused": COUNT,
}


class RowFilter(Protocol):
    """Decides for each row by its values alone."""

    @property
    def text(self) -> str:
        """As the user wrote it."""

    def versions(self) -> dict[str, str] | None:
        """{score: version} of what it reads beside the table; None: nothing."""

    def check(self, files: Sequence[str]) -> None:
        """UserError when it does not fit the table."""

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Of each row, whether it is taken."""

    def kept(self, files: Sequence[str], stop: int) -> tuple[int, str]:
        """(how many of the table's first `stop` rows are taken, sha256 over their keys)."""
