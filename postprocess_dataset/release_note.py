"""release.json: what was done to a release and cannot be read from its rows.

    write_note("release/HPDv2", {"c2pa": signer.about})
    read_note("release/HPDv2").get("c2pa")          # the card and the manifest say it

c2pa: who has signed the images (names, issuer, sha256 of the certificate, its last day). where: the
expression that chose the rows, the versions of its scores, how many it took and refused. scores:
names, versions and licences of the published scores, and how many samples have none.
"""

import json
import os
from typing import Any

from common.command_line import UserError
from common.files import read_json
from postprocess_dataset.publish import publish_text

NAME = "release.json"
Note = dict[str, Any]


def write_note(release: str, note: Note) -> None:
    """Write it; one that would say nothing goes."""
    path = os.path.join(release, NAME)
    if note:
        publish_text(path, json.dumps(note, indent=1, ensure_ascii=False) + "\n")
    elif os.path.lexists(path):
        os.unlink(path)


def read_note(release: str) -> Note:
    """{} where there is none. UserError: it is damaged."""
    path = os.path.join(release, NAME)
    try:
        note = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; make the release again") from None
    if not isinstance(note, dict):
        raise UserError(f"{path} holds no fields; make the release again")
    return note
