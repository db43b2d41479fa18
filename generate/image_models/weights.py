"""GiB of a model's weights, by the headers of its safetensors files; no weight is read.

    stored_gib("folder/of/a/model", None, "bfloat16")     # (54.9, 38.1): all, the largest part

The files of a folder, or of a hub model that was fetched whole. None where they do not tell.
"""

import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from common.json_text import parse_json
from common.untrusted import open_untrusted, read_text
from generate.image_models.fetch import is_fetched
from generate.image_models.model_commit import cached, commit_of
from generate.image_models.model_recipes import folder_of

GIB = 2**30
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LARGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it
# Of whole files and of shards; with a variant's name between (model.fp16.safetensors) they are
# copies in another precision, which are not loaded.
FILES = re.compile(r"(?:model|diffusion_pytorch_model)(?:-[0-9]+-of-([0-9]+))?\.safetensors")


def stored_gib(
    model: str, revision: str | None, dtype: str, without: Collection[str] = ()
) -> tuple[float, float] | None:
    """(all weights, the largest part) as loaded in `dtype`; without: components left out."""
    folder = _folder(model, revision)
    try:
        index = parse_json(read_text(folder / "model_index.json")) if folder else {}
        parts = {
            name: _parameters(folder / name)
            for name, what in index.items()
            if folder and name not in without and _is_a_model(folder / name, what)
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    sizes = [count * BYTES[dtype] / GIB for count in parts.values()]
    return (sum(sizes), max(sizes)) if sizes else None


def _folder(model: str, revision: str | None) -> Path | None:
    """Where the files lie; None: a hub model that is not whole here."""
    folder = folder_of(model)
    if folder is not None or not is_fetched(model, revision):
        return folder
    return cached(model) / "snapshots" / str(commit_of(model, revision))


def _is_a_model(part: Path, what: Any) -> bool:
    """Whether a component has weights: tokenizers and schedulers have no config.json.

    what: its library and class in model_index.json. OSError: the folder is not there, so that its
    weights come from elsewhere.
    """
    if not isinstance(what, list) or what[0] is None:
        return False
    return "config.json" in {path.name for path in part.iterdir()}


def _parameters(part: Path) -> int:
    """OSError: not all of its weights are in safetensors files."""
    found = {path: FILES.fullmatch(path.name) for path in part.iterdir()}
    files = {path: int(match[1] or 1) for path, match in found.items() if match}
    if not files or any(shards != len(files) for shards in files.values()):
        raise OSError(f"{part}: {len(files)} files of weights")
    return sum(map(_parameters_of_file, files))


def _parameters_of_file(path: Path) -> int:
    with os.fdopen(open_untrusted(path), "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size <= LARGEST_HEADER:
            raise ValueError(f"{path}: a header of {size} bytes")
        header = parse_json(file.read(size))
    return sum(math.prod(each["shape"]) for key, each in header.items() if key != "__metadata__")
