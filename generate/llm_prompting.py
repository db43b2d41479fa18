"""Variations of prompts by many unreliable LLMs: beforehand for a whole file, for one prompt by hand, or a check of all backends.

    python generate/llm_prompting.py prompts/HPDv2.json --num_variations 199 --output prompts/HPDv2.augmented.json
    python generate/llm_prompting.py --prompt "a corgi in a top hat" -n 10
    python generate/llm_prompting.py --check
    python generate/llm_prompting.py --prompt "a corgi in a top hat" -n 10 --llm embedded      # a small model that needs nothing

Stopped half-way, the first command goes on where it was when called again. The output is a prompts file whose items carry
"variations"; generate_images.py draws it without asking any LLM. Backends: generate/llm_backends.example.yaml.
"""

import argparse
import sys

from llm_prompter import AllOff, Prompter, Variations  # noqa: F401  what generate_images.py imports from here
from options import Options


def number_to(most):
    """For argparse: a number from 0 to `most`. Not nan, which no comparison finds too large: as a cap it would be none."""

    def number(word):
        if not 0 <= float(word) <= most:
            raise argparse.ArgumentTypeError(f"{word} is not a number from 0 to {most:,}")
        return float(word)

    return number


def add_llm_options(parser):
    """The options that generate_images.py has too."""
    parser.add_argument(
        "--llm_backends", metavar="FILE", help="backends (default: llm_backends.yaml beside this script, else llm_backends.example.yaml)"
    )
    parser.add_argument(
        "--llm", choices=["embedded"], help="embedded: a small model in this process's care; needs no server, key or network"
    )
    parser.add_argument(
        "--llm_budget_usd", type=number_to(10**9), default=0.0, help="hard cap for paid backends, which are off at 0 (default: 0)"
    )
    parser.add_argument("--ollama_hosts", metavar="HOSTS", help="node1:11434-11438,node2; for every Ollama entry of the backends file")
    parser.add_argument(
        "--llm_instruction", metavar="FILE", help="your own instruction with {n} and {prompt} (default: llm_instruction.txt)"
    )
    parser.add_argument(
        "--min_overlap", type=number_to(1), default=0.0, help="least share of the prompt's words that a variation must keep (default: 0)"
    )


def prompter_of(args, accounts=None, seed=0, log=print):
    """A Prompter as the options of add_llm_options() say."""
    return Prompter(
        args.llm or args.llm_backends, args.llm_budget_usd, seed, args.llm_instruction, args.ollama_hosts, args.min_overlap, accounts, log
    )


def main():
    parser = Options(__doc__)
    parser.add_argument("prompts_file", nargs="?", help="prompts JSON or .txt, looked for as given, then in prompts/")
    parser.add_argument("--num_variations", type=int, default=9, help="per prompt of the file (default: 9)")
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
    import llm_by_hand

    if args.check:
        return llm_by_hand.check(args)
    if args.prompt is not None:
        return llm_by_hand.one_prompt(args)
    return llm_by_hand.whole_file(args)


if __name__ == "__main__":
    sys.exit(main())
