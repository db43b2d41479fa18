"""What tells where a sample was made: hosts, jobs, absolute paths. None of it is published.

private_fields({"hostname": "node1", "note": "see /home/x/y", "seed": 7})    # ["hostname", "note"]
"""

import re
from typing import Any

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


def tells_path(value: object) -> bool:
    """Whether an absolute path stands anywhere in a value: it names users and machines."""
    return isinstance(value, str) and ABSOLUTE.search(WEB.sub("", value)) is not None


def without_folders(value: Any) -> Any:
    """The last part of a value that tells a path; anything else as it is."""
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if tells_path(value) else value
