"""Where logs and data sets lie; the same for the server and its clients."""

import os
from pathlib import Path

from common.files import CHECKOUT


def default_output_root():
    """$UNIDISC_DIR/outputs/generate_images, else outputs/generate_images in the checkout; the same for server and client."""
    base = os.environ.get("UNIDISC_DIR") or CHECKOUT
    return Path(base) / "outputs" / "generate_images"
