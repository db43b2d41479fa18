"""--keep_rejected N: the first N images of each prompt that were not accepted, kept to look at.

<output root>/rejected_images/HPDv2/000012/12345/12345_3.try2.jpg    caption 3, its third seed

They lie beside the data sets and have no JSON: nothing counts, converts, packs or publishes them.
Each carries as its JPEG comment what its JSON would say, its scores, and `accepted: false`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from generate.dataset.layout import folder_name, stem
from generate.dataset.links import publish, remove, write_temporary
from generate.dataset.samples import Metadata, comment_of, with_comment

REJECTED_IMAGES = "rejected_images"
NAME = re.compile(r"[0-9]+_[0-9]+\.try[0-9]+\.jpg")


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
        index = metadata["prompt_index"]
        folder = self.folder_of(index)
        folder.mkdir(parents=True, exist_ok=True)
        names = os.listdir(folder)
        for name in names:
            if name.endswith(".tmp"):  # of a holder that was killed
                remove(folder / name)
        if sum(bool(NAME.fullmatch(name)) for name in names) >= self.most:
            return
        final = self.path_of(index, metadata["augmentation_idx"], attempt)
        comment = comment_of(metadata | {"accepted": False})
        publish(write_temporary(final, with_comment(jpeg, comment), lease), final)
