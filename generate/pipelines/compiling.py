"""torch.compile by regions: the blocks that a denoiser repeats, and the VAE's decoder.

    what = compile_parts(pipe)        # "24 blocks of SD3Transformer2DModel, VAE decoder"
    undo(pipe)                        # eager again

A block is compiled once for all its repetitions: published by PyTorch, 9.6 s instead of 67 for a
whole transformer, at the same speed. All is compiled in place, so that it can be undone where a
model or a machine cannot; the images are then the same but for rounding. There are no CUDA graphs:
they gain nothing at batches of 4 and more, and break pipelines that hold the results of two calls
of the transformer at once (Qwen-Image, CogView4). A shape that was not seen before is compiled when
it first comes; the second time, for any length.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch._dynamo.utils import counters

# Of a block. With torch's own 8, Qwen-Image in four sizes went on without compiling: there are
# graphs with and without a mask, for one length and for all, of one size and of several.
MOST_GRAPHS = 64


def compile_parts(pipe: Any, backend: str = "inductor") -> str:
    """Compile what takes the time; the words for the log."""
    denoiser = denoiser_of(pipe)
    blocks = blocks_of(denoiser) or [denoiser]
    use_channels_last(denoiser)
    for block in blocks:
        block.compile(backend=backend, fullgraph=True, recompile_limit=MOST_GRAPHS)
    said = f"{len(blocks)} blocks of {type(denoiser).__name__}"
    decoder = getattr(getattr(pipe, "vae", None), "decoder", None)
    # A decoder of 3D convolutions keeps its state in lists (Qwen-Image): it breaks the graph.
    if decoder is not None and use_channels_last(pipe.vae):
        decoder.compile(backend=backend, fullgraph=True)
        said += ", VAE decoder"
    return said


def denoiser_of(pipe: Any) -> Any:
    """The transformer, or the UNet of the older models."""
    denoiser = getattr(pipe, "transformer", None)
    return pipe.unet if denoiser is None else denoiser


def blocks_of(denoiser: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated blocks: those that diffusers names, else those in lists of one class."""
    named = set(getattr(denoiser, "_repeated_blocks", None) or ())
    if named:
        return [each for each in denoiser.modules() if type(each).__name__ in named]
    lists = [each for each in denoiser.children() if isinstance(each, torch.nn.ModuleList)]
    return [
        block
        for each in lists
        if len({type(block) for block in each}) == 1 and len(each) > 1
        for block in each
    ]


def use_channels_last(module: torch.nn.Module) -> bool:
    """Channels last, which convolutions of two dimensions take faster; False: it has others."""
    convolutions = [each for each in module.modules() if isinstance(each, torch.nn.Conv3d)]
    if convolutions:
        return False
    module.to(memory_format=torch.channels_last)
    return True


def undo(pipe: Any) -> None:
    """Nothing of the pipeline is compiled any more."""
    for part in _parts(pipe):
        for module in part.modules():
            module._compiled_call_impl = None


def compiled_modules(pipe: Any) -> int:
    """How many modules are compiled."""
    return sum(
        module._compiled_call_impl is not None for part in _parts(pipe) for module in part.modules()
    )


def graphs() -> int:
    """How many graphs torch has compiled in this process: each shape of each block is one."""
    return int(counters["stats"]["unique_graphs"])


def _parts(pipe: Any) -> Iterable[torch.nn.Module]:
    parts = (getattr(pipe, name, None) for name in ("transformer", "unet", "vae"))
    return [part for part in parts if isinstance(part, torch.nn.Module)]
