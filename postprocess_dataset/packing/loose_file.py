"""Read a loose file of a prompt, to be packed or to be compared with its packed copy.

    data = read_loose("HPDv2/000012", "12345_3.json")

Others may have put files of any size there: each kind has its limit, and our own texts are read to
their first zero byte only, since a sparse file of 1 GB costs nothing on the disk.
"""

import os
import re

from common.untrusted import IMAGE_BYTES, SAMPLE_BYTES, read_untrusted

LIMITS = {".json": SAMPLE_BYTES}
OTHER_BYTES = 1 << 30  # of .prompts, .samples
TEXT = re.compile(r"\.(json|samples|prompts[0-9]*)")  # the end of our own; others may be anything
CAPTIONS = re.compile(r"prompts([2-9]|[1-9][0-9]+)?")  # the end of a name


def read_loose(folder: str | os.PathLike[str], name: str) -> bytes:
    """The bytes of a loose file. OSError as of read_untrusted(): it is too large, or no text."""
    end = os.path.splitext(name)[1]
    text = bool(TEXT.fullmatch(end))
    limit = LIMITS.get(end, OTHER_BYTES if text else IMAGE_BYTES)
    return read_untrusted(os.path.join(folder, name), limit, text=text)


def generation_of(name: str) -> int:
    """2 of "12345.prompts2", 1 of "12345.prompts", 0 of any other file."""
    stem, _, end = name.partition(".")
    match = CAPTIONS.fullmatch(end) if stem.isdecimal() else None  # no 12345_3.prompts
    return int(match[1] or 1) if match else 0
