"""Paths of logs and data sets, the same for the server and its clients.

<output root>/*.out                      logs
<output root>/generated_images/<name>/   the data sets
<output root>/.server/                   server.json, the ledger, rendered sbatch scripts
"""

import os
import re
import tempfile
from pathlib import Path

from common.command_line import UserError
from common.console import visible
from common.files import CHECKOUT

GENERATED_IMAGES = "generated_images"
FOLDER_NAME = re.compile(r"[^\0-\x1f/.][^\0-\x1f/]{0,199}")
MOST_NAME_BYTES = 200  # names of files are made of it; they have at most 255
SERVER = ".server"


def default_output_root() -> Path:
    """$UNIDISC_DIR/outputs/generate_images, else outputs/generate_images in the checkout."""
    base = os.environ.get("UNIDISC_DIR") or CHECKOUT
    return Path(base) / "outputs" / "generate_images"


def dataset_name(prompts: str | os.PathLike[str]) -> str:
    """The name of the data set of a prompts file: the file's own, without its ending.

    UserError if no folder can have this name, or if it has invisible characters.
    """
    name = Path(prompts).stem
    if can_be_dataset(name):
        return name
    raise UserError(
        f"{prompts}: no data set can be called {name!r}: rename the file. A name has 1 to "
        f"{MOST_NAME_BYTES} bytes, no invisible characters, no dot in front, no blank at its ends"
    )


def can_be_dataset(name: str) -> bool:
    """Whether a data set can have this name: it leads nowhere else, and can be read as it is."""
    shown = visible(name) == name and name.strip() == name
    return bool(shown and FOLDER_NAME.fullmatch(name) and len(os.fsencode(name)) <= MOST_NAME_BYTES)


def dataset_folder(output_root: str | os.PathLike[str], name: str) -> Path:
    """The folder of a data set."""
    return Path(output_root) / GENERATED_IMAGES / name


def server_folder(output_root: str | os.PathLike[str]) -> Path:
    """The folder of what the server keeps: address, token, ledger, epochs."""
    return Path(output_root) / SERVER


def place_of(output_root: str | os.PathLike[str]) -> dict[str, str | int]:
    """What tells an output root from a copy of it: its path, and the inode of the server's folder.

    A root that was moved, or is reached by another path, keeps the inode. One that was restored
    from a backup keeps the path.
    """
    folder = server_folder(output_root)
    return {"output_root": os.path.realpath(output_root), "inode": folder.stat().st_ino}


def is_copy(output_root: str | os.PathLike[str], root: object, inode: object) -> bool:
    """Whether a server.json with this place was written in another output root."""
    if not isinstance(root, str) or not isinstance(inode, int):
        return False  # of an older version
    here = place_of(output_root)
    return here["output_root"] != root and here["inode"] != inode


def make_server_folder(output_root: str | os.PathLike[str]) -> Path:
    """Make the server's folder, readable by its owner only, and the data sets' folder beside it.

    UserError, with one line, if the output root cannot be written.
    """
    folder = server_folder(output_root)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        (Path(output_root) / GENERATED_IMAGES).mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"cannot write to the output root {output_root}: {error.strerror}; "
            "choose another with --output_root"
        ) from None
    return folder
