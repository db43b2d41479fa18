"""Hash files while they are read or written, so that none is read for its hash alone.

hashed = Hashed(file)
for sample in tar_samples(hashed): …
size, sha256 = hashed.finish()

writer = HashedWriter(draft.file)
with pq.ParquetWriter(writer, schema) as parquet: …
writer.size, writer.sha256.hexdigest()
"""

import hashlib
from typing import BinaryIO


class Hashed:
    """A file whose bytes are hashed as they are read; finish() hashes what was not asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """As the file's own."""
        data = self.file.read(size)
        self.size += len(data)
        self.sha256.update(data)
        return data

    def finish(self) -> tuple[int, str]:
        """(size, sha256 in hex) of the whole file."""
        while self.read(1 << 20):
            pass
        return self.size, self.sha256.hexdigest()


class HashedWriter:
    """A file that is written from its beginning to its end; what pyarrow asks of one."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """As the file's own."""
        self.file.write(data)
        self.size += len(data)
        self.sha256.update(data)
        return len(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def flush(self) -> None:
        """As the file's own."""
        self.file.flush()

    def close(self) -> None:
        """Left to the file's owner."""
