"""The arrays of X.screening.npz: what combine.py writes beside a prompts file, and a run reads.

    write_whole(path, packed({"about": …, **validation.arrays}))
    arrays = read_arrays(path)                      # UNREADABLE: it is no file of this kind

The file may come from others, with their prompts. So names and sizes are looked at in the zip's
directory before anything is unpacked, and an array must have the one type and shape of its name.
"""

import io
import os
import struct
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from common.embeddings import SIZE
from common.untrusted import open_untrusted
from common.validation_set import MOST_BYTES, RUN, TRIPLES, WHOLE

# what reading a damaged zip file raises; RuntimeError: an encrypted one
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    OverflowError,
    RuntimeError,
    BadZipFile,
    struct.error,
    zlib.error,
)
TABLES = ["text", "bag", *(f"run{size}" for size in [*WHOLE, RUN])]
# type and size of a row
FORMS: dict[str, tuple[str, tuple[int, ...]]] = {
    "about": ("|u1", ()),
    "comparable": ("|b1", ()),
    "meanings": ("<f2", (SIZE,)),
    "spellings": ("<f2", (TRIPLES,)),
    **{f"{table}_hashes": ("<u8", ()) for table in TABLES},
    **{f"{table}_rows": ("<i4", ()) for table in TABLES},
}
ENDING = ".npy"
HEAD_BYTES = 128  # of an array; NumPy fills it up with blanks
DIRECTORY_BYTES = 1 << 16  # of the zip file, some 1 kB
END_BYTES = 22  # of the zip's last record
LOCATOR_BYTES = 20  # of what stands before it in a zip of other sizes


def packed(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of the file."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays: "about" alone, or all. One of UNREADABLE: it is no such file."""
    with open(open_untrusted(path), "rb") as file:
        _refuse_directory(file)
        with ZipFile(file) as stored:
            entries = stored.infolist()
            _refuse_entries(entries)
            arrays = {_name(entry): _array(stored, entry) for entry in entries}
    if len(arrays) > 1:
        _refuse_index(arrays)
    return arrays


def _refuse_directory(file: IO[bytes]) -> None:
    """ValueError: zipfile would take memory for a large directory."""
    length = LOCATOR_BYTES + END_BYTES
    start = max(0, os.fstat(file.fileno()).st_size - length)
    last = os.pread(file.fileno(), length, start)
    end = last[LOCATOR_BYTES:]
    if last[:4] == b"PK\6\7" or end[:4] != b"PK\5\6":
        raise ValueError("it has another end")
    if int.from_bytes(end[12:16], "little") > DIRECTORY_BYTES:
        raise ValueError("it holds too many files")


def _refuse_entries(entries: list[ZipInfo]) -> None:
    names = sorted(map(_name, entries))
    if names not in (["about"], sorted(FORMS)):
        raise ValueError("it holds other arrays")
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise ValueError(f"its arrays are larger than {MOST_BYTES:,} bytes")
    # LZMA takes as much memory as the file says
    if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
        raise ValueError("it is compressed otherwise")


def _name(entry: ZipInfo) -> str:
    return entry.filename.removesuffix(ENDING)


def _array(stored: ZipFile, entry: ZipInfo) -> Any:
    """An array whose head says what its name demands, and as many rows as follow."""
    with stored.open(entry) as file:
        content = file.read(entry.file_size)  # without a size it unpacks up to 2 GB of false ones
    kind, row = FORMS[_name(entry)]
    count = (len(content) - HEAD_BYTES) // (np.dtype(kind).itemsize * prod(row))
    head = io.BytesIO()
    form = {"descr": kind, "fortran_order": False, "shape": (count, *row)}
    np.lib.format.write_array_header_1_0(head, form)
    if content[:HEAD_BYTES] != head.getvalue():
        raise ValueError(f"{_name(entry)} has another type or shape")
    return np.frombuffer(content, kind, offset=HEAD_BYTES).reshape(count, *row)


def _refuse_index(arrays: Mapping[str, Any]) -> None:
    """ValueError: arrays that do not belong together, by which texts would pass unseen."""
    rows = len(arrays["comparable"])
    for name in ("meanings", "spellings"):
        if len(arrays[name]) != rows or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} has other rows, or no numbers")
    for table in TABLES:
        hashes = arrays[f"{table}_hashes"]
        owners = arrays[f"{table}_rows"]
        if len(hashes) != len(owners) or (hashes[1:] <= hashes[:-1]).any():
            raise ValueError(f"{table}_hashes is not in order")
        if ((owners < 0) | (owners >= rows)).any():
            raise ValueError(f"{table}_rows is outside of the validation set")
