"""`12345.prompts`: the captions of a prompt, written once, before its first image.

    record = publish_captions(dataset_dir, captions, lease)      # the record that stands
    read_captions(dataset_dir, 12345)                            # the newest record, or None

An extension adds `12345.prompts2`, which begins with the captions that stand: the caption of an
image never changes.
"""

import errno
import os
import time
from typing import Any, NotRequired, TypedDict

import orjson

from common.json_text import parse_json
from common.packed_folder import read_file
from common.untrusted import Refused
from generate.dataset.definition import MOST
from generate.dataset.disk import of_one_file
from generate.dataset.layout import captions_path
from generate.dataset.links import publish, write_temporary
from generate.dataset.samples import MAX_COMMENT, ascii_json

MOST_IMAGES = MOST["images_per_prompt"]
CAPTIONS_BYTES = 64 << 20  # of a .prompts file; 200 captions of 500 bytes take 0.1 MB


class Caption(TypedDict):
    """One text to generate an image of, and the LLM it is from (None: the original prompt)."""

    text: str
    llm_model_name: NotRequired[str | None]
    backend: NotRequired[str | None]
    overlap: NotRequired[float]


class Missing(TypedDict):
    """How many captions fewer than asked for, and why."""

    missing: int
    reason: str


class Captions(TypedDict):
    """The contents of a .prompts file."""

    prompt_index: int
    original_prompt: str
    source: list[str]
    texts: list[Caption]
    short: Missing | None


def missing_of(record: Captions) -> int:
    """How many captions fewer than asked for a record holds."""
    short = record["short"]
    return short["missing"] if short else 0


def images_wanted(record: Captions) -> int:
    """Images that were asked for when a record was made: its captions and the missing ones."""
    return len(record["texts"]) + missing_of(record)


def read_captions(dataset_dir: str | os.PathLike[str], index: int) -> Captions | None:
    """The newest record of a prompt that is one; None where there is none, or only broken ones."""
    return _newest(dataset_dir, index)[0]


def read_generation(
    dataset_dir: str | os.PathLike[str], index: int, generation: int
) -> Captions | None:
    """The record of one .prompts file; None: it is none of this prompt, or others may not read it.

    FileNotFoundError: there is none. OSError: the disk, or the folder's mark.
    """
    path = captions_path(dataset_dir, index, generation)
    try:
        record = _parsed(read_file(path, CAPTIONS_BYTES))
    except (Refused, ValueError):
        return None
    except FileNotFoundError:
        raise
    except OSError as error:
        if not of_one_file(error):
            raise
        if not os.path.lexists(path):  # a path that is too long: no generation ends the search
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
        return None
    if not is_captions(record, index):
        return None
    found: Captions = record
    found.setdefault("short", None)
    return found


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)  # half of the time of json
    except orjson.JSONDecodeError:  # torn, or a lone surrogate
        return parse_json(data)


def is_captions(record: object, index: int) -> bool:
    """Whether a JSON value is a record of this prompt."""
    if not isinstance(record, dict) or type(record.get("prompt_index")) is not int:
        return False
    texts, short = record.get("texts"), record.get("short")
    return (
        record["prompt_index"] == index
        and isinstance(record.get("original_prompt"), str)
        and isinstance(record.get("source"), list)
        and all(isinstance(source, str) for source in record["source"])
        and isinstance(texts, list)
        and len(texts) <= MOST_IMAGES
        and bool(texts or short)  # none at all: the prompt was refused, and that has a reason
        and _are_captions(texts)
        and (short is None or _is_missing(short))
    )


def _is_missing(short: object) -> bool:
    missing = short.get("missing") if isinstance(short, dict) else None
    return type(missing) is int and 0 <= missing <= MOST_IMAGES


def _are_captions(texts: list[object]) -> bool:
    for text in texts:  # 200 a prompt, of every prompt at a start without a ledger
        if not isinstance(text, dict) or not isinstance(text.get("text"), str):
            return False
        if len(text["text"]) > MAX_COMMENT:  # no image could carry it
            return False
        if not isinstance(text.get("llm_model_name"), str | None):
            return False
    return True


def _newest(dataset_dir: str | os.PathLike[str], index: int) -> tuple[Captions | None, int]:
    """(the newest record, the newest generation by name: 1 for .prompts, 2 for .prompts2, …).

    One number may be missing: a .prompts that was deleted beside its .prompts2.
    """
    generation = 0
    record: Captions | None = None
    looked_at = 0
    while looked_at <= generation + 1:
        looked_at += 1
        try:
            record = read_generation(dataset_dir, index, looked_at) or record
            generation = looked_at
        except FileNotFoundError:
            pass
    return record, generation


def publish_captions(dataset_dir: str | os.PathLike[str], record: Captions, lease: str) -> Captions:
    """Publish a record; return the one that stands: this, or another holder's.

    A record that stands is only followed by a newer one (.prompts2, …) if that was asked for more
    images (an extension), and then begins with the captions that stand.
    """
    index = record["prompt_index"]
    captions_path(dataset_dir, index).parent.mkdir(parents=True, exist_ok=True)
    for pause_s in (0, 1, 2, 4, 8):
        if pause_s:
            time.sleep(pause_s)  # a name of another holder that cannot be seen here yet
        stands, generation = _newest(dataset_dir, index)
        if stands and images_wanted(stands) >= images_wanted(record):
            return stands
        if stands:
            added = record["texts"][len(stands["texts"]) :]
            record = {**record, "texts": stands["texts"] + added}
        final = captions_path(dataset_dir, index, generation + 1)
        if publish(write_temporary(final, ascii_json(record), lease), final):
            return record
    raise OSError(errno.EEXIST, "its name is taken, and no captions can be read there", final)
