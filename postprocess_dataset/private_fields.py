"""Fields that say where a sample was made: hosts, jobs, absolute paths. None is published.

private_fields({"hostname": "node1", "note": "see /home/x/y", "seed": 7})    # ["hostname", "note"]
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from common.jpeg import JpegHead
from postprocess_dataset.table import JSON_FIELDS

HOME = frozenset(("hostname", "slurm_job_id"))  # they say where a sample was made
WEB = re.compile(r"(?i)\bhttps?://\S+")  # public addresses
# /mnt, (/home/x, host:/x, ~/x, $HOME/x; C:\x, c:/x; \\server\x; sftp://x. Not: and/or, org/model
ABSOLUTE = re.compile(
    r"(?<![\w.])/+[\w.~-]|~[\w.-]*/|\$\{?\w+\}?/|\b[A-Za-z]:[\\/]\S|\\\\[\w.-]+\\|\b[a-z][\w+.-]*://"
)
BYTES_PATH = re.compile(rb"/[\w.~-]{2,}/")  # in bytes that are no UTF-8, without their zeros
SHORT = 100  # letters: a cache of longer texts would take memory
TEXTS = frozenset(("caption", "original_prompt", "augmented_prompt", "negative_prompt"))
# Names of foreign fields in `extra` that are private.
PRIVATE_NAME = re.compile(
    r"(?i)host|uuid|slurm|user|mail|machine"
    r"|(^|_)(job|pid|ip|node|token|lease|login|cwd|home|password|secret|api_?key)(_|$)"
)
# u@host, 10.1.2.3, keys of hubs and LLMs, ../x, %2Fhome
PRIVATE_TEXT = re.compile(
    r"(?i)[\w.+-]@\w|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])|\b(?:hf_|ghp_|sk-)[\w-]{16}"
    r"|\.\.[\\/]|%2f[\w.]"
)


def is_private_name(name: str) -> bool:
    """Whether a foreign field's name is one of persons, hosts and keys, or tells a path."""
    return PRIVATE_NAME.search(name) is not None or _is_private(name)


def private_fields(record: dict[str, Any]) -> list[str]:
    """Names of the fields that say where a sample was made: host, job, absolute paths."""
    names = "".join(record)
    named = "/" in names or "\\" in names  # hardly ever: not each name need be looked at
    return [
        name
        for name, value in record.items()
        if (name in HOME and value is not None)
        or (type(value) in (str, list) and name not in TEXTS and tells_path(value))
        or (named and tells_path(name))
    ]


def private_parts(head: JpegHead) -> list[str]:
    """Names of what in an image's bytes may say who made it."""
    others = {name: value for name, value in head.comment.items() if name not in JSON_FIELDS}
    kept = without_private(others)
    own = [name for name in private_fields(head.comment) if name not in others]
    told = [name for name in others if name not in kept or kept[name] != others[name]]
    return [*head.foreign, *(f"{name} in its comment" for name in (*own, *told))]


def tells_path(value: object) -> bool:
    """Whether an absolute path stands anywhere in a text or list: it names users and machines."""
    if isinstance(value, str):
        if "/" not in value and "\\" not in value:
            return False
        return _short_has_path(value) if len(value) <= SHORT else _has_path(value)
    return isinstance(value, list) and any(map(tells_path, value))


def _has_path(text: str) -> bool:
    return ABSOLUTE.search(WEB.sub("", text)) is not None


_short_has_path = lru_cache(1000)(_has_path)  # names of models, in each sample the same


def without_folders(value: Any) -> Any:
    """A value, or each of a list, that has an absolute path: its last part. Others unchanged."""
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if tells_path(value) else value


def without_private(value: Any) -> Any:
    """A foreign value without paths, persons, hosts and keys; in a list null stands for them.

    So each part of a list keeps its place: boxes may stand beside labels.
    """
    if isinstance(value, dict):
        return dict(_public_pairs(value.items()))
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):  # the pairs of an Arrow map
            return [*_public_pairs(value)]
        return [None if _is_private(part) else without_private(part) for part in value]
    return value


def _public_pairs(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    for name, part in pairs:
        if not (is_private_name(str(name)) or _is_private(name) or _is_private(part)):
            yield without_private(name), without_private(part)


def _is_private(part: Any) -> bool:
    """Whether a foreign text, or one in bytes, has a path, a person, a host or a key in it."""
    if isinstance(part, bytes):
        try:
            part = part.decode()
        except UnicodeDecodeError:  # a hash may hold a "/x" by chance, 1 in 100; a "/xy/" hardly
            return BYTES_PATH.search(part.replace(b"\0", b"")) is not None
    return isinstance(part, str) and (
        tells_path(part) or PRIVATE_TEXT.search(WEB.sub("", part)) is not None
    )
