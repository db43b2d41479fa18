"""One pass over the table of scores that score_images.py makes beside a data set.

rows, whole = check_scores("scores", evidence, found)
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from common.command_line import UserError
from postprocess_dataset import table
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.progress import Progress, first_line
from postprocess_dataset.score_table import KEY, facts_of, files_of
from postprocess_dataset.verification.evidence import Evidence

SHA256 = "image_sha256"


def check_scores(folder: str, evidence: Evidence, found: Findings) -> tuple[int, bool]:
    """(rows, whether all could be read): they are added to the evidence.

    Found are scores that are no numbers and files that cannot be read. UserError: the
    folder is no table of scores.
    """
    files = files_of(folder)
    if not files:
        raise UserError(f"{folder}: no table of scores; make it with score_images.py DIR {folder}")
    progress = Progress("rows of scores")
    rows = 0
    whole = True
    for path in files:
        try:
            facts_of(path)
            for batch in table.read_rows([path]):
                _not_finite(batch, found)
                evidence.add_scores(_rows(batch))
                rows += len(batch)
                progress.add(len(batch))
        except (pa.ArrowException, OSError, UnicodeError, UserError) as error:
            why = f"{first_line(error)}; remove it, and run score_images.py again"
            found.add("unreadable_shard", path, why)
            whole = False
    progress.close()
    return rows, whole


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[str, bytes | None]]:
    sums = batch[SHA256].to_pylist()
    for key, sha256 in zip(batch[KEY].to_pylist(), sums, strict=True):
        yield key, bytes.fromhex(sha256) if sha256 else None


def _not_finite(batch: pa.RecordBatch, found: Findings) -> None:
    for name in batch.schema.names:
        if pa.types.is_floating(batch.schema.field(name).type):
            bad = pc.fill_null(pc.invert(pc.is_finite(batch[name])), False)
            for row in pc.indices_nonzero(bad).to_pylist():
                key = batch[KEY][row].as_py()
                found.add("nan_score", f"scores: {key}", f"{name} is no number")
