"""The captions of a prompt: `12345.prompts`, written once, before the prompt's first image.

    record = publish_captions(dataset_dir, captions, lease)      # the record that stands
    read_captions(dataset_dir, 12345)                            # the newest record, or None

An extension adds `12345.prompts2`, which begins with the captions that stand: the caption of an
image never changes.
"""

import json
import os
from typing import NotRequired, TypedDict

from common.untrusted import read_untrusted
from generate.dataset.layout import captions_path
from generate.dataset.links import publish, write_temporary
from generate.dataset.samples import ascii_json

CAPTIONS_BYTES = 64 << 20  # of a .prompts file; 200 captions of 500 bytes take 0.1 MB


class Caption(TypedDict):
    """One text to generate an image of, and the LLM it is from (None: the original prompt)."""

    text: str
    llm_model_name: str | None
    backend: str | None
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


def read_captions_file(
    dataset_dir: str | os.PathLike[str], index: int, generation: int
) -> Captions:
    """The record of one generation (1 for .prompts, …). OSError; ValueError: it is broken."""
    content = read_untrusted(captions_path(dataset_dir, index, generation), CAPTIONS_BYTES)
    try:
        record: Captions = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return record


def read_captions(dataset_dir: str | os.PathLike[str], index: int) -> Captions | None:
    """The newest record of a prompt, or None."""
    return _newest(dataset_dir, index)[0]


def _newest(dataset_dir: str | os.PathLike[str], index: int) -> tuple[Captions | None, int]:
    """(record, its generation: 1 for .prompts, 2 for .prompts2, …); (None, 0) without one."""
    generation = 0
    record: Captions | None = None
    while True:
        try:
            record = read_captions_file(dataset_dir, index, generation + 1)
        except FileNotFoundError:
            return record, generation
        generation += 1


def publish_captions(dataset_dir: str | os.PathLike[str], record: Captions, lease: str) -> Captions:
    """Publish a record; return the one that stands: this, or another holder's.

    A record that stands is only followed by a newer one (.prompts2, …) if that was asked for more
    images (an extension), and then begins with the captions that stand.
    """
    index = record["prompt_index"]
    captions_path(dataset_dir, index).parent.mkdir(parents=True, exist_ok=True)
    while True:
        stands, generation = _newest(dataset_dir, index)
        if stands and images_wanted(stands) >= images_wanted(record):
            return stands
        if stands:
            added = record["texts"][len(stands["texts"]) :]
            record = {**record, "texts": stands["texts"] + added}
        final = captions_path(dataset_dir, index, generation + 1)
        publish(write_temporary(final, ascii_json(record), lease), final)
