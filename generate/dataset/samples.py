"""Publish a sample: the image with its metadata inside, then its JSON.

000012/12345_3.jpg      carries its metadata as a JPEG comment: the .json can be made from it alone
000012/12345_3.json     that metadata, the place it was made at, and the sha256 of the image's bytes
000012/12345_3.failed   a sample given up, written only after the server said "set aside"

The image gets its name first, by an exclusive link, then its JSON. A sample counts when both names
exist. An image left without its JSON is rolled forward by the next holder of the index's lease.
Read them all, packed or not: iterate(dataset_dir) of common/sample_reader.py, by this name, too.
"""

import errno
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.jpeg import XMP, carried, without_folders
from common.json_text import parse_json
from common.packed_folder import is_plain
from common.sample_reader import iterate as iterate
from common.untrusted import IMAGE_BYTES, SAMPLE_BYTES, Refused, open_jpeg, read_untrusted
from generate.dataset.disk import spare
from generate.dataset.layout import JPEG_QUALITY, folder_name, path_of, stem
from generate.dataset.links import publish, remove, set_aside, write_temporary

log = logging.getLogger(__name__)

Metadata = dict[str, Any]
COMMENT = b"\xff\xfe"  # the marker in front of a JPEG's comment
APPLICATION = 0xE0  # of the markers in front of it, 0xFFE0 … 0xFFEF: JFIF, XMP
MAX_COMMENT = 65533  # bytes in a JPEG comment (its length is 16 bits and counts itself)


@dataclass(frozen=True)
class Place:
    """Where an image was made: in the JSON alone, null when unknown."""

    lease: str
    hostname: str | None = None
    gpu_name: str | None = None
    slurm_job_id: str | None = None


PLACE = tuple(field.name for field in fields(Place))


def publish_sample(
    dataset_dir: str | os.PathLike[str],
    image: Any,
    metadata: Metadata,
    place: Place,
    quality: int = JPEG_QUALITY,
) -> bool:
    """Publish an image and its JSON.

    image: PIL, uint8 array of shape (height, width, 3), or bytes of encode_alone().
    metadata: what the image carries, all fields but the place. True if the sample now counts with
    this image, False if another stands. ValueError: metadata too long for a JPEG comment. OSError:
    the disk; nothing is left behind but what counts.
    """
    index = metadata["prompt_index"]
    aug = metadata["augmentation_idx"]
    final = path_of(dataset_dir, index, aug, ".jpg")
    final.parent.mkdir(parents=True, exist_ok=True)
    comment = comment_of(metadata)
    jpeg = image if isinstance(image, bytes) else encode_alone(image, quality)
    data = with_comment(jpeg, comment)
    mine = publish(write_temporary(final, data, place.lease), final)
    if not mine and not os.path.lexists(final):
        return False  # the temporary file was taken away by the next holder of this index
    if not mine:
        if not roll_forward(dataset_dir, index, aug, place.lease) and not is_plain(final):
            raise OSError(errno.EBUSY, "it is no file", os.fspath(final))
        return False
    # The metadata of these bytes is known; decoding the image would only find it again.
    if not _publish_json(final, metadata, data, asdict(place), place.lease):
        _agree(final, place.lease)
    return True


def comment_of(metadata: Metadata) -> bytes:
    """The JPEG comment that carries `metadata`: UTF-8 JSON. ValueError if it is too long.

    Of a model or LoRA in a local folder it has the last part of the path only, since images are
    published byte for byte.
    """
    comment = carried(without_folders(metadata))
    if len(comment) > MAX_COMMENT:
        name = stem(metadata["prompt_index"], metadata["augmentation_idx"])
        raise ValueError(
            f"the texts of {name} take {len(comment):,} bytes, "
            f"more than the {MAX_COMMENT:,} of a JPEG comment"
        )
    return comment


def encode(image: Any, comment: bytes, quality: int) -> bytes:
    """The bytes of a JPEG with a comment; image: PIL, or uint8 array."""
    return with_comment(encode_alone(image, quality), comment)


def encode_alone(image: Any, quality: int) -> bytes:
    """The bytes of a JPEG that has no comment yet."""
    from PIL import Image  # the server, which only looks at names, does without it

    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, "JPEG", quality=quality, comment=b"", xmp=XMP)
    return file.getvalue()


def with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """The same JPEG with a comment, where Pillow would have put it; nothing is encoded again."""
    at = 2
    while jpeg[at + 1] & 0xF0 == APPLICATION:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")  # a length counts itself
    length = (len(comment) + 2).to_bytes(2, "big")
    return b"".join((jpeg[:at], COMMENT, length, comment, jpeg[at:]))


def decoded(jpeg: bytes) -> Any:
    """The pixels of a JPEG as a reader decodes them: uint8 array (height, width, 3).

    Images are scored on these, not on the pipeline's output: compression can move a value over a
    threshold, and anyone who scores the published file must find the same.
    """
    from numpy import asarray
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        return asarray(image.convert("RGB"))


def roll_forward(dataset_dir: str | os.PathLike[str], index: int, aug: int, lease: str) -> bool:
    """Give an image that has no JSON its JSON, made from the image alone.

    False if the image is broken or not this sample's. Only the holder of the index's lease may
    call this.
    """
    final = path_of(dataset_dir, index, aug, ".jpg")
    try:
        data = read_untrusted(final, IMAGE_BYTES)
        metadata = read_comment(data)
    except (FileNotFoundError, Refused, ValueError):
        return False
    if (metadata.get("prompt_index"), metadata.get("augmentation_idx")) != (index, aug):
        return False
    if not is_plain(final.with_suffix(".json")):
        _publish_json(final, metadata, data, {}, lease)
    return True


def read_comment(data: bytes) -> Metadata:
    """The metadata a JPEG's bytes carry; ValueError if it is not whole or carries none."""
    try:
        image = open_jpeg(data)
        image.load()
        metadata = parse_json(image.info["comment"])
    except (OSError, SyntaxError, KeyError, ValueError) as error:
        raise ValueError(f"not a whole JPEG with metadata: {error}") from None
    if not isinstance(metadata, dict):
        raise ValueError("the JPEG's comment is not metadata")
    return metadata


def _agree(image_path: Path, lease: str) -> None:
    """A JSON was there already, left by an image that was deleted.

    Unless it belongs to the present image, it is made again from that one.
    """
    path = image_path.with_suffix(".json")
    try:
        data = read_untrusted(image_path, IMAGE_BYTES)
        metadata = read_comment(data)
    except (FileNotFoundError, Refused, ValueError):
        return  # removed or replaced just now: the next holder generates it again
    try:
        record = parse_json(read_untrusted(path, SAMPLE_BYTES))
        agrees = record["image_sha256"] == hashlib.sha256(data).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        agrees = False  # no JSON of a sample, or gone
    if not agrees:
        remove(path)
        _publish_json(image_path, metadata, data, {}, lease)


def _publish_json(
    image_path: Path, metadata: Metadata, data: bytes, place: Mapping[str, Any], lease: str
) -> bool:
    """metadata: as the comment of `data`, the image's bytes, has it. False: one stands there."""
    record = (
        metadata
        | {key: place.get(key) for key in PLACE}
        | {"image_sha256": hashlib.sha256(data).hexdigest()}
    )
    final = image_path.with_suffix(".json")
    return publish(write_temporary(final, ascii_json(record), lease), final)


def publish_failed(
    dataset_dir: str | os.PathLike[str], index: int, aug: int, reason: str, error: str, lease: str
) -> bool:
    """Mark a sample as given up. Call it only after the server answered "set aside"."""
    return give_up(dataset_dir, index, aug, lease, {"reason": reason, "error": error})


def give_up(
    dataset_dir: str | os.PathLike[str], index: int, aug: int, lease: str, why: Mapping[str, Any]
) -> bool:
    """Publish a sample's .failed. why: its reason, its error, and what else is known."""
    final = path_of(dataset_dir, index, aug, ".failed")
    final.parent.mkdir(parents=True, exist_ok=True)
    whose = {"prompt_index": index, "augmentation_idx": aug}
    record = {**whose, **why, "lease": lease, "time": utc_now()}
    return publish(write_temporary(final, ascii_json(record), lease), final)


def remove_sample(dataset_dir: str | os.PathLike[str], index: int, aug: int) -> None:
    """Remove a sample so that it is generated again. Only for the holder of the index's lease.

    JSON first, so that no JSON ever stands without its image.
    """
    for suffix in (".json", ".jpg"):
        remove(path_of(dataset_dir, index, aug, suffix))


def set_stray_aside(dataset_dir: str | os.PathLike[str], index: int, name: str) -> None:
    """Rename what lies under the name of a sample's file and is none, so that it is made again."""
    path = Path(dataset_dir) / folder_name(index) / name
    if not is_plain(path) and (aside := set_aside(path, "foreign")):
        log.warning("%s is now called %s: it is no file", path, aside.name)


def remove_temporary(
    dataset_dir: str | os.PathLike[str], index: int, lease: str, names: Iterable[str]
) -> int:
    """Remove the temporary files that earlier holders of an index left; return how many.

    names: the index's temporary files, as a scan has just found them.
    """
    folder = Path(dataset_dir) / folder_name(index)
    stale = [name for name in names if not name.endswith(f".{lease}.tmp")]
    for name in stale:
        with spare():
            remove(folder / name)
    return len(stale)


def ascii_json(record: Mapping[str, Any]) -> bytes:
    """One line of ASCII. ValueError for NaN; a lone surrogate becomes "?"."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return json.dumps(parse_json(text)).encode() + b"\n"


def utc_now() -> str:
    """ "2026-11-24T16:45:01.123Z"."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
