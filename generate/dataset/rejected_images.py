"""--keep_rejected N: the first N images of each prompt that were not accepted, kept to look at.

<output root>/rejected_images/HPDv2/000012/12345/12345_3.try2.jpg    caption 3, its third seed

They lie beside the data sets and have no JSON: nothing counts, converts, packs or publishes them.
Each carries as its JPEG comment what its JSON would say, its scores, and `accepted: false`.
"""

import contextlib
import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from generate.dataset.layout import folder_name, stem
from generate.dataset.links import publish, remove, write_temporary
from generate.dataset.samples import Metadata, comment_of, with_comment

REJECTED_IMAGES = "rejected_images"
NAME = re.compile(r"[0-9]+_[0-9]+\.try[0-9]+\.jpg")
TEMPORARY = re.compile(rf"\.{NAME.pattern}\..*\.tmp")
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True)
class RejectedImages:
    """Those of one data set. most: images of a prompt."""

    dataset_dir: Path
    most: int

    def folder_of(self, index: int) -> Path:
        """Where those of a prompt lie."""
        root = self.dataset_dir.parent.parent / REJECTED_IMAGES / self.dataset_dir.name
        return root / folder_name(index) / str(index)

    def path_of(self, index: int, aug: int, attempt: int) -> Path:
        """attempt: from 0."""
        return self.folder_of(index) / f"{stem(index, aug)}.try{attempt}.jpg"

    def keep(self, jpeg: bytes, metadata: Metadata, attempt: int, lease: str) -> None:
        """Keep one (as of encode_alone()), if there is room for it. OSError of the disk.

        Only the holder of the index's lease may call this, before it notes that the seed was tried:
        if it is killed in between, the seed is generated, and its image kept, again.
        """
        final = self.path_of(metadata["prompt_index"], metadata["augmentation_idx"], attempt)
        try:
            descriptor = self._open_folder(final.parent)
            try:
                self._keep(descriptor, final.name, jpeg, metadata, lease)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno != errno.EBUSY:
                error.filename = os.fspath(final)  # not by its descriptor
            raise

    def _keep(self, folder: int, final: str, jpeg: bytes, metadata: Metadata, lease: str) -> None:
        place = Path(f"/proc/self/fd/{folder}")
        names = os.listdir(folder)
        for name in filter(TEMPORARY.fullmatch, names):  # of a holder that was killed
            remove(place / name)
        if sum(bool(NAME.fullmatch(name)) for name in names) >= self.most:
            return
        comment = comment_of(metadata | {"accepted": False})
        publish(write_temporary(place / final, with_comment(jpeg, comment), lease), place / final)

    def _open_folder(self, folder: Path) -> int:
        """Make a prompt's folder, and open it step by step: others may have put links there.

        OSError (EBUSY): a link or a file has its name.
        """
        root = self.dataset_dir.parent.parent
        descriptor = os.open(root, FOLDER)
        for name in folder.relative_to(root).parts:
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
                inner = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except NotADirectoryError:
                raise OSError(errno.EBUSY, f"{name} is no folder", os.fspath(folder)) from None
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor
