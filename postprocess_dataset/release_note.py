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
from common.json_form import COUNT, has_form, in_form
from postprocess_dataset.publish import publish_text
from postprocess_dataset.row_filter import WHERE

NAME = "release.json"
SCORES = "scores"  # also a folder of the release
Note = dict[str, Any]
OF_SCORES = {
    "versions": {str: str},
    "licences": {str: (None, str)},
    "scored": COUNT,
    "without": COUNT,
}


def _is_of_scores(value: Any) -> bool:
    """Whether it is what the card says of scores; {}: they are being written."""
    return value == {} or (
        has_form(value, OF_SCORES) and value["versions"].keys() == value["licences"].keys()
    )


NOTE = {
    "c2pa?": dict.fromkeys(("signer", "issuer", "certificate_sha256", "valid_until"), str),
    "where?": WHERE,
    "scores?": _is_of_scores,
}


def write_note(release: str, note: Note) -> None:
    """Write it; one that would say nothing goes."""
    path = os.path.join(release, NAME)
    if note:
        publish_text(path, json.dumps(note, indent=1) + "\n")
    elif os.path.lexists(path):
        os.unlink(path)


def read_note(release: str) -> Note:
    """{} where there is none. UserError: it is damaged."""
    path = os.path.join(release, NAME)
    try:
        note: Note = in_form(read_json(path), NOTE)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read: {error}; remove it, and {SCORES} beside it, and make the "
            "release again"
        ) from None
    return note
