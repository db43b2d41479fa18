"""The LLM options that generate_images.py and llm_prompting.py share.

add_llm_options(parser)         # prompter.prompter_of(args) makes the Prompter they describe
"""

import argparse

from common.number_options import MANY, number


def add_llm_options(parser: argparse._ActionsContainer) -> None:
    """Add --llm_backends, --llm, --llm_budget_usd, --ollama_hosts, --llm_instruction and so on."""
    parser.add_argument(
        "--llm_backends",
        metavar="FILE",
        help="YAML file of the LLMs (default: llm_backends.yaml beside this script, else "
        "llm_backends.example.yaml)",
    )
    parser.add_argument(
        "--llm",
        choices=["embedded"],
        help="embedded: a small model that each client runs itself, without server, key or network",
    )
    parser.add_argument(
        "--llm_budget_usd",
        type=number(0, MANY),
        default=0.0,
        help="USD that paid LLMs may cost at most; at 0 they are not asked (default: 0)",
    )
    parser.add_argument(
        "--ollama_hosts",
        metavar="HOSTS",
        help="where Ollama runs: node1:11434-11438,node2; for every Ollama entry of that file",
    )
    parser.add_argument(
        "--llm_instruction",
        metavar="FILE",
        help="your own instruction with {n}, {prompt} and perhaps {attributes} "
        "(default: llms/instruction.txt)",
    )
    parser.add_argument(
        "--llm_attributes",
        metavar="FILE",
        help="places, styles, lights … that variations differ in (default: llms/attributes.yaml)",
    )
