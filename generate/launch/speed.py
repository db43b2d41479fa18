"""--speed: named presets that make generating faster. Every JSON says what was used.

apply(args)      # --speed fast: as --compile --attention _native_cudnn

Published figures for one GPU: compiling gives 1.5 times the speed of eager, an attention backend 4
to 11 % more, fp8 1.6 times. Left out are CUDA graphs (no gain at batches of 4 and more), caching
the embeddings of prompts (text encoders take at most 1 % of the time, and no text comes twice), and
step caches that decide by a batch's mean (an image would depend on its batch).
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
    """Set the options of the preset. UserError if one of them is given with another value."""
    for name, value in PRESETS[args.speed].items():
        given = getattr(args, name)
        if given not in (None, False, value):
            raise UserError(
                f"--speed {args.speed} means --{name} {value}, and --{name} {given} is given: "
                "leave one of them out"
            )
        setattr(args, name, value)
