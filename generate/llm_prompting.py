# PYTHON_ARGCOMPLETE_OK
"""Variations of prompts by many unreliable LLMs: for a whole file, or for one prompt.

    python generate/llm_prompting.py prompts/HPDv2.json --num_variations 199 --output augmented.json
    python generate/llm_prompting.py --prompt "a corgi in a top hat" -n 10
    python generate/llm_prompting.py --prompt "a corgi in a top hat" -n 10 --llm embedded
    python generate/llm_prompting.py augmented.json --report    # how diverse, how faithful
    python generate/llm_prompting.py --check        # who answers, and what to do about the others

Stopped half-way, the first command goes on where it was when called again. The output is a prompts
file whose items carry "variations"; generate_images.py uses them without asking any LLM. The
embedded LLM is a small model that needs nothing. Backends: generate/llm_backends.example.yaml.
"""

import os
import sys

# The checkout: modules are imported by their full names.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import Options, run_script
from common.number_options import LARGEST_SEED, whole
from generate.llms.options import add_llm_options
from generate.protocol.fields import MOST_IMAGES


def main() -> int:
    """The exit status."""
    parser = Options(__doc__)
    parser.add_argument(
        "prompts_file",
        nargs="?",
        help="prompts file: .json, .txt, .jsonl or .parquet; as given, else in prompts/",
    )
    parser.add_argument(
        "--num_variations",
        type=whole(1, MOST_IMAGES),
        default=9,
        help="variations of each prompt of the file (default: 9)",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="JSON to write: the prompts with their variations"
    )
    parser.add_argument("--prompt", help="print variations of this one prompt")
    parser.add_argument(
        "-n", type=whole(1, MOST_IMAGES), default=10, help="variations of --prompt (default: 10)"
    )
    parser.add_argument(
        "--seed",
        type=whole(-LARGEST_SEED, LARGEST_SEED),
        default=0,
        help="another one: other variations",
    )
    parser.flag("--check", "try every backend and print a table of what is wrong with each")
    parser.flag("--report", "a table and a plot of the file's variations; no LLM is asked")
    add_llm_options(parser)
    args = parser.parse_args()
    if sum([args.check, args.prompt is not None, args.prompts_file is not None]) != 1:
        parser.error("name a prompts file, or --prompt TEXT, or --check")
    if args.report and not args.prompts_file:
        parser.error("--report needs a prompts file with variations, or a data set's folder")
    if args.prompts_file and not args.output and not args.report:
        parser.error("--output FILE is needed: where the prompts with their variations go")
    if args.prompt is not None and not args.prompt.strip():
        parser.error("--prompt is blank")
    # Deferred, so that --help is quick.
    from generate.llms import commands, report, whole_file

    if args.report:
        return report.report(args)
    if args.check:
        return commands.check(args)
    if args.prompt is not None:
        return commands.one_prompt(args)
    return whole_file.whole_file(args)


if __name__ == "__main__":
    run_script(main)
