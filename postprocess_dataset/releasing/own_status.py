"""Figures of the run's ledger for a report: tokens and USD of the LLMs, failed prompts.

    status = own_status(["outputs/generated_images/HPDv2"], "release/HPDv2.work")

The same as image_server.py --status --json prints while the server runs. The accounts cover the
whole output root, so they are not used if other data sets lie there, too.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from common.files import write_whole
from common.untrusted import read_untrusted
from postprocess_dataset.verification.ledger import InUse, Ledger

NAME = "status.json"  # in the work folder
STATUS_BYTES = 1 << 26


def own_status(folders: Sequence[str], work: str) -> str:
    """The path of the document; "" if the ledger is not there, in use, or of other sets too."""
    names = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    roots = {Path(os.path.abspath(folder)).parent.parent for folder in folders}
    try:
        ledger = Ledger.of(roots.pop()) if len(roots) == 1 else None
    except (InUse, ValueError):  # the verification has said so
        return ""
    if ledger is None or sorted(ledger.datasets()) != sorted(names):
        return ""
    datasets = [{"name": name, "set_aside": len(ledger.given_up(name))} for name in names]
    text = json.dumps({"datasets": datasets, "llm": ledger.llm_use()}, indent=1) + "\n"
    path = os.path.join(work, NAME)
    try:
        same = read_untrusted(path, STATUS_BYTES) == text.encode()
    except OSError:  # none yet
        same = False
    if not same:
        write_whole(path, text)
    return path
