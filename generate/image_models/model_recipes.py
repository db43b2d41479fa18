"""The numbers of a model, from its row of the table or its pipeline; batch sizes by card.

    python -c "from generate.image_models.model_recipes import print_tables; print_tables()"

Any model that DiffusionPipeline.from_pretrained loads can be used. The table is model_table.py.
"""

import inspect
import os
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.files import CHECKOUT
from common.json_text import parse_json
from common.untrusted import read_untrusted
from generate.image_models.hub_file import hub_file
from generate.image_models.model_family import Family
from generate.image_models.model_table import FAMILIES, SOURCES

TINY = CHECKOUT / "examples" / "tiny_model"
CONFIG_BYTES = 1 << 20  # of a model's JSON, some kB
UNKNOWN = Family("untested", "DiffusionPipeline", "", 1024, 50, 5.0, tested=False)


def folder_of(model: str) -> Path | None:
    """The local folder a model name means ("tiny" or a path), or None for a hub id."""
    if model == "tiny":
        return TINY
    return Path(os.path.realpath(model)) if Path(model).is_dir() else None


@cache
def hub_config(model: str, name: str, revision: str | None = None) -> dict[str, Any]:
    """A small JSON file of a hub model, through the cache; {} where it cannot be had."""
    if "/" not in model:
        return {}
    try:
        return read_config(hub_file(model, name, revision))
    except (OSError, ValueError, UserError):  # check_model() says why, for the whole model
        return {}


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of a model's file. UserError: it is none, as a login page, or damaged."""
    try:
        contents = parse_json(read_untrusted(path, CONFIG_BYTES))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError:
        contents = None
    if not isinstance(contents, dict) or not isinstance(contents.get("_class_name", ""), str):
        raise UserError(f"{path} is no model's JSON: remove the model's folder, and get it again")
    return contents


def model_index(model: str) -> dict[str, Any]:
    """A local folder's model_index.json; {} for a hub id or a folder of a single component."""
    folder = folder_of(model)
    path = folder / "model_index.json" if folder else None
    return read_config(path) if path and path.is_file() else {}


def family_of(model: str) -> Family:
    """The row of a model (a hub id, a folder, "tiny"), without loading it.

    Else the row of its pipeline's class, with the size of its own configuration; else the defaults
    of that class. For a hub id of unknown name that is looked up on the hub, once.
    """
    folder = folder_of(model)
    found = _rows_by_name(model)
    pipeline = model_index(model).get("_class_name")
    if pipeline:
        found = [row for row in found if row.pipeline == pipeline]
    if found:
        return found[0]
    if folder is None:
        pipeline = hub_config(model, "model_index.json").get("_class_name")
    of_class = [row for row in FAMILIES[1:] if row.pipeline == pipeline and not row.base]
    # of several the one of the most steps: its model is not distilled, or at least images come out;
    # of those the last, as special cases come first
    if of_class:
        row = max(reversed(of_class), key=lambda row: (row.steps or 0, row.guidance or 0))
        # another model of that class may have other weights
        return replace(row, size=own_size(model) or row.size, weights_gib=None, largest_gib=None)
    return own_defaults(pipeline, own_size(model)) if pipeline else UNKNOWN


def row_by_name(model: str) -> Family | None:
    """The row of the table for a hub id, or for a folder's name; None: it knows none."""
    return next(iter(_rows_by_name(model)), None)


def _rows_by_name(model: str) -> list[Family]:
    folder = folder_of(model)
    name = "tiny" if folder == TINY else folder.name if folder else model
    return [family for family in FAMILIES if re.search(family.hub, name)]


def own_size(model: str) -> int | None:
    """Pixels, from the model's configurations; None where they do not say."""
    samples = [_config(model, part).get("sample_size") for part in ("transformer", "unet")]
    sample = next((size for size in samples if isinstance(size, int)), None)
    channels = _config(model, "vae").get("block_out_channels")
    channels = channels if channels and isinstance(channels, list) else [0] * 4
    return sample * 2 ** (len(channels) - 1) if sample else None


def _config(model: str, part: str) -> dict[str, Any]:
    folder = folder_of(model)
    if folder is None:
        return hub_config(model, f"{part}/config.json")
    path = folder / part / "config.json"
    return read_config(path) if path.is_file() else {}


def own_defaults(pipeline: str, size: int | None) -> Family:
    """The row that a pipeline class without one has by its signature: numbers, to be recorded."""
    import diffusers  # heavy, and needed for a class that is not in the table alone

    cls = getattr(diffusers, pipeline, None)
    if cls is None:
        return replace(UNKNOWN, size=size or UNKNOWN.size)
    known = inspect.signature(cls.__call__).parameters
    default = {name: known[name].default for name in known}
    argument = "true_cfg_scale" if "true_cfg_scale" in known else "guidance_scale"
    height = default.get("height")
    return replace(
        UNKNOWN,
        pipeline=pipeline,
        size=size or (height if isinstance(height, int) else UNKNOWN.size),
        steps=default.get("num_inference_steps"),
        guidance=default.get(argument),
        guidance_argument=argument,
        negative_prompt="" if "negative_prompt" in known else None,
    )


@dataclass(frozen=True)
class Profile:
    memory: float  # GiB, at least; a card says less than its name, an A100 of 40 GB 39.5
    cards: str
    batch_size: int  # images of 1024 x 1024 pixels; as many more of smaller ones
    offload: str = "none"
    without_t5: bool = False


# Starting points: image_generator.py halves a batch that does not fit, and remembers the half.
PROFILES = [
    Profile(70, "H100 80 GB, A100 80 GB, H200", 16),
    Profile(38, "A100 40 GB, A6000, L40S", 8),
    Profile(22, "RTX 3090, RTX 4090, A5000, A10, L4", 4),
    Profile(14, "V100 16 GB, T4, RTX 4080", 2, without_t5=True),
    Profile(9.5, "RTX 2080 Ti, RTX 3080", 1, without_t5=True),
    Profile(0, "smaller cards", 1, offload="model", without_t5=True),
]
CPU = Profile(0, "CPU", 1)
LARGEST_BATCH = 16  # images of few pixels gain nothing from more, and a killed job loses a batch


def profile_of(memory_gib: float | None) -> Profile:
    """The profile of a card with so much memory; None: the CPU's."""
    if memory_gib is None:
        return CPU
    return next(profile for profile in PROFILES if memory_gib >= profile.memory)


def batch_size_for(profile: Profile, height: int, width: int) -> int:
    """Images of this size that fit, by the table."""
    return max(1, min(LARGEST_BATCH, profile.batch_size * 1024 * 1024 // (height * width)))


def dtype_for(family: Family, capability: tuple[int, int] | None) -> str:
    """capability: (major, minor) of the GPU, None on a CPU. bfloat16 needs 8.0 (Ampere)."""
    if capability is None:
        return "float32"
    return "float16" if family.dtype == "bfloat16" and capability < (8, 0) else family.dtype


def numbers_of(row: Family) -> str:
    """Where a row's steps and guidance are from: class, docs, card, repo; tiny: this project."""
    return SOURCES.get(row.name, "own" if row.name == "tiny" else "class")


def print_tables() -> None:
    """Print both tables."""
    print(
        f"{'family':30} {'pixels':>6} {'steps':>5} {'guidance':>8} {'GiB':>6} {'largest':>7}  "
        f"{'numbers':7}  {'licence'}"
    )
    for row in FAMILIES:
        print(
            f"{row.name:30} {row.size:6} {row.steps!s:>5} {row.guidance!s:>8} "
            f"{row.weights_gib!s:>6} {row.largest_gib!s:>7}  {numbers_of(row):7}  {row.licence}"
        )
    print(f"\n{'GiB':>4} {'batch at 1024':>13} {'offload':>8} {'no T5':>6}  cards")
    for card in PROFILES:
        print(
            f"{card.memory:4g} {card.batch_size:13} {card.offload:>8} "
            f"{card.without_t5!s:>6}  {card.cards}"
        )
