"""The LLM options that generate_images.py and llm_prompting.py share, and the Prompter they describe."""

import argparse


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
        "--llm_backends",
        metavar="FILE",
        help="backends (default: llm_backends.yaml beside this script, else llm_backends.example.yaml)",
    )
    parser.add_argument(
        "--llm",
        choices=["embedded"],
        help="embedded: a small model in this process's care; needs no server, key or network",
    )
    parser.add_argument(
        "--llm_budget_usd",
        type=number_to(10**9),
        default=0.0,
        help="hard cap for paid backends, which are off at 0 (default: 0)",
    )
    parser.add_argument(
        "--ollama_hosts",
        metavar="HOSTS",
        help="node1:11434-11438,node2; for every Ollama entry of the backends file",
    )
    parser.add_argument(
        "--llm_instruction",
        metavar="FILE",
        help="your own instruction with {n} and {prompt} (default: llm_instruction.txt)",
    )
    parser.add_argument(
        "--min_overlap",
        type=number_to(1),
        default=0.0,
        help="least share of the prompt's words that a variation must keep (default: 0)",
    )


def prompter_of(args, accounts=None, seed=0, log=print):
    """A Prompter as the options of add_llm_options() say."""
    from generate.llms.prompter import Prompter

    return Prompter(
        args.llm or args.llm_backends,
        args.llm_budget_usd,
        seed,
        args.llm_instruction,
        args.ollama_hosts,
        args.min_overlap,
        accounts,
        log,
    )
