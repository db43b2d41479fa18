"""The plan that a local run shows first: model, images, LLMs, disk, and what is missing.

print("\n".join(plan(args, definition, items, output_root)))
"""

import shlex
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.console import INDENT, this_python
from generate.client.worker import gpus
from generate.dataset.mapped_prompts import without_variations
from generate.dataset.prompts_file import Item
from generate.launch.estimate import estimate
from generate.launch.status import fetch
from generate.launch.tiny_prompts import lines_of
from generate.llms.backend import BackendConfig
from generate.llms.backends_file import BackendsFile
from generate.protocol.output_root import dataset_folder

REACH_S = 1.0  # to open a connection to an LLM server
ASKED = "can be asked"
SHOWN = 4  # backends of one sort that are named


def plan(
    args: Namespace, definition: dict[str, Any], items: Sequence[Item], root: Path
) -> list[str]:
    """The plan, as lines. Nothing is asked and nothing is written."""
    folder = dataset_folder(root, definition["name"])
    lines = [f"plan       {args.model}, {asked_of(definition)}, into {folder}"]
    lines += estimate(args, definition, items, root, fetch(root))
    if not gpus() and args.model != "tiny" and not args.pipeline:
        lines.append(
            f"{INDENT}no GPU was found: such a model takes minutes an image on a CPU; to try "
            f"things out: {again('--model tiny')}"
        )
    if args.model == "tiny":
        lines += lines_of(items)
    texts = definition["images_per_prompt"] // (definition.get("images_per_text") or 1)
    if texts > 1 and without_variations(items):
        lines += llm_lines(args)
    return lines


def asked_of(definition: dict[str, Any]) -> str:
    """What is asked of each image: "1024x1024 pixels, 4 steps, guidance 1"."""
    size = definition.get("sizes") or f"{definition['width']}x{definition['height']}"
    steps, guidance = definition["num_inference_steps"], definition["guidance_scale"]
    said = f"{size} pixels"
    said += "" if steps is None else f", {steps} steps"
    return said + ("" if guidance is None else f", guidance {guidance:g}")


def llm_lines(args: Namespace) -> list[str]:
    """Which LLMs can be asked; where there is none, the commands that help."""
    if args.llm == "embedded":
        many = (
            f"; each of {args.num_workers} clients starts its own" if args.num_workers > 1 else ""
        )
        tiny = "; the tiny model draws none of them, but with --config examples/shapes.yaml"
        return [
            f"LLMs       the embedded one (a small model: its texts are plain){many}"
            f"{tiny * (args.model == 'tiny')}"
        ]
    found = _by_state(args)
    lines: list[str] = []
    for state, names in found.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        head = INDENT if lines else "LLMs       "
        lines.append(f"{head}{state}: {', '.join(names[:SHOWN])}{more}")
    if ASKED in found:
        return lines
    return [
        *lines,
        f"{INDENT}no LLM can be asked now: clients wait for one. One of these helps:",
        f"{INDENT}  ollama serve & ollama pull llama3.1       a server of your own: ollama.com",
        f"{INDENT}  export GROQ_API_KEY=…                     a key of one of those above",
        f"{INDENT}  {again('--llm embedded')}",
        f"{INDENT}  {again('--augment_prompts=False')}",
    ]


def can_ask(args: Namespace) -> bool:
    """Whether any LLM can be asked just now."""
    return args.llm == "embedded" or ASKED in _by_state(args)


def _by_state(args: Namespace) -> dict[str, list[str]]:
    """{state in words: names of backends}."""
    found: dict[str, list[str]] = {}
    for config in BackendsFile(args.llm_backends, args.ollama_hosts).configs(start=False):
        found.setdefault(state_of(config, args.llm_budget_usd), []).append(config.name)
    return found


def state_of(config: BackendConfig, budget_usd: float) -> str:
    """In a few words, whether a backend can be asked. Servers are only connected to."""
    if config.provider == "embedded":
        return ASKED
    if config.paid and budget_usd <= 0:
        return "off, as --llm_budget_usd is 0"
    if config.key_env and not config.key():
        return f"no key ({config.key_env})"
    if not config.base_url:
        return ASKED
    url = urlsplit(config.base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), REACH_S).close()
    except OSError:
        return "does not answer"
    return ASKED


def again(option: str) -> str:
    """This command once more with another option."""
    name = option.replace("=", " ").split()[0]
    words = []
    left = list(sys.argv[1:])
    while left:
        word = left.pop(0)
        if word == name and left:
            left.pop(0)
        elif not word.startswith(f"{name}="):
            words.append(shlex.quote(word))
    return " ".join([this_python(), shlex.quote(sys.argv[0]), *words, option])
