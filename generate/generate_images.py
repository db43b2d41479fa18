# PYTHON_ARGCOMPLETE_OK
"""Generates a data set: leases prompts, asks LLMs for variations, publishes image after image.

    python generate/generate_images.py examples/shapes.json --model tiny --llm embedded
    python generate/generate_images.py HPDv2.json --expected_samples_per_index=200 --num_workers=2
    python generate/generate_images.py HPDv2.json --num_workers=128 --num_chunks=1000 --use_slurm
    python generate/generate_images.py run.yaml     # all options in a file, see run.example.yaml

Without --use_slurm it generates on this machine, and starts a job server if none runs. Any number
of these may run at once and may be killed at any moment: what is published stays, and the next one
generates the rest.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

import argparse

from common.command_line import Options, run_script
from common.number_options import (
    LARGEST_SEED,
    MOST_PARTS,
    YEAR_S,
    number,
    whole,
)
from generate.dataset.layout import JPEG_QUALITY
from generate.launch.options import add_look_options, add_score_options, add_slurm_options
from generate.launch.run_file import config_of, words_of
from generate.launch.speed import EXACT, PRESETS, apply
from generate.llms.options import add_llm_options
from generate.protocol.fields import MOST_CHUNK, MOST_IMAGES
from generate.protocol.output_root import default_output_root

MOST_PIXELS = 65_536  # of a side; a JPEG has no more
MOST_STEPS = 100_000
MODEL = "stabilityai/stable-diffusion-3-medium-diffusers"


def main() -> int:
    args = options()
    from generate.launch.start import start

    return start(args)


def options() -> argparse.Namespace:
    """The options of the command line and of --config; sys.argv then holds all of them.

    Clients here and tasks of an array start with the words of sys.argv: what the file says later
    does not change a run.
    """
    parser = the_parser()
    config, words = config_of(parser.plain_words(sys.argv[1:]))
    if config == "":
        parser.error("argument --config: it is empty; leave the option out")
    from_file, prompts = words_of(config, parser) if config else ([], None)
    args: argparse.Namespace = parser.parse_args([*from_file, *words])
    if args.data_path is None:
        args.data_path = prompts or parser.error(
            "which prompts? Name a file: .json, .txt, .jsonl or .parquet"
        )
        words = [args.data_path, *words]
    sys.argv[1:] = [*from_file, *words]
    args.model = args.model or (args.pipeline.rpartition(":")[2] if args.pipeline else MODEL)
    if args.resolution and args.resolution % 8:
        parser.error("--resolution is a multiple of 8")
    parser.at_most_one(args, "status", "cancel", "redo", "preview", "tail_log")
    parser.at_most_one(args, "cancel", "dry_run")
    apply(args)
    return args


def the_parser() -> Options:
    """All options in groups, the most used first."""
    parser = Options(__doc__)
    prompts = parser.add_argument(
        "data_path",
        help="prompts file: .json, .txt, .jsonl or .parquet; as given, else in prompts/. "
        "A .yaml: see --config",
    )
    prompts.required = False  # --config may name it
    most_used = parser.add_argument_group("most used")
    add_most_used(most_used)
    add_run_options(parser)
    add_score_options(parser)
    add_llm_options(parser.add_argument_group("LLMs"))
    add_model_options(parser)
    add_slurm_options(parser, most_used)
    add_look_options(parser, most_used)
    add_rare_options(parser)
    return parser


def add_most_used(most_used: argparse._ArgumentGroup) -> None:
    most_used.add_argument(
        "--expected_samples_per_index",
        metavar="N",
        type=whole(1, MOST_IMAGES),
        default=100,
        help="images of a prompt, the original's included (default: %(default)s)",
    )
    most_used.add_argument(
        "--model",
        help="image model: a hub id, a folder, or tiny, a small one that is in this checkout "
        f"(default: {MODEL})",
    )
    most_used.add_argument(
        "--resolution",
        metavar="PIXELS",
        type=whole(16, MOST_PIXELS),
        help="pixels, height and width (default: the model family's, see docs/models.md)",
    )
    most_used.add_argument(
        "--output_root",
        metavar="FOLDER",
        default=default_output_root(),
        help="where logs and data sets lie (default: %(default)s)",
    )
    most_used.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="a file with the options of this run; the command line overrides it. As the first "
        "word it needs no --config",
    )


def add_run_options(parser: Options) -> None:
    run = parser.add_argument_group("what to generate")
    parser.flag(
        "--augment_prompts",
        "ask LLMs for variations; without it one image for each prompt",
        default=True,
        group=run,
    )
    run.add_argument(
        "--images_per_text",
        metavar="N",
        type=whole(1, MOST_IMAGES),
        default=1,
        help="images of each text, with different seeds; they count as images of the prompt, so "
        "200 images are 50 texts with 4 (default: %(default)s)",
    )
    run.add_argument("--size", metavar="WxH", help="width x height in pixels: 1024x768")
    run.add_argument(
        "--sizes",
        metavar="WxH:SHARE,…",
        help="a mix of sizes with their shares: 1024x1024:0.5,1344x768:0.25,768x1344:0.25",
    )
    parser.may_be_empty.add("--negative_prompt")
    run.add_argument(
        "--negative_prompt", help="what the images must not show (default: the model family's)"
    )
    run.add_argument(
        "--num_inference_steps",
        type=whole(1, MOST_STEPS),
        help="denoising steps (default: the model family's)",
    )
    run.add_argument(
        "--guidance_scale",
        type=number(-1000, 1000),
        help="strength of guidance (default: the model family's)",
    )
    run.add_argument(
        "--seed",
        type=whole(0, LARGEST_SEED),
        default=0,
        help="run seed: each image's seed comes from it, from the prompt's index and from the "
        "variation's (default: %(default)s)",
    )
    parser.flag(
        "--shuffle",
        "hand out prompts in a random order, so that any part of a run is a fair sample "
        "(default: True for a new data set; an older one keeps its order)",
        default=None,
        group=run,
    )
    run.add_argument(
        "--shuffle_seed", type=whole(0, LARGEST_SEED), help="seed of the random order (default: 42)"
    )
    parser.flag(
        "--extend",
        "allow appended prompts, more images for each prompt, or another --accept or --max_tries "
        "for a data set that was begun",
        group=run,
    )


def add_model_options(parser: Options) -> None:
    speed = parser.add_argument_group("model and speed")
    speed.add_argument(
        "--batch_size",
        type=whole(1, MOST_IMAGES),
        help="images in a batch (default: by GPU, see docs/models.md; halved if it does not fit)",
    )
    parser.flag(
        "--compile",
        "torch.compile the repeated blocks and the VAE decoder; if that fails, go on without it",
        group=speed,
    )
    speed.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        help="precision (default: by model family and GPU)",
    )
    speed.add_argument(
        "--offload",
        choices=["none", "model"],
        help="model: keep parts of the model in CPU memory (default: by GPU)",
    )
    speed.add_argument(
        "--speed",
        choices=list(PRESETS),
        default=EXACT,
        help="fast: --compile and cuDNN's attention, the same images but for rounding; faster: "
        "also fp8 (torchao, Ada cards and newer), other images (default: %(default)s)",
    )
    speed.add_argument(
        "--attention",
        metavar="BACKEND",
        help="attention backend of diffusers: _native_cudnn, flash, sage, … (default: torch's)",
    )
    speed.add_argument(
        "--quantize",
        metavar="BACKEND",
        help="quantization backend of diffusers: bitsandbytes_4bit, bitsandbytes_8bit, torchao, …",
    )
    speed.add_argument(
        "--quantize_args",
        metavar="JSON",
        help="arguments of the --quantize backend, and components_to_quantize "
        "(default: the transformer)",
    )
    speed.add_argument("--revision", help="commit, tag or branch of the model on the hub")
    speed.add_argument(
        "--lora",
        metavar="ID[:WEIGHT]",
        help="adapters (LoRA), separated by commas: each a hub id, a folder or a file",
    )
    parser.flag(
        "--t5", "SD3 with T5; --no-t5: 9 GiB less, but long texts are followed less", True, speed
    )
    speed.add_argument(
        "--truncated",
        choices=["keep", "skip", "fail"],
        default="keep",
        help="texts longer than the model reads: generate them anyway, leave them out, or stop at "
        "the first one (default: %(default)s)",
    )
    parser.flag(
        "--allow_mixed",
        "also generate on cards that differ from the data set's definition",
        group=speed,
    )
    speed.add_argument(
        "--pipeline",
        metavar="FILE.py:CLASS",
        help="a class of your own, called like a diffusers pipeline (docs/models.md)",
    )


def add_rare_options(parser: Options) -> None:
    rare = parser.add_argument_group("rarely needed")
    rare.add_argument(
        "--chunk_size",
        type=whole(1, MOST_CHUNK),
        help="prompts in a lease (default: max(1, min(total // num_workers, max_chunk_size)))",
    )
    rare.add_argument(
        "--max_chunk_size",
        type=whole(1, MOST_CHUNK),
        default=512,
        help="prompts in a lease at most (default: %(default)s)",
    )
    rare.add_argument(
        "--max_leases",
        type=whole(1),
        help="leave after so many leases; 1 is what the published script does (default: no limit)",
    )
    rare.add_argument(
        "--parallel_loads",
        type=whole(1, MOST_PARTS),
        default=8,
        metavar="N",
        help="clients of the run that load their models at the same time (default: %(default)s)",
    )
    rare.add_argument(
        "--max_idle",
        type=number(1, YEAR_S),
        metavar="S",
        help="leave after so many seconds without anything to generate (default: wait for ever)",
    )
    rare.add_argument(
        "--server_timeout",
        type=number(0, YEAR_S / 3600),
        default=6,
        metavar="HOURS",
        help="how long to wait for a server that is away (default: %(default)s)",
    )
    rare.add_argument(
        "--jpeg_quality",
        type=whole(1, 100),
        default=JPEG_QUALITY,
        help="quality of the JPEGs, 1 to 100 (default: %(default)s)",
    )
    parser.flag(
        "--is_slurm_task", "this process is a task of the array (set by its script)", group=rare
    )
    for ignored in ("--invalidate_cache", "--slurm_task_index", "--slurm_task_datetme"):
        rare.add_argument(ignored, nargs="?", help="accepted and ignored")


if __name__ == "__main__":
    run_script(main)
