"""Files and folders that every step uses."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
