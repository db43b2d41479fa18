"""Compare a prompt's .prompts with its images, and make it again where it is lost or damaged.

    standing = standing_captions(dataset_dir, 12345, "a corgi in a top hat", files, 200)
    standing.record      # a whole .prompts that agrees with the images, or None
    standing.captions    # {augmentation: caption}: of that record, else of the images themselves

A published caption never changes beside its image. So a .prompts that was lost, torn or replaced is
made again from the metadata in the images. What contradicts them is renamed (12345.prompts.broken,
12345_3.jpg.foreign).
"""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from common.json_text import parse_json
from common.packed_folder import read_file
from common.untrusted import IMAGE_BYTES, SAMPLE_BYTES, Refused, read_untrusted
from generate.dataset.captions import Caption, Captions, read_generation
from generate.dataset.layout import captions_path, path_of
from generate.dataset.links import remove, set_aside
from generate.dataset.samples import Metadata, read_comment
from generate.dataset.scan import IndexFiles

log = logging.getLogger(__name__)

FROM_IMAGE = "image"  # as the backend of a caption that an image has given back
LOOK_AGAIN_S = 1.0  # before a file counts as broken: a network file system may show it late


@dataclass(frozen=True)
class Standing:
    """The captions of a prompt that are in force; see the module."""

    record: Captions | None
    captions: dict[int, Caption]


def standing_captions(
    dataset_dir: str | os.PathLike[str], index: int, prompt: str, files: IndexFiles, wanted: int
) -> Standing:
    """The captions of prompt `index`, whose text is `prompt`, that are in force.

    wanted: how many images of it are asked for; those beyond, and beyond the record, say nothing.
    Only the holder of the index's lease may call this. Files that are renamed are taken out of
    `files`. OSError: the disk.
    """
    record = _own_record(dataset_dir, index, prompt, files) if files.generation else None
    captions: dict[int, Caption] = dict(enumerate(record["texts"])) if record else {}
    contradicted = False
    most = max(wanted, len(captions))
    for aug in sorted(aug for aug in files.images | files.jsons if aug < most):
        metadata = _metadata_of(dataset_dir, index, aug, files)
        if metadata is None:
            continue  # broken: whoever holds the lease generates it again
        if not _is_of(metadata, index, aug, prompt):
            _set_image_aside(dataset_dir, index, aug, files)
            continue
        text = metadata["augmented_prompt"]
        if aug not in captions or captions[aug]["text"] != text:
            contradicted = contradicted or aug in captions
            model = metadata.get("llm_model_name")
            model = model if isinstance(model, str) else None
            captions[aug] = {"text": text, "llm_model_name": model, "backend": FROM_IMAGE}
    if record and contradicted:
        for generation in range(1, files.generation + 1):
            _set_captions_aside(dataset_dir, index, generation, "its images show other captions")
        record = None
    if record is None and captions:
        log.warning("the captions of prompt %d are made again from its images", index)
    return Standing(record, captions)


def _own_record(
    dataset_dir: str | os.PathLike[str], index: int, prompt: str, files: IndexFiles
) -> Captions | None:
    """The newest record that is of this prompt; broken and foreign ones are renamed."""
    for pause in (LOOK_AGAIN_S, None):
        good, bad = _sorted_records(dataset_dir, index, prompt, files.generation)
        if not bad:
            break
        if pause:
            time.sleep(pause)
    why = "it is no record of this prompt, or may not be read"
    for generation in bad:
        _set_captions_aside(dataset_dir, index, generation, why)
    return good


def _sorted_records(
    dataset_dir: str | os.PathLike[str], index: int, prompt: str, newest: int
) -> tuple[Captions | None, list[int]]:
    """(the newest good record, the generations that are none)."""
    good: Captions | None = None
    bad = []
    for generation in range(1, newest + 1):
        try:
            record = read_generation(dataset_dir, index, generation)
        except FileNotFoundError:
            continue
        if record and record["original_prompt"] == prompt:
            good = record
        else:
            bad.append(generation)
    return good, bad


def _set_captions_aside(
    dataset_dir: str | os.PathLike[str], index: int, generation: int, why: str
) -> None:
    path = captions_path(dataset_dir, index, generation)
    if aside := set_aside(path, "broken"):
        log.warning("%s is now called %s: %s", path, aside.name, why)


def _metadata_of(
    dataset_dir: str | os.PathLike[str], index: int, aug: int, files: IndexFiles
) -> Metadata | None:
    """The metadata of a sample, from its JSON or else its image; None if neither is whole.

    A JSON that is torn is removed: it is made again from the image.
    """
    path = path_of(dataset_dir, index, aug, ".json")
    if aug in files.jsons:
        if metadata := _read_json(path):
            return metadata
        log.warning("%s is not the JSON of a sample; it is made again", path)
        remove(path)
        files.jsons.discard(aug)
    if aug not in files.images:
        return None
    try:
        metadata = read_comment(read_untrusted(path.with_suffix(".jpg"), IMAGE_BYTES))
    except (FileNotFoundError, Refused, ValueError):
        return None
    return metadata if isinstance(metadata.get("augmented_prompt"), str) else None


def _read_json(path: Path) -> Metadata | None:
    try:
        metadata = parse_json(read_file(path, SAMPLE_BYTES))
    except (FileNotFoundError, Refused, ValueError):
        return None
    if isinstance(metadata, dict) and isinstance(metadata.get("augmented_prompt"), str):
        return metadata
    return None


def _is_of(metadata: Metadata, index: int, aug: int, prompt: str) -> bool:
    """Whether it is this sample's."""
    named = (metadata.get("prompt_index"), metadata.get("augmentation_idx"))
    return named == (index, aug) and metadata.get("original_prompt", prompt) == prompt


def _set_image_aside(
    dataset_dir: str | os.PathLike[str], index: int, aug: int, files: IndexFiles
) -> None:
    for suffix, names in ((".json", files.jsons), (".jpg", files.images)):
        path = path_of(dataset_dir, index, aug, suffix)
        if aug in names and (aside := set_aside(path, "foreign")):
            log.warning("%s is now called %s: it is of another prompt", path, aside.name)
        names.discard(aug)
