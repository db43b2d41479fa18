"""Fetch a hub model's files without loading them, before the tasks of an array begin.

fetch("Tongyi-MAI/Z-Image-Turbo", commit)     # what from_pretrained would fetch, and no more
"""

from generate.client.fetch import load_once
from generate.client.model_recipes import family_of

LLAMA_FILES = ["*.json", "*.safetensors"]  # of the text encoder that HiDream's folder does not hold


def fetch(model: str, revision: str | None) -> None:
    """Nothing is fetched twice, nor by two at a time. Errors: of the hub, the network, the disk."""
    load_once(model, revision, lambda offline: None if offline else _download(model, revision))


def _download(model: str, revision: str | None) -> None:
    import diffusers  # heavy, as are the next: not needed for a model that is there
    import huggingface_hub as hub

    from generate.client.diffusers_pipeline import be_quiet

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
