"""What tells where a sample was made: hosts, jobs, absolute paths. None of it is published.

private_fields({"hostname": "node1", "note": "see /home/x/y", "seed": 7})    # ["hostname", "note"]
"""

import re
from typing import Any

from common.jpeg import JpegHead

HOME = ("hostname", "slurm_job_id")  # what tells where a sample was made
WEB = re.compile(r"(?i)\bhttps?://\S+")  # what everybody may read
# /mnt, (/home/x, host:/x, ~/x, $HOME/x; C:\x, c:/x; \\server\x; sftp://x. Not: and/or, org/model
ABSOLUTE = re.compile(
    r"(?<![\w.])/+[\w.~-]|~[\w.-]*/|\$\{?\w+\}?/|\b[A-Za-z]:[\\/]\S|\\\\[\w.-]+\\|\b[a-z][\w+.-]*://"
)
TEXTS = ("caption", "original_prompt", "augmented_prompt", "negative_prompt")


def private_fields(record: dict[str, Any]) -> list[str]:
    """Names of the fields that tell where a sample was made: host, job, absolute paths."""
    return [
        name
        for name, value in record.items()
        if (name in HOME and value is not None)
        or (name not in TEXTS and tells_path(value))
        or tells_path(name)
    ]


def private_parts(head: JpegHead) -> list[str]:
    """Names of what an image's own bytes may tell of whoever made it."""
    return [*head.foreign, *(f"{name} in its comment" for name in private_fields(head.comment))]


def tells_path(value: object) -> bool:
    """Whether an absolute path stands anywhere in a text or list: it names users and machines."""
    if isinstance(value, list):
        return any(map(tells_path, value))
    return (
        isinstance(value, str)
        and ("/" in value or "\\" in value)
        and ABSOLUTE.search(WEB.sub("", value)) is not None
    )


def without_folders(value: Any) -> Any:
    """The last part of a value, or of each of a list, that tells a path; else as it is."""
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if tells_path(value) else value
