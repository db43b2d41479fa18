"""Where logs and data sets lie; the same for the server and its clients.

<output root>/*.out                      logs
<output root>/generated_images/<name>/   the data sets
<output root>/.server/                   server.json, the ledger, rendered sbatch scripts
"""

import os
import tempfile
from pathlib import Path

from common.command_line import UserError
from common.files import CHECKOUT

GENERATED_IMAGES = "generated_images"
SERVER = ".server"


def default_output_root() -> Path:
    """$UNIDISC_DIR/outputs/generate_images, else outputs/generate_images in the checkout."""
    base = os.environ.get("UNIDISC_DIR") or CHECKOUT
    return Path(base) / "outputs" / "generate_images"


def dataset_folder(output_root: str | os.PathLike[str], name: str) -> Path:
    """The folder of a data set."""
    return Path(output_root) / GENERATED_IMAGES / name


def server_folder(output_root: str | os.PathLike[str]) -> Path:
    """The folder of what the server keeps: address, token, ledger, epochs."""
    return Path(output_root) / SERVER


def make_server_folder(output_root: str | os.PathLike[str]) -> Path:
    """The server's folder, made where it is missing, for its owner alone; the data sets' beside it.

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
