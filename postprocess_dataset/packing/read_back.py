"""Read a new tar of a packed sub-folder back, before the loose files that are in it are removed.

read_back(file, Path("000012/.part-00000.tar.tmp"), sha256, {"12345_0.json": digest, …})
"""

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from common.packed_tar import members
from postprocess_dataset.tar_header import END


def read_back(file: BinaryIO, path: Path, sha256: str, files: Mapping[str, bytes]) -> None:
    """OSError unless the disk holds the bytes that were written, and readers find the files.

    file: the open tar. sha256: of the whole tar. files: the sha256 of each file, in their order.
    """
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # from the disk, not from memory
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if digest != sha256:
        raise OSError(errno.EIO, "what was read back is not what was written", os.fspath(path))
    found = [
        (name, hashlib.sha256(os.pread(file.fileno(), member.size, member.offset)).digest())
        for name, member in members(path, 0, file.tell() - END)
    ]
    if found != list(files.items()):
        raise OSError(errno.EIO, "readers would not find the files that it holds", os.fspath(path))
