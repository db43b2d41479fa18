"""Where logs and data sets lie; the same for the server and its clients.

<output root>/*.out                      logs
<output root>/generated_images/<name>/   the data sets
<output root>/.server/                   server.json, the ledger, rendered sbatch scripts
"""

import os
from pathlib import Path

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
