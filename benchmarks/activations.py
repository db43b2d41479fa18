"""Memory of a denoising step beside the weights, counted without a card: for memory_plan.py.

    python benchmarks/activations.py                 # each of real_configs.py; about 6 minutes
    python benchmarks/activations.py FLUX.1-dev

Denoisers have their real sizes on torch's device "meta", which computes shapes alone: every tensor
that is alive counts, in 16 bits, for one image of 1024 x 1024 pixels, with guidance where the model
has it. Attention counts as a kernel that keeps no matrix of all pairs. What a card's allocator and
libraries take on top is not seen. A model whose code looks at values cannot be counted.
"""

import sys
import weakref
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.real_configs import REAL_MODELS
from benchmarks.real_sizes import denoiser_of, fitted
from common.command_line import run_script
from common.console import first_line
from generate.image_models.fetch import be_quiet
from generate.image_models.model_recipes import family_of
from generate.pipelines.pipeline import Recipe

SIZE = 1024
GIB = 2**30
TEXT = "a photo of a small bird on a branch, morning light, " * 8


class Captured(Exception):
    """The first call of the denoiser; args: its arguments."""


class Alive(TorchDispatchMode):
    """Bytes of all tensors that are made within and still held, but for those of `module`."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        held = (*module.parameters(), *module.buffers())
        self.seen = {tensor.untyped_storage()._cdata for tensor in held}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return made

    def add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.seen:
            self.seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.gone, key, size)

    def gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def without_matrix(query: Any, key: Any, value: Any, *args: Any, **rest: Any) -> Any:
    """The shape of an attention's result."""
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def step_gib(name: str) -> float:
    tiny, arguments = fitted(name)
    with torch.device("meta"):
        denoiser = getattr(diffusers, REAL_MODELS[name].denoiser)(**arguments)
        vae = REAL_MODELS[name].vae()
    denoiser = denoiser.to(torch.bfloat16).eval()
    pipe = type(tiny)(**(tiny.components | {denoiser_of(tiny): denoiser, "vae": vae}))
    args, kwargs = tree_map(to_meta, first_call(pipe, denoiser, family_of(name)))
    with torch.no_grad(), Alive(denoiser) as alive:
        denoiser(*args, **kwargs)
    return alive.peak / GIB


def first_call(pipe: Any, denoiser: torch.nn.Module, row: Any) -> Any:
    """(positional, by name): what the pipeline gives its denoiser at the real size."""

    def capture(module: Any, args: Any, kwargs: Any) -> None:
        raise Captured(args, kwargs)

    type(pipe)._execution_device = torch.device("cpu")
    pipe.set_progress_bar_config(disable=True)
    hook = denoiser.register_forward_pre_hook(capture, with_kwargs=True)
    recipe = Recipe(row, SIZE, SIZE, row.steps, row.guidance, row.negative_prompt)
    given = recipe.arguments(pipe.__call__)
    if recipe.negative_prompt is not None:
        given["negative_prompt"] = [recipe.negative_prompt]
    try:
        pipe(prompt=[TEXT], output_type="latent", **given)
    except Captured as captured:
        return captured.args
    finally:
        hook.remove()
    raise AssertionError(f"{row.name}: the pipeline has not called its denoiser")


def to_meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to("meta", torch.bfloat16 if value.is_floating_point() else value.dtype)


def main() -> int:
    be_quiet()
    torch.nn.functional.scaled_dot_product_attention = without_matrix
    print("| model | a step, GiB |\n|---|---|")
    for name in sys.argv[1:] or REAL_MODELS:
        try:
            counted = f"{step_gib(name):.2f}"
        except NotImplementedError as error:  # of device meta, which has no values
            counted = f"cannot be counted: {first_line(error):.80}"
        print(f"| {name} | {counted} |", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
