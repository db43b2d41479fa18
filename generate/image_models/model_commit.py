"""Which version of a model is here: the commit of a hub model, or what a folder holds.

commit_of("stabilityai/sdxl-turbo", None)     # 40 hex digits, or None
"""

import hashlib
import re
from pathlib import Path

from generate.image_models.model_recipes import folder_of

COMMIT = re.compile(r"[0-9a-f]{40}")
PARTS_OF_A_MODEL = (".json", ".safetensors", ".bin", ".model", ".txt")
LARGEST_CONFIG = 1 << 20  # bytes; a tokenizer's vocabulary is larger


def cached(model: str) -> Path:
    """The folder of a hub model in the local cache; it need not be there."""
    from huggingface_hub import constants  # 0.3 s that a local folder does not need

    return Path(constants.HF_HUB_CACHE) / ("models--" + model.replace("/", "--"))


def commit_of(model: str, revision: str | None) -> str | None:
    """The commit of a hub model in the local cache (40 hex digits), or what a folder holds.

    None: unknown.
    """
    folder = folder_of(model)
    if folder is not None:
        return contents_of(folder)
    if revision and COMMIT.fullmatch(revision):
        return revision
    path = cached(model) / "refs" / (revision or "main")
    try:
        commit = path.read_text().strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None


def contents_of(folder: Path) -> str:
    """ "files-…": a hash over names, sizes and configurations; weights of one size are not read."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or path.suffix not in PARTS_OF_A_MODEL or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        if path.suffix == ".json" and size < LARGEST_CONFIG:
            digest.update(path.read_bytes())
    return f"files-{digest.hexdigest()[:16]}"
