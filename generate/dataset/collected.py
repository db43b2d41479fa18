"""`12345.samples`: the JSONs of a finished prompt in one file, which the converter reads instead.

    publish_collected(dataset_dir, 12345, captions=200, lease="1-7")
    remove_collected(dataset_dir, 12345)

JSON lines: the very bytes of each `.json`, by augmentation. It is published after the last of them,
and removed by the next holder of the prompt before anything of it is touched. It is derived: where
it is missing, or other JSONs lie there than it names, readers take the JSONs.
"""

import contextlib
import os

from common.packed_folder import read_file
from common.untrusted import SAMPLE_BYTES, Refused, read_untrusted
from generate.dataset.layout import collected_path, path_of
from generate.dataset.links import publish, remove, write_temporary

COLLECTED_BYTES = 1 << 30  # 200 JSONs of 1.5 kB take 0.3 MB
FEWEST = 2  # JSONs: a file for one of them would save nothing


def publish_collected(
    dataset_dir: str | os.PathLike[str], index: int, captions: int, lease: str
) -> bool:
    """Publish the JSONs of a prompt with `captions` captions, whose samples are all done.

    Only the holder of the index's lease may call this. False: fewer than FEWEST JSONs, or one is
    not a single line. OSError: the disk.
    """
    final = collected_path(dataset_dir, index)
    while content := _content(dataset_dir, index, captions):
        if publish(write_temporary(final, content, lease), final):
            return True
        # A file left by a holder that was paused may hold a JSON that was made again since.
        with contextlib.suppress(FileNotFoundError, Refused):
            if read_untrusted(final, COLLECTED_BYTES) == content:
                return True
        if not os.path.lexists(final):
            return False  # the temporary file was taken away by the next holder of this index
        remove_collected(dataset_dir, index)
    return False


def remove_collected(dataset_dir: str | os.PathLike[str], index: int) -> None:
    """To be called before anything of a prompt is touched."""
    remove(collected_path(dataset_dir, index))


def _content(dataset_dir: str | os.PathLike[str], index: int, captions: int) -> bytes:
    lines = []
    for aug in range(captions):
        try:
            line = read_file(path_of(dataset_dir, index, aug, ".json"), SAMPLE_BYTES)
        except FileNotFoundError:
            continue  # given up: it has a .failed
        except Refused:
            return b""
        if not line or line.find(b"\n") != len(line) - 1:
            return b""  # edited by hand
        lines.append(line)
    return b"".join(lines) if len(lines) >= FEWEST else b""
