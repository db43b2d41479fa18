"""--speed: named presets that make generating faster. Every JSON says what was used.

apply(args)      # --speed fast: as --compile --attention _native_cudnn

What is worth doing, by published figures for one GPU: compiling 1.5 times the speed of eager; an
attention backend 4 to 11 %; fp8 1.6 times. Not here, since they gain nothing or change images by
their neighbours: CUDA graphs (nothing at batches of 4 and more), keeping the embeddings of prompts
(text encoders take at most 1 % of the time, and no text comes twice), step caches that decide by a
batch's mean.
"""

from argparse import Namespace
from collections.abc import Mapping

from common.command_line import UserError

EXACT = "exact"
FAST = {"compile": True, "attention": "_native_cudnn"}  # rounding only
FP8 = '{"quant_type": "Float8DynamicActivationFloat8WeightConfig"}'
PRESETS: Mapping[str, Mapping[str, object]] = {
    EXACT: {},
    "fast": FAST,
    "faster": FAST | {"quantize": "torchao", "quantize_args": FP8},  # other images
}


def apply(args: Namespace) -> None:
    """Set the options that the preset stands for. UserError where one of them says otherwise."""
    for name, value in PRESETS[args.speed].items():
        given = getattr(args, name)
        if given not in (None, False, value):
            raise UserError(
                f"--speed {args.speed} means --{name} {value}, and --{name} {given} is given: "
                "leave one of them out"
            )
        setattr(args, name, value)
