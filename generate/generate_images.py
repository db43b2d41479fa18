"""Draws a data set: leases prompts from the job server, asks LLMs for variations, draws them, publishes image + JSON, reports.

    python generate/generate_images.py HPDv2.json --expected_samples_per_index=200 --num_workers=2        here; starts a server if none runs
    python generate/generate_images.py HPDv2.json --expected_samples_per_index=200 --num_workers=128 --num_chunks=1000 --use_slurm
    python generate/generate_images.py examples/shapes.json --model tiny --llm embedded --expected_samples_per_index=10

Any number of these may run at once and may be killed at any moment: what is published stays, the rest is drawn by whoever comes next.
Other uses: --preview 8 (a contact sheet, without touching the run), --redo 12345_3 (draw again and compare), --status, --cancel, --dry_run.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names

from common.command_line import Options, run_script
from generate.launch.options import add_slurm_options
from generate.llms.options import add_llm_options
from generate.protocol.output_root import default_output_root

MODEL = "stabilityai/stable-diffusion-3-medium-diffusers"


def main():
    args = options()
    from generate.launch.start import start

    return start(args)


def options():
    parser = Options(__doc__)
    parser.add_argument(
        "data_path", help="prompts JSON or .txt, looked for as given, then in prompts/"
    )
    parser.add_argument(
        "--output_root",
        default=default_output_root(),
        help="where logs and data sets lie (default: %(default)s)",
    )
    parser.add_argument(
        "--expected_samples_per_index",
        type=int,
        default=100,
        help="images of a prompt, the original's included (default: 100)",
    )
    parser.flag(
        "--augment_prompts", "ask LLMs for variations; else one image a prompt", default=True
    )
    parser.flag(
        "--extend", "take appended prompts or more images a prompt into a data set that was begun"
    )
    parser.flag("--shuffle", "hand out prompts in a random order")
    parser.add_argument("--shuffle_seed", type=int, default=0, help="of that order (default: 0)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="run seed: each image's seed comes from it, the prompt's index and the variation's (default: 0)",
    )
    parser.add_argument("--model", help=f"hub id, folder, or tiny (default: {MODEL})")
    parser.add_argument("--revision", help="of a hub model")
    parser.add_argument(
        "--resolution",
        type=int,
        help="pixels, height and width (default: the model family's, see model_families.py)",
    )
    parser.add_argument("--num_inference_steps", type=int, help="default: the model family's")
    parser.add_argument("--guidance_scale", type=float, help="default: the model family's")
    parser.add_argument(
        "--batch_size",
        type=int,
        help="images a batch (default: by GPU, see model_families.py; halved if it does not fit)",
    )
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], help="default: by family and GPU"
    )
    parser.flag(
        "--compile",
        "torch.compile transformer and VAE decoder (max-autotune); minutes once for all jobs of a user",
    )
    parser.add_argument(
        "--offload",
        choices=["none", "model", "sequential", "group"],
        help="keep parts of the model in CPU memory (default: by GPU)",
    )
    parser.add_argument(
        "--quantize",
        metavar="BACKEND",
        help="of diffusers: bitsandbytes_4bit, bitsandbytes_8bit, torchao, quanto, …",
    )
    parser.add_argument(
        "--quantize_args",
        metavar="JSON",
        help="its arguments, and components_to_quantize (default: the transformer)",
    )
    parser.add_argument(
        "--pipeline",
        metavar="FILE.py:CLASS",
        help="a class of your own, called like a diffusers pipeline",
    )
    parser.add_argument("--jpeg_quality", type=int, default=95, help="default: 95")
    parser.add_argument(
        "--chunk_size",
        type=int,
        help="prompts a lease (default: max(1, min(total // num_workers, max_chunk_size)))",
    )
    parser.add_argument("--max_chunk_size", type=int, default=512, help="default: 512")
    parser.add_argument(
        "--max_leases",
        type=int,
        help="leave after so many leases; 1 is what the published script does (default: no limit)",
    )
    parser.add_argument(
        "--max_idle",
        type=float,
        metavar="S",
        help="leave after so many seconds without anything to draw (default: wait for ever)",
    )
    parser.add_argument(
        "--server_timeout",
        type=float,
        default=6,
        metavar="HOURS",
        help="how long to wait for a server that is away (default: 6)",
    )
    parser.add_argument(
        "--preview",
        type=int,
        metavar="N",
        help="draw the first N prompts into a contact sheet, without touching the run",
    )
    parser.add_argument(
        "--redo",
        metavar="INDEX[_AUG]",
        help="draw again from the stored JSON and compare; replaces nothing",
    )
    for ignored in ("--invalidate_cache", "--slurm_task_index", "--slurm_task_datetme"):
        parser.add_argument(ignored, nargs="?", help="accepted and ignored")
    add_llm_options(parser)
    add_slurm_options(parser)
    args = parser.parse_args()
    args.model = args.model or (args.pipeline.rpartition(":")[2] if args.pipeline else MODEL)
    least = {
        "expected_samples_per_index": 1,
        "num_workers": 1,
        "chunk_size": 1,
        "max_chunk_size": 1,
        "batch_size": 1,
        "resolution": 16,
        "max_leases": 1,
        "seed": 0,
        "shuffle_seed": 0,
        "num_inference_steps": 1,
        "preview": 1,
    }
    for name, value in least.items():
        if getattr(args, name) is not None and getattr(args, name) < value:
            parser.error(f"--{name} is at least {value}")
    if not 1 <= args.jpeg_quality <= 100:
        parser.error("--jpeg_quality is a number from 1 to 100")
    if args.resolution and args.resolution % 8:
        parser.error("--resolution is a multiple of 8")
    return args


if __name__ == "__main__":
    run_script(main)
