"""Compare a release's manifest with the hub's list of files: what is not there yet?

    todo = difference(files, remote)
    todo.shards, todo.last, todo.stale

Nothing is hashed for it: the manifest and the hub know the SHA-256 of every large file, and of a
small one git's own hash is compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from postprocess_dataset.hub.local_file import SMALL, LocalFile, blob_of
from postprocess_dataset.release_folder import PUBLISHED

FOLDERS = tuple(f"{folder}/" for folder in PUBLISHED if folder)  # what a release alone writes
SHARDS = (".parquet", ".tar")
MOST_FILES = 100  # in a commit
MOST_BYTES = 20 << 30


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository. sha256: "" for one that git holds itself; blob: git's hash."""

    bytes: int
    sha256: str
    blob: str


@dataclass
class Difference:
    """shards: in the order of their names. last: what describes them, in the last commit."""

    shards: list[LocalFile] = field(default_factory=list)
    last: list[LocalFile] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    same: int = 0

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in (*self.shards, *self.last))


def difference(files: Sequence[LocalFile], remote: Mapping[str, RemoteFile]) -> Difference:
    """What is to be uploaded, and which shards of an earlier release are to go."""
    found = Difference()
    for file in sorted(files, key=lambda file: file.path):
        there = remote.get(file.path)
        if there and is_same(file, there):
            found.same += 1
        elif file.path.endswith(SHARDS):
            found.shards.append(file)
        else:
            found.last.append(file)
    kept = {file.path for file in files}
    found.stale = sorted(path for path in remote if path.startswith(FOLDERS) and path not in kept)
    return found


def is_same(file: LocalFile, there: RemoteFile) -> bool:
    """Whether the repository has this very file. UserError: it is not the manifest's here."""
    if file.bytes != there.bytes:
        return False
    if there.sha256:
        return file.sha256 == there.sha256
    return file.bytes <= SMALL and blob_of(file) == there.blob


def commits(shards: Sequence[LocalFile]) -> Iterator[list[LocalFile]]:
    """The shards in few commits, each of at most MOST_FILES and MOST_BYTES."""
    batch: list[LocalFile] = []
    size = 0
    for file in shards:
        if batch and (len(batch) == MOST_FILES or size + file.bytes > MOST_BYTES):
            yield batch
            batch = []
            size = 0
        batch.append(file)
        size += file.bytes
    if batch:
        yield batch
