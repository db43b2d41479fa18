"""Check that the clients of one machine fit in memory when each starts an LLM of its own.

check_embedded(args, definition)        # before they start
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from common.command_line import UserError
from generate.llms.backends_file import BackendsFile

# GiB: a client with the tiny model 0.6, its embedded LLM 0.4 after its first texts (resident).
CLIENT_GIB = 1.0
MEMORY = Path("/proc/meminfo")


def free_gib() -> float | None:
    """Memory that processes may take; None where the system does not say."""
    try:
        words = MEMORY.read_text().split()
        return int(words[words.index("MemAvailable:") + 1]) / 2**20
    except (OSError, ValueError, IndexError):
        return None


def check_embedded(args: Namespace, definition: dict[str, Any]) -> None:
    """UserError if so many clients with embedded LLMs need more memory than is free."""
    free = free_gib()
    needed = args.num_workers * CLIENT_GIB
    if args.num_workers == 1 or free is None or needed <= free or not _embedded(args, definition):
        return
    raise UserError(
        f"--num_workers {args.num_workers}: each client starts an embedded LLM of its own; that "
        f"takes {needed:.0f} GiB of memory, and {free:.1f} are free. Give --num_workers "
        f"{max(1, int(free / CLIENT_GIB))}, or one LLM server for all of them (docs/llms.md)"
    )


def _embedded(args: Namespace, definition: dict[str, Any]) -> bool:
    if not definition["augment_prompts"]:
        return False
    if args.llm == "embedded":
        return True
    configs = BackendsFile(args.llm_backends, args.ollama_hosts).configs(start=False)
    return any(config.provider == "embedded" for config in configs)
