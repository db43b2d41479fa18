"""Files of fixed names, told from those of others by a mark that this project's hold.

refuse_others("release/HPDv2", CARD)        # UserError: a README.md of another hand lies there
refuse_other("birds.html", "report.html")   # the same of one file; the name tells the mark
"""

import os
from collections.abc import Iterable

from common.command_line import UserError
from common.console import visible
from common.untrusted import open_untrusted

CARD = ("README.md", "ATTRIBUTION.md", "croissant.json", "pictures.jpg")
REPORT = "report.html"
DRAWN = "Drawn by make_dataset_card.py"  # the comment of pictures.jpg
MARKS = {
    "README.md": "*Made by make_dataset_card.py, version ",
    "ATTRIBUTION.md": "# Attribution\n\nThis data set was made from:\n",
    "croissant.json": '"@id": "parquet-files"',
    "pictures.jpg": DRAWN,
    REPORT: "<footer>Made by make_report.py, version ",
    "MANIFEST.json": '"format": "text-to-image-manifest-',
}
PIECE = 1 << 20  # bytes
MOST_PIECES = 1024  # no file of ours is larger than 1 GB


def refuse_others(folder: str, names: Iterable[str]) -> None:
    """UserError if a file of one of these names is there, and this project did not write it."""
    for name in names:
        refuse_other(os.path.join(folder, name), name)


def refuse_other(path: str, name: str) -> None:
    """UserError if there is a file without the mark of `name`. OSError: it cannot be read."""
    try:
        descriptor = open_untrusted(path)
    except FileNotFoundError:
        return
    mark = MARKS[name].encode()
    end = b""  # of the piece before: the mark may lie across
    with os.fdopen(descriptor, "rb") as file:
        for _ in range(MOST_PIECES):
            piece = file.read(PIECE)
            if mark in end + piece:
                return
            # of pictures.jpg the mark stands at the head; the others are texts, no sparse file
            if not piece or b"\0" in piece:
                break
            end = piece[-len(mark) :]
    raise UserError(
        f"{visible(path)} was not written by this project and would be replaced; move it to "
        "another folder"
    )
