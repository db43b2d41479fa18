"""Near duplicates over the whole of a table of scores: a file of its own in the table's folder.

    publish("scores", names, columns)     # _near_duplicates.parquet: a row an image
    rows = read("scores", names)          # None: there is none, or images were scored since

`dhash_set_distance`: in how many bits the image differs from the nearest earlier one of the set, by
`__key__` as text; 64: from each in more than 6. `near_duplicate_of`: which one that is, or null.
`near_duplicate_cosine`: of their embeddings, null where there is none. Where there is one, images
that look alike to dhash alone are no near duplicates.
"""

import hashlib
import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from common.command_line import UserError
from postprocess_dataset import table
from postprocess_dataset.publish import Draft

NAME = "_near_duplicates.parquet"  # "_": readers of the folder as one table pass over it
OF = b"text_to_image_scores_of"  # in the footer: which files of scores it was made from
DISTANCE = "dhash_set_distance"
DUPLICATE = "near_duplicate_of"
COSINE = "near_duplicate_cosine"
COLUMNS = (DISTANCE, DUPLICATE, COSINE)
SCHEMA = pa.schema(
    [
        pa.field("__key__", pa.string(), nullable=False),
        pa.field(DISTANCE, pa.int64(), nullable=False),
        pa.field(DUPLICATE, pa.string()),
        pa.field(COSINE, pa.float64()),
    ]
)


def read(folder: str, names: Sequence[str]) -> pa.Table | None:
    """The rows, if they were made from these files of scores. UserError: it cannot be read."""
    path = os.path.join(folder, NAME)
    if not os.path.exists(path):
        return None
    if (table.footer(path).metadata or {}).get(OF) != _of(names):
        return None
    try:
        rows = pq.ParquetFile(path).read()
        rows.validate(full=True)
        return rows if rows.schema.equals(SCHEMA) else None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}; remove it, and score again") from None


def refuse_other(folder: str) -> None:
    """UserError if a file of another hand has its name: it would be replaced."""
    path = os.path.join(folder, NAME)
    if os.path.lexists(path) and OF not in (table.footer(path).metadata or {}):
        raise UserError(f"{path} is none of score_images.py; move it to another folder")


def publish(folder: str, names: Sequence[str], columns: Sequence[pa.Array]) -> None:
    """Write it, in place of an older one; columns: those of SCHEMA. OSError of the disk."""
    rows = pa.table(list(columns), SCHEMA.with_metadata({OF: _of(names)}))
    with Draft(os.path.join(folder, NAME)) as draft:
        pq.write_table(rows, draft.file, compression="zstd")
        draft.publish()


def _of(names: Sequence[str]) -> bytes:
    """What tells files of scores from others: a file of scores never changes."""
    digest = hashlib.sha256()
    for name in sorted(names, key=os.path.basename):
        digest.update(f"{os.path.basename(name)} {os.path.getsize(name)}\n".encode())
    return digest.hexdigest().encode()
