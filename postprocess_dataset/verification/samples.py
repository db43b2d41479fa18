"""One sample of a folder: is its image the one of its JSON, its captions, its name?

    facts = check_sample(Look("HPDv2/000012/12345_3", 12345, 3, caption), image, its_json, found)

What is wrong is reported under one name, the first that fits: a file that lies under another's
name has a wrong hash, too, and that would say less.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from common.jpeg import JpegHead, read_jpeg, without_folders
from common.json_text import parse_json
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.shards import not_finite
from postprocess_dataset.manifest.tar_facts import FACTS, facts_of, hash_of, print_of
from postprocess_dataset.private_fields import private_parts
from postprocess_dataset.sample_checks import decode_fault
from postprocess_dataset.sample_json import fault_of
from postprocess_dataset.verification.accepted import not_accepted

Image = tuple[bytes, bytes]  # print and sha256
# Compared by other means.
OTHERWISE = {"height", "width", "image_path"}


@dataclass(frozen=True)
class Look:
    """Which sample is looked at. key: its path without suffix, below the base folder.

    caption: of its .prompts; None where there is none to compare with. in_tar: print and sha256 of
    its image in a tar whose writer has computed that sha256; None where there is none.
    """

    key: str
    index: int | None  # None: a name that is not NUMBER_NUMBER
    augmentation: int | None
    caption: str | None
    in_tar: Image | None = None

    @property
    def identity(self) -> tuple[int | None, int | None]:
        """(index, augmentation)"""
        return self.index, self.augmentation


class Facts(NamedTuple):
    """What the table and the tars are compared with.

    sha256, print, picture, caption and facts (hashes): None where the sample itself is damaged.
    """

    key: str
    sha256: bytes | None = None
    caption: bytes | None = None
    facts: bytes | None = None
    picture: bytes | None = None
    print: bytes | None = None
    record: dict[str, Any] | None = None


def check_sample(
    look: Look, image: bytes | OSError, content: bytes | OSError, found: Findings
) -> Facts:
    """Compare a sample's two files with each other and with its name and caption."""
    record = _record(look, content, found)
    if isinstance(image, OSError):
        found.add("torn", f"{look.key}.jpg", f"cannot be read: {image.strerror}")
        return Facts(look.key)
    if record is None:
        return Facts(look.key)
    image_print = print_of(image)
    if look.in_tar and look.in_tar[0] == image_print:  # the very bytes that its writer has hashed
        digest = look.in_tar[1]
    else:
        digest = hashlib.sha256(image).digest()
    head = _head(look, image, digest.hex(), record, found)
    if head is None:
        return Facts(look.key, record=record)
    if private := private_parts(head):
        found.add("private_field", f"{look.key}.jpg", f"its file has {', '.join(private)}")
    faulty = _record_fault(look, head, record, found)
    if not faulty and not not_finite(record) and (why := not_accepted(record)):
        found.add("not_accepted", look.key, why)
    caption = None if faulty else hash_of(record["augmented_prompt"])
    if (head.width, head.height) != (record["width"], record["height"]):
        stated = f"{record['width']} x {record['height']}"
        found.add("wrong_size", look.key, f"{head.width} x {head.height}, its JSON says {stated}")
        faulty = True
    facts = None if faulty else _facts(record)
    return Facts(look.key, digest, caption, facts, head.picture, image_print, record)


def _facts(record: dict[str, Any]) -> bytes | None:
    try:
        return facts_of(map(record.get, FACTS))
    except orjson.JSONEncodeError:  # a lone surrogate: no table takes it as it is
        return None


def _record(look: Look, content: bytes | OSError, found: Findings) -> dict[str, Any] | None:
    """A sample's JSON, if it is one and is this sample's."""
    place = f"{look.key}.json"
    if isinstance(content, OSError):
        found.add("torn", place, f"cannot be read: {content.strerror}")
        return None
    try:
        record = _parsed(content)
        fault = fault_of(record)
    except ValueError as error:
        fault = f"is no JSON: {error}" if content else "is empty"
    if fault:
        found.add("torn", place, fault)
        return None
    for name in not_finite(record):
        found.add("nan_score", place, f"{name} is no number")
    identity = (record["prompt_index"], record["augmentation_idx"])
    if look.index is not None and identity != look.identity:
        found.add("renamed", place, f"it is the JSON of {identity[0]}_{identity[1]}")
        return None
    return dict(record)


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return parse_json(content)  # takes NaN


def _head(
    look: Look, image: bytes, sha256: str, record: dict[str, Any], found: Findings
) -> JpegHead | None:
    """The head of an image that is the one of its JSON; else None, and a finding."""
    place = f"{look.key}.jpg"
    stated = record.get("image_sha256")
    try:
        head = read_jpeg(image)
    except ValueError as error:
        found.add("torn", place, str(error))
        return None
    carried = (head.comment.get("prompt_index"), head.comment.get("augmentation_idx"))
    if None not in carried and look.index is not None and carried != look.identity:
        found.add("renamed", place, f"it is the image of {carried[0]}_{carried[1]}")
        return None
    if stated == sha256:
        return head
    if fault := decode_fault(image):
        found.add("torn", place, fault)
        return None
    if stated is None:
        return head
    found.add("wrong_hash", place, "sha256 differs from the one in its JSON")
    return None


def _record_fault(look: Look, head: JpegHead, record: dict[str, Any], found: Findings) -> bool:
    """Whether image, JSON and .prompts disagree: the image carries all but the place."""
    caption = record["augmented_prompt"]
    for name, value in head.comment.items():
        if name in OTHERWISE or value == record.get(name):
            continue
        if value == without_folders(record).get(name):
            continue
        if name == "scores" and not_finite(record):  # which is named
            continue
        found.add("swapped_caption", f"{look.key}.json", f"its image carries another {name}")
        return True
    if look.caption is not None and look.caption != caption:
        found.add("caption_differs", look.key, "its .prompts has another text for it")
        return True
    return False
