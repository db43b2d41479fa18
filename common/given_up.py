"""A `.failed`: it says that an image was given up, and why. It counts by that, not by its name.

    read_given_up(dataset_dir / "000012/12345_3.failed")["reason"]     # "safety checker"
    is_given_up(dataset_dir / "000012/12345_3.failed")                 # False: missing or damaged

Where one is damaged, the image is generated as if there were none. Only where the image is missing
it is looked into: of the images that lie there no more than the names are looked at.
"""

import errno
import os
from pathlib import Path
from typing import Any

from common.files import read_json

LARGEST = 16 << 20  # bytes; one whose image was tried 1,000 times takes 0.3 MB


def read_given_up(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a `.failed` says: its `reason` and more.

    FileNotFoundError: there is none. ValueError, naming it: it is damaged, of another image, or no
    regular file. Other OSErrors: the disk.
    """
    try:
        record = read_json(path, LARGEST)
    except OSError as error:
        if error.errno == errno.EACCES or os.path.islink(path):
            raise ValueError(f"{path} is damaged: {error.strerror}") from None
        raise
    if not isinstance(record, dict) or not isinstance(record.get("reason"), str):
        raise ValueError(f"{path} is damaged: it says no reason")
    if Path(path).stem != f"{record.get('prompt_index')}_{record.get('augmentation_idx')}":
        raise ValueError(f"{path} is damaged: it is of another image")
    return record


def is_given_up(path: str | os.PathLike[str]) -> bool:
    """Whether a `.failed` lies there that counts. OSError: the disk."""
    try:
        read_given_up(path)
    except (FileNotFoundError, ValueError):
        return False
    return True
