"""What an image generator is asked for, and the pipeline that it calls.

A pipeline is either one of diffusers (diffusers_pipeline.py, which imports torch) or a class of the
user's own, `--pipeline FILE.py:CLASS`, called like a diffusers pipeline; that needs no torch.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.command_line import UserError
from generate.image_models.model_family import Family
from generate.image_models.model_recipes import (
    CPU,
    Profile,
    batch_size_for,
    family_of,
    profile_of,
)
from generate.image_models.own_class import family_of_class
from generate.pipelines.faults import DEVICE, MEMORY, UNCLEAR

# The caption is what is generated: nothing rewrites it, and nothing cleans it where a package
# happens to be installed.
AS_WRITTEN: dict[str, Any] = {
    "clean_caption": False,
    "complex_human_instruction": None,  # SANA
    "use_pe": False,  # ERNIE-Image
    "enable_prompt_rewrite": False,  # LongCat
    "caption_upsample_temperature": None,  # FLUX.2
}


class DeviceBroken(Exception):
    """The device raised an error (CUDA error, device test failed): this process is of no use."""

    fault = DEVICE


class DoesNotFit(DeviceBroken):
    """Not even one image fits on the device."""

    fault = MEMORY


class CannotGenerate(Exception):
    """The pipeline raised an error for this text, and only for this text. fault: see faults.py."""

    def __init__(self, text: str, fault: str = UNCLEAR) -> None:
        super().__init__(text)
        self.fault = fault


def family_for(model: str, pipeline: str | None) -> Family:
    """The row of what generates: of a class of the user's own, or of a model."""
    return family_of_class(pipeline, model) if pipeline else family_of(model)


@dataclass(frozen=True)
class GeneratorSettings:
    """What None stands for comes from the model's row and the GPU's profile (model_recipes.py)."""

    model: str
    height: int | None = None  # pixels
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None  # None: the row's
    batch_size: int | None = None
    dtype: str | None = None  # "float32", "float16", "bfloat16"
    revision: str | None = None  # of a hub model
    compile: bool = False
    offload: str | None = None  # "none", "model"
    attention: str | None = None  # a backend of diffusers for the denoiser's attention
    quantize: str | None = None  # a backend of diffusers
    quantize_args: Mapping[str, Any] = field(default_factory=dict)
    lora: str | None = None  # adapters: see lora.py
    without_t5: bool | None = None  # None: as the card's memory has it
    pipeline: str | None = None  # "FILE.py:CLASS" instead of diffusers
    beside: Path | None = None  # the job server's folder: halved batch sizes, compiled code

    def resolved(self) -> "Recipe":
        """What is asked of each image, with the family's numbers where none are given."""
        family = family_for(self.model, self.pipeline)
        return Recipe(
            family,
            self.height or family.size,
            self.width or family.size,
            family.steps if self.steps is None else self.steps,
            family.guidance if self.guidance is None else self.guidance,
            family.negative_prompt if self.negative_prompt is None else self.negative_prompt,
        )


@dataclass(frozen=True)
class Recipe:
    """What is asked of an image. Those of a batch are alike but for their negative prompts."""

    family: Family = field(compare=False)
    height: int
    width: int
    steps: int | None
    guidance: float | None
    negative_prompt: str | None

    @property
    def alike(self) -> tuple[int, int, int | None, float | None]:
        """What the images of one batch have in common."""
        return self.height, self.width, self.steps, self.guidance

    def arguments(self, call: Callable[..., Any]) -> dict[str, Any]:
        """The arguments of each call of a pipeline, less what its class does not know."""
        wanted = {
            "height": self.height,
            "width": self.width,
            "num_inference_steps": self.steps,
            self.family.guidance_argument: self.guidance,
            "max_sequence_length": self.family.max_sequence_length,
        } | self.family.call
        if self.family.guidance_argument == "guider":
            del wanted["guider"]
        known = inspect.signature(call).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
        arguments = {
            name: value
            for name, value in wanted.items()
            if value is not None and (anything or name in known)
        }
        arguments |= {name: value for name, value in AS_WRITTEN.items() if name in known}
        if "intermediate_timesteps" in known and self.steps != 2:
            arguments["intermediate_timesteps"] = None  # SANA-Sprint's is for two steps alone
        return arguments


@dataclass
class Pipeline:
    """A loaded pipeline, on its device."""

    pipe: Any  # called like a diffusers pipeline
    make_generator: Callable[[int], Any]  # from a seed
    batch_size: int
    dtype: str
    versions: str  # of the libraries, for each image's JSON
    gpu_name: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # further fields of a JSON: provenance.py

    def check_device(self) -> None:
        """DeviceBroken if the device computes wrongly."""

    def fall_back(self, fault: str, words: str) -> str | None:
        """Give up what only makes it faster and failed; what that was, or None: nothing is left."""
        return None

    def shares_its_device(self) -> bool:
        """Whether another process has memory of the device just now."""
        return False

    def compiled_graphs(self) -> int:
        """How many graphs torch.compile has made in this process; 0: nothing is compiled."""
        return 0

    def sharing_code(
        self, beside: Path | None, key: Sequence[object]
    ) -> AbstractContextManager[None]:
        """Around the first batch: its code comes from the job server's folder, or goes there.

        key: all that the code depends on and the pipeline itself does not know.
        """
        return nullcontext()

    def keep_code(self) -> None:
        """Share, too, what was compiled since."""

    def free_memory(self) -> None:
        """Give what a call that did not fit has left back to the device."""


def load_custom(settings: GeneratorSettings, recipe: Recipe) -> Pipeline:
    """The class of --pipeline FILE.py:CLASS; UserError if there is none."""
    path, _, name = (settings.pipeline or "").rpartition(":")
    try:
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        if spec is None or spec.loader is None:
            raise AttributeError(f"{path!r} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        pipeline_class = getattr(module, name)
    except (OSError, AttributeError) as error:
        raise UserError(
            f"--pipeline {settings.pipeline}: expected FILE.py:CLASS, "
            f"a file and a class in it ({error})"
        ) from None
    pipe = pipeline_class.from_pretrained(settings.model)
    _move_to_gpu(pipe)
    # A class without a `dtype` or `device` of its own is taken to compute in float32 on the CPU.
    precision = str(getattr(pipe, "dtype", None) or settings.dtype or "float32")
    device = str(getattr(pipe, "device", "cpu"))
    return Pipeline(
        pipe=pipe,
        make_generator=getattr(pipeline_class, "make_generator", None) or torch_generator,
        batch_size=settings.batch_size
        or batch_size_for(_profile(device), recipe.height, recipe.width),
        dtype=precision.removeprefix("torch."),
        versions=getattr(pipe, "versions", f"{name} of {Path(path).name}"),
        gpu_name=_gpu_name(device),
    )


def _move_to_gpu(pipe: Any) -> None:
    """A pipeline of torch that was loaded on the CPU goes to the GPU of this client, if it has one.

    One that has no `to`, that lies elsewhere already, or that knows nothing of torch stays.
    """
    torch = sys.modules.get("torch")  # whoever computes with it has loaded it by now
    on_cpu = str(getattr(pipe, "device", "cpu")) == "cpu"
    if torch and on_cpu and callable(getattr(pipe, "to", None)) and torch.cuda.is_available():
        pipe.to("cuda")


def _profile(device: str) -> Profile:
    """The row of batch sizes for a custom pipeline's device."""
    if not device.startswith("cuda"):
        return CPU
    import torch  # loaded already by a class that is on a GPU

    return profile_of(torch.cuda.get_device_properties(device).total_memory / 2**30)


def _gpu_name(device: str) -> str | None:
    """What a custom pipeline's device is called; None for the CPU."""
    if not device.startswith("cuda"):
        return None if device == "cpu" else device
    import torch  # heavy; loaded already by a class that is on a GPU

    return str(torch.cuda.get_device_name(device))


def torch_generator(seed: int) -> Any:
    """A generator on the CPU: it gives the same noise on every card."""
    import torch  # heavy, and not needed by a class with a make_generator of its own

    return torch.Generator("cpu").manual_seed(seed)
