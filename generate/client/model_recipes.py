"""Tables: how the families of text-to-image models differ, and what fits on which GPU.

    python -c "from generate.client.model_recipes import print_tables; print_tables()"

Any model that DiffusionPipeline.from_pretrained loads can be used; a family's row says what it was
made for. A new family is a new row.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.files import CHECKOUT

TINY = CHECKOUT / "examples" / "tiny_model"
SD3_NOTICE = (
    "the Stability AI Community License forbids to train a foundation model on images of this "
    "model, and asks a licence of who earns over 1 M USD a year; Apache-2.0 models without such a "
    "clause: FLUX.1-schnell, Z-Image-Turbo, Qwen-Image"
)
FLUX_NOTICE = "FLUX.1-dev is for non-commercial use; FLUX.1-schnell is Apache-2.0"


@dataclass(frozen=True)
class Family:
    name: str
    pipeline: str  # the diffusers class, as model_index.json names it
    hub: str  # regular expression over hub ids
    size: int  # pixels, height and width it was trained for
    steps: int | None  # None = the pipeline's own default
    guidance: float | None
    max_sequence_length: int | None = None
    guidance_argument: str = "guidance_scale"
    dtype: str = "bfloat16"  # on a GPU that has it; else float16. On a CPU float32
    call: dict[str, Any] = field(default_factory=dict)  # further arguments of a call
    # Where all but the transformer comes from, for hub ids that hold a transformer alone.
    base: str | None = None
    without_t5: tuple[str, ...] = ()  # components left out on small cards
    tested: bool = True
    notice: str | None = None


FAMILIES = [
    Family("tiny", "StableDiffusion3Pipeline", r"^tiny$", 64, 12, 4.0, 16, dtype="float32"),
    Family(
        "sd3",
        "StableDiffusion3Pipeline",
        r"stable-diffusion-3(?!\.5)",
        1024,
        28,
        7.0,
        256,
        dtype="float16",
        without_t5=("text_encoder_3", "tokenizer_3"),
        notice=SD3_NOTICE,
    ),
    Family(
        "sd3.5",
        "StableDiffusion3Pipeline",
        r"stable-diffusion-3\.5",
        1024,
        40,
        4.5,
        256,
        without_t5=("text_encoder_3", "tokenizer_3"),
        notice=SD3_NOTICE,
        tested=False,
    ),
    # these hold a transformer alone, as published; 1024-MS is a whole pipeline and loads as one
    Family(
        "pixart-sigma (transformer)",
        "PixArtSigmaPipeline",
        r"PixArt-Sigma-XL-2-(256|512|2K)",
        512,
        20,
        4.5,
        300,
        dtype="float16",
        base="PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        call={"use_resolution_binning": False},
    ),
    Family(
        "pixart-sigma",
        "PixArtSigmaPipeline",
        r"(?i)pixart.sigma",
        1024,
        20,
        4.5,
        300,
        dtype="float16",
        call={"use_resolution_binning": False},
    ),
    Family(
        "pixart-alpha",
        "PixArtAlphaPipeline",
        r"(?i)pixart",
        1024,
        20,
        4.5,
        120,
        dtype="float16",
        call={"use_resolution_binning": False},
    ),
    Family("lumina", "LuminaPipeline", r"(?i)lumina-next", 1024, 30, 4.0),
    Family("lumina2", "Lumina2Pipeline", r"(?i)lumina-image-2", 1024, 50, 4.0, 256, tested=False),
    Family(
        "sdxl",
        "StableDiffusionXLPipeline",
        r"(?i)stable-diffusion-xl|sdxl",
        1024,
        50,
        5.0,
        dtype="float16",
    ),
    Family("flux-schnell", "FluxPipeline", r"FLUX\.1-schnell", 1024, 4, 0.0, 256),
    Family("flux", "FluxPipeline", r"FLUX\.1", 1024, 28, 3.5, 512, notice=FLUX_NOTICE),
]
UNTESTED = Family("untested", "DiffusionPipeline", "", 1024, None, None, tested=False)


def folder_of(model: str) -> Path | None:
    """The local folder a model name means ("tiny" or a path), or None for a hub id."""
    if model == "tiny":
        return TINY
    return Path(model).resolve() if Path(model).is_dir() else None


def model_index(model: str) -> dict[str, Any]:
    """A local folder's model_index.json; {} for a hub id or a folder of a single component."""
    folder = folder_of(model)
    path = folder / "model_index.json" if folder else None
    if path is None or not path.is_file():
        return {}
    contents: dict[str, Any] = json.loads(path.read_text())
    return contents


def family_of(model: str) -> Family:
    """The row of a model (a hub id, a folder, "tiny"), without loading it; else UNTESTED."""
    folder = folder_of(model)
    name = folder.name if folder else model
    if folder == TINY:
        name = "tiny"
    found = [family for family in FAMILIES if re.search(family.hub, name)]
    pipeline = model_index(model).get("_class_name")
    if pipeline:
        found = [f for f in found if f.pipeline == pipeline] or [
            f for f in FAMILIES[1:] if f.pipeline == pipeline and not f.base
        ]
    return found[0] if found else UNTESTED


@dataclass(frozen=True)
class Profile:
    memory: int  # GiB, at least
    cards: str
    batch_size: int  # images of 1024 x 1024 pixels; as many more of smaller ones
    offload: str = "none"
    without_t5: bool = False


# Starting points: image_generator.py halves a batch that does not fit, and remembers the half.
PROFILES = [
    Profile(70, "H100 80 GB, A100 80 GB, H200", 16),
    Profile(40, "A100 40 GB, A6000, L40S", 8),
    Profile(22, "RTX 3090, RTX 4090, A5000, A10, L4", 4),
    Profile(14, "V100 16 GB, T4, RTX 4080", 2, without_t5=True),
    Profile(10, "RTX 2080 Ti, RTX 3080", 1, without_t5=True),
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


def print_tables() -> None:
    """Print both tables."""
    print(f"{'family':28} {'pipeline':28} {'pixels':>6} {'steps':>5} {'guidance':>8}  tested")
    for row in FAMILIES:
        print(
            f"{row.name:28} {row.pipeline:28} {row.size:6} {row.steps!s:>5} "
            f"{row.guidance!s:>8}  {'yes' if row.tested else 'no'}"
        )
    print(f"\n{'GiB':>4} {'batch at 1024':>13} {'offload':>8} {'no T5':>6}  cards")
    for card in PROFILES:
        print(
            f"{card.memory:4} {card.batch_size:13} {card.offload:>8} "
            f"{card.without_t5!s:>6}  {card.cards}"
        )
