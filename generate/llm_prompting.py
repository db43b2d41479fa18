"""Variations of prompts by many unreliable LLMs: beforehand for a whole file, for one prompt by hand, or a check of all backends.

    python generate/llm_prompting.py prompts/HPDv2.json --num_variations 199 --output prompts/HPDv2.augmented.json
    python generate/llm_prompting.py --prompt "a corgi in a top hat" -n 10
    python generate/llm_prompting.py --check
    python generate/llm_prompting.py --prompt "a corgi in a top hat" -n 10 --llm embedded      # a small model that needs nothing

Stopped half-way, the first command goes on where it was when called again. The output is a prompts file whose items carry
"variations"; generate_images.py draws it without asking any LLM. Backends: generate/llm_backends.example.yaml.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names

from common.command_line import Options, run_script
from generate.llms.options import add_llm_options


def main():
    parser = Options(__doc__)
    parser.add_argument(
        "prompts_file",
        nargs="?",
        help="prompts JSON or .txt, looked for as given, then in prompts/",
    )
    parser.add_argument(
        "--num_variations", type=int, default=9, help="per prompt of the file (default: 9)"
    )
    parser.add_argument("--output", metavar="FILE", help="prompts JSON to write")
    parser.add_argument("--prompt", help="one prompt, by hand")
    parser.add_argument("-n", type=int, default=10, help="variations of --prompt (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.flag("--check", "try every backend and print a table of what is wrong with each")
    add_llm_options(parser)
    args = parser.parse_args()
    if sum([args.check, args.prompt is not None, args.prompts_file is not None]) != 1:
        parser.error("name a prompts file, or --prompt TEXT, or --check")
    if args.prompts_file and not args.output:
        parser.error("--output FILE is needed: where the prompts with their variations go")
    for name, value in (("-n", args.n), ("--num_variations", args.num_variations)):
        if value < 1:
            parser.error(f"{name} must be at least 1")
    if args.prompt is not None and not args.prompt.strip():
        parser.error("--prompt is blank")
    from generate.llms import commands

    if args.check:
        return commands.check(args)
    if args.prompt is not None:
        return commands.one_prompt(args)
    return commands.whole_file(args)


if __name__ == "__main__":
    run_script(main)
