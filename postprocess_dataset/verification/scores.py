"""One pass over the table of scores that score_images.py makes beside a data set.

rows, whole = check_scores("scores", evidence, found)
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from common.command_line import UserError
from postprocess_dataset import table
from postprocess_dataset.column_values import values_of
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.tar_facts import SHA256
from postprocess_dataset.progress import Progress, first_line
from postprocess_dataset.score_table import EMBEDDING, KEY, facts_of, files_of, refuse_no_scores
from postprocess_dataset.shard_rows import schema_of
from postprocess_dataset.verification.evidence import Evidence

NAME = "image_sha256"


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
            columns = [field for field in schema_of(path) if field.name != EMBEDDING]
            refuse_no_scores(path, pa.schema(columns))
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
    for key, sha256 in zip(values_of(batch[KEY]), values_of(batch[NAME]), strict=True):
        if key is None or (sha256 is not None and not SHA256.fullmatch(sha256)):
            raise UserError(f"{key}: its {NAME if key else KEY} is none")
        yield key, bytes.fromhex(sha256) if sha256 else None


def _not_finite(batch: pa.RecordBatch, found: Findings) -> None:
    keys: list[str] = []  # converted once, and only where they are needed
    for name in batch.schema.names:
        if pa.types.is_floating(batch.schema.field(name).type):
            bad = pc.fill_null(pc.invert(pc.is_finite(batch[name])), False)
            for row in pc.indices_nonzero(bad).to_pylist():
                keys = keys or values_of(batch[KEY])
                found.add("nan_score", f"scores: {keys[row]}", f"{name} is no number")
