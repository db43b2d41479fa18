"""A file of a release: the bytes that are sent are those that were compared with its manifest.

    with ExitStack() as opened:
        additions = [CommitOperationAdd(file.path, source(file, opened)) for file in files]
        …                                        # upload and commit

Others may write into the release meanwhile, and huggingface_hub opens a path again for each of its
steps. So it gets the bytes of a small file, and an open file instead of the path of a large one.
"""

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

from common.command_line import UserError
from common.console import visible
from common.untrusted import open_untrusted, read_untrusted
from postprocess_dataset.manifest import manifest

SMALL = 10 << 20  # bytes; hubs keep no larger file in git itself


@dataclass(frozen=True)
class LocalFile:
    """A file that the manifest lists. folder: of the release; inside: as of real_folders()."""

    folder: str
    path: str
    bytes: int
    sha256: str
    inside: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return os.path.join(self.folder, self.path)

    def another(self) -> UserError:
        """The error of a file that was changed."""
        return UserError(
            f"{visible(self.place)} is not the file that {manifest.NAME} lists: run release.py "
            "again"
        )

    def unreadable(self, error: OSError) -> UserError:
        """The error of a file that cannot be read."""
        return UserError(f"{visible(self.place)}: {error.strerror}; run release.py again")


def source(file: LocalFile, opened: ExitStack) -> str | bytes:
    """What huggingface_hub is to send: the bytes, or a path of the open file, which is not hashed.

    UserError: it is not the file of the manifest, or cannot be read.
    """
    if file.bytes <= SMALL:
        blob_of(file)  # known before the commit: the file may be changed after it
        return content_of(file)
    try:
        descriptor = open_untrusted(file.place, file.inside)
    except OSError as error:
        raise file.unreadable(error) from None
    opened.callback(os.close, descriptor)
    if os.fstat(descriptor).st_size != file.bytes:
        raise file.another()
    return f"/proc/self/fd/{descriptor}"


def content_of(file: LocalFile) -> bytes:
    """The bytes of a small file. UserError: they are not those of the manifest."""
    try:
        content = read_untrusted(file.place, SMALL, file.inside)
    except OSError as error:
        raise file.unreadable(error) from None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise file.another()
    return content


@cache
def blob_of(file: LocalFile) -> str:
    """The hash that git gives a small file. UserError: as of content_of()."""
    content = content_of(file)
    head = b"blob %d\0" % len(content)
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
