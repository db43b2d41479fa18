"""Plan batch size, offloading and VAE slicing from the model's weights and the card's memory.

    plan = plan_for(recipe, settings, Card("H100", 79.1, 78.6, (9, 0)))
    plan.line      # "14.3 GiB of weights on H100 (78.6 of 79.1 GiB free): 16 images a batch, …"

An estimate to begin with: a batch that does not fit all the same is halved, and the half remembered
(image_generator.py). Nothing that changes an image is chosen here: what fits only in another
precision, quantized or without T5 is refused with a line that names those options. None of these
numbers was measured on a card by this project; their sources stand beside them.
"""

from dataclasses import dataclass
from pathlib import Path

from generate.image_models.model_family import T5_GIB
from generate.image_models.model_recipes import batch_size_for, profile_of
from generate.pipelines.faults import MEMORY, PASSING, CannotStart
from generate.pipelines.pipeline import GeneratorSettings, Recipe

GIB = 2**30
MEGAPIXEL = 2**20
# An image of 1024 x 1024 takes, beside the weights, 2.5 to 6.3 GiB in vLLM-Omni's table of ten
# models (its page "text to image"), of which the VAE's decoding is 2.2 to 3.0; while denoising, the
# rest. A batch is planned with these.
DENOISING_GIB = 1.5
DECODING_GIB = 3.0
# What a step takes at least for one such image; counted (benchmarks/activations.py): 0.12 to 1.1. A
# model is refused by this one, since nothing comes after a refusal. Published by Hugging Face:
# FLUX.1 offloaded part by part takes 1.1 GiB beside its transformer, with what does not fit
# together, and CUDA's own.
STEP_GIB = 0.5
CONTEXT_GIB = 0.5  # of CUDA, in each process: not among the free memory of a Card
RESERVE_GIB = 1.0  # CUDA's own, and what does not fit together
# Of all weights, what stays of them in the precision of a quantization; text encoders and VAE are
# not quantized, and the denoiser has half to two thirds of the weights in the table.
QUANTIZED = {"bitsandbytes_4bit": 0.65, "gguf": 0.65}
QUANTIZED_TO_8_BITS = 0.75


@dataclass(frozen=True)
class Card:
    """A GPU. GiB: all of its memory, and what nobody has taken; capability: (major, minor)."""

    name: str
    memory_gib: float
    free_gib: float
    capability: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    batch_size: int
    offload: str = "none"
    vae_slicing: bool = False  # decode image by image
    line: str = ""


def plan_for(
    recipe: Recipe,
    settings: GeneratorSettings,
    card: Card | None,
    without_t5: bool = False,
    counted: tuple[float, float] | None = None,
) -> Plan:
    """The plan. CannotStart, one line: it does not fit at all, or not beside others (PASSING).

    counted: GiB of all weights and of the largest part, by the files or once they are loaded; None:
    those of the table.
    """
    profile = profile_of(card.memory_gib if card else None)
    wanted = settings.batch_size or batch_size_for(profile, recipe.height, recipe.width)
    if recipe.family.one_by_one:
        wanted = 1
    if card is None:
        return Plan(wanted)
    weights = counted[0] if counted else weights_gib(recipe, settings, without_t5)
    whole, largest = counted or (recipe.family.weights_gib, recipe.family.largest_gib)
    if weights is None or whole is None or largest is None:  # a model that is not in the table
        return Plan(wanted, settings.offload or profile.offload)
    area = recipe.height * recipe.width / MEGAPIXEL
    offload = settings.offload or "none"
    if settings.offload is None and weights + _working(area, 1) > card.memory_gib:
        offload = "model"
    # offloaded, a part at a time is on the card
    on_card = weights if offload == "none" else weights * largest / whole
    # where the option asks for it, a model that fits without its steps is tried all the same
    step = 0.0 if settings.offload else RESERVE_GIB + STEP_GIB * area
    _refuse(settings.model, weights, on_card, step, card)
    free = card.free_gib - on_card
    batch = wanted
    while batch > 1 and _working(area, batch) > free and settings.batch_size is None:
        batch -= 1
    slicing = batch > 1 and RESERVE_GIB + batch * DECODING_GIB * area > free
    line = (
        f"{weights:.1f} GiB of weights on {card.name} ({card.free_gib:.1f} of "
        f"{card.memory_gib:.1f} GiB free): {batch} images a batch, offload {offload}"
        + ", the VAE decodes one by one"
        * slicing
    )
    return Plan(batch, offload, slicing, line)


def weights_gib(
    recipe: Recipe, settings: GeneratorSettings, without_t5: bool = False
) -> float | None:
    """GiB of all components as they are loaded; None: unknown."""
    family = recipe.family
    if family.weights_gib is None:
        return None
    weights = family.weights_gib - (T5_GIB if without_t5 and family.without_t5 else 0)
    if settings.dtype == "float32":
        weights *= 2
    if settings.quantize:
        weights *= QUANTIZED.get(settings.quantize, QUANTIZED_TO_8_BITS)
    return weights


def _working(area: float, batch: int) -> float:
    """GiB beside the weights, with a VAE that decodes one by one. area: megapixels."""
    return RESERVE_GIB + max(batch * DENOISING_GIB, DECODING_GIB) * area


def _refuse(model: str, weights: float, on_card: float, step: float, card: Card) -> None:
    """on_card: of the weights, what lies on the card at a time; less than all: offloaded.

    step: what a denoising step needs beside it, with CUDA's own.
    """
    offloaded = on_card < weights
    what = f"{model}: {weights:.1f} GiB of weights"
    where = f"{card.name} ({card.memory_gib:.1f} GiB)"
    if on_card + step > card.memory_gib:
        parts = f", not even part by part: the largest has {on_card:.1f}" * offloaded
        beside = f", and a step needs {step:.1f} beside" * (on_card <= card.memory_gib)
        raise CannotStart(f"{what} do not fit on {where}{parts}{beside}", MEMORY)
    host = host_memory_gib()
    if offloaded and host is not None and weights > host:
        raise CannotStart(
            f"{what} do not fit on {where}, nor, to be offloaded, into the {host:.1f} GiB of "
            "memory that this process may use (--mem)",
            MEMORY,
        )
    if on_card + step - CONTEXT_GIB > card.free_gib:
        used = card.memory_gib - card.free_gib
        raise CannotStart(f"{what} wait for {used:.1f} GiB that others have of {where}", PASSING)


def host_memory_gib(
    mounted: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")
) -> float | None:
    """GiB that this process may use by its control groups (SLURM's --mem); None: no limit known."""
    try:
        path = process.read_text().partition("0::")[2].splitlines()[0].strip("/")
        group = mounted / path
        limits = []
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mounted):
                break
            limit = folder / "memory.max"
            if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
                limits.append(int(text) / GIB)
    except (OSError, IndexError):
        return None
    return min(limits, default=None)
