"""Fetch a hub model once for all clients that share a cache, then load it without the hub.

    fetch_files("Tongyi-MAI/Z-Image-Turbo", commit)             # before an array begins
    pipe = load_once("Tongyi-MAI/Z-Image-Turbo", None, load)    # load(offline: bool)

The first client loads under a lock that ends with its process, however that dies; the others wait.
When it has all files it leaves a mark for that commit beside the lock, and who finds the mark loads
from the cache alone: 128 clients ask the hub for nothing. Where the mark is wrong (the cache was
emptied) the model is fetched again.
"""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from common.hub import limit_hub
from generate.image_models.model_commit import commit_of
from generate.image_models.model_recipes import family_of, folder_of
from generate.image_models.one_first import one_first

log = logging.getLogger(__name__)
T = TypeVar("T")

FOLDER = ".generate_images"  # in the hub's cache
LLAMA_FILES = ["*.json", "*.safetensors"]  # of the text encoder that HiDream's folder does not hold


def load_once(model: str, revision: str | None, load: Callable[[bool], T]) -> T:
    """What load(offline) returns; offline: every file is in the cache. Any error of load."""
    if folder_of(model) is not None:
        return load(False)
    limit_hub()
    if _mark(model, revision).exists():
        try:
            return load(True)
        except OSError as error:
            log.warning("%s is not whole in the cache any more (%s); fetched again", model, error)
            with contextlib.suppress(OSError):
                _mark(model, revision).unlink()
    lock = _folder() / f"{_name(model)}.lock"
    with one_first(lock, lambda: _mark(model, revision).exists(), f"fetches {model}") as first:
        if first:
            loaded = load(False)
            with contextlib.suppress(OSError):  # a cache of other hands: the next one locks again
                _mark(model, revision).touch()
            return loaded
    return load(True)


def is_fetched(model: str, revision: str | None) -> bool:
    """Whether every file of a model is here: a folder's, or of a commit that was fetched whole."""
    return folder_of(model) is not None or _mark(model, revision).exists()


def fetch_files(model: str, revision: str | None) -> None:
    """Fetch what from_pretrained would fetch, and load nothing.

    Errors: of the hub, the network, the disk.
    """
    load_once(model, revision, lambda offline: None if offline else _download(model, revision))


def _download(model: str, revision: str | None) -> None:
    import diffusers  # heavy, as is the next: not needed for a model that is there
    import huggingface_hub as hub

    be_quiet()
    whole = diffusers.DiffusionPipeline
    family = family_of(model)
    if family.base and family.lora_file:
        whole.download(family.base)
        hub.hf_hub_download(model, family.lora_file, revision=revision)
    elif family.base:
        whole.download(family.base, transformer=None)
        hub.snapshot_download(model, revision=revision, allow_patterns=["transformer/*"])
    else:
        whole.download(model, revision=revision)
    if family.text_encoder_4:
        hub.snapshot_download(
            family.text_encoder_4, allow_patterns=LLAMA_FILES, ignore_patterns=["original/*"]
        )


def be_quiet() -> None:
    """No notices (no torchvision, a truncated prompt): they would fill a thousand logs."""
    import diffusers  # heavy, as is the next; whoever calls this has loaded them, or will
    import transformers

    for library in (transformers, diffusers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _mark(model: str, revision: str | None) -> Path:
    """The mark of a commit that is in the cache; of an unknown commit it never exists."""
    return _folder() / f"{_name(model)}--{commit_of(model, revision)}.whole"


def _name(model: str) -> str:
    return model.replace("/", "--")


def _folder() -> Path:
    from huggingface_hub import constants  # 0.3 s that a local folder does not need

    return Path(constants.HF_HUB_CACHE) / FOLDER
