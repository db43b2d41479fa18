"""llm_prompting.py's --prompt and --check: one prompt interactively, a table of all backends.

status = one_prompt(args)
status = check(args)
"""

import argparse
import asyncio
import logging
import sys
import time
from typing import Any

from common.command_line import FAILED, LEFT_OUT, UserError
from common.console import visible
from generate.llms.asking import EXAMPLE
from generate.llms.backend import Backend
from generate.llms.chat import ChatClient
from generate.llms.failures import NoBackendLeft, classify
from generate.llms.prompter import prompter_of

CHECK_S = 60.0  # the longest wait for a backend's first token
HEADER = ("backend", "tier", "key", "reachable", "model", "first token", "what to do")
HINTS = {
    "refused": "check base_url and the network",
    "timeout": "no answer in time: it hangs, still loads the model, or is overloaded",
    "rate limit": "wait, or lower requests_per_minute",
}


def log_to_stderr() -> None:
    """The LLMs' log lines go to standard error; standard output is for the result."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")


def one_prompt(args: argparse.Namespace) -> int:
    """Print variations of --prompt, with backends, seconds, tokens and cost.

    Exit status 3 when there are fewer than asked for.
    """
    log_to_stderr()
    prompter = prompter_of(args, ":memory:", args.seed)
    try:
        began = time.monotonic()
        answer = prompter.submit(args.prompt, args.n).result()
        seconds = time.monotonic() - began
    except NoBackendLeft as error:
        raise UserError(str(error)) from None
    finally:
        prompter.close()
    for place, item in enumerate(answer.texts, 1):
        print(f"{place:3}. {visible(item['text'])}  [{item['backend']}]")
    print(totals_line(prompter.use(), seconds))
    if not answer.short:
        return 0
    why = visible(answer.short["reason"])
    print(f"     {answer.short['missing']} fewer than asked for: {why}")
    return LEFT_OUT


def totals_line(use: dict[str, Any], seconds: float) -> str:
    """Calls, seconds, tokens and cost of Prompter.use()."""
    calls, asked, answered = (
        sum(backend[key] for backend in use["backends"].values())
        for key in ("calls", "prompt_tokens", "completion_tokens")
    )
    tokens = f"{asked:,} + {answered:,} tokens (asked + answered)"
    return f"     {calls:,} calls, {seconds:.1f} s, {tokens}, {use['usd']:.4f} USD"


def check(args: argparse.Namespace) -> int:
    """Ask every backend for one text and print a table.

    Exit status 0 when at least one would be used, else 1.
    """
    logging.disable(logging.WARNING)  # the table says it all
    prompter = prompter_of(args, ":memory:", args.seed)
    try:
        rows = asyncio.run(_look_at_all(prompter.backends))
    finally:
        prompter.close()
    widths = [max(len(row[k]) for row in [HEADER, *rows]) for k in range(len(HEADER))]
    for row in [HEADER, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(visible("  ".join(cells).rstrip()))
    usable = sum(row[-1] == "" for row in rows)
    print(f"{usable} of {len(rows)} backends can be used")
    return 0 if usable else FAILED


async def _look_at_all(backends: list[Backend]) -> list[tuple[str, ...]]:
    return await asyncio.gather(*(_look_at(backend) for backend in backends))


async def _look_at(backend: Backend) -> tuple[str, ...]:
    """(name, tier, key, reachable, model there, first-token latency, what to do)"""
    config = backend.config
    key = "not needed" if not config.key_env else "present" if config.key() else "missing"
    about = (config.name, str(config.tier + 1), key)
    if key == "missing":
        return *about, "-", "-", "-", f"set {config.key_env}"
    if backend.disabled_kind == "budget":
        return *about, "-", "-", "-", "costs money: name --llm_budget_usd to try and use it"
    question = [("user", f"Write one caption for an image of {EXAMPLE}.")]
    try:
        async with asyncio.timeout(min(config.timeout_s, CHECK_S)):
            seconds = await ChatClient(config).first_token(question)
    except Exception as error:
        failure = classify(error)
        reached = "no" if failure.kind in ("refused", "timeout") else "yes"
        model = "no" if failure.kind == "model" else "-"
        remedy = failure.remedy or config.remedy(failure.kind) or HINTS.get(failure.kind)
        if failure.kind == "refused" and config.provider == "ollama":
            remedy = "start it (ollama serve), or check host and port"
        return *about, reached, model, "-", remedy or f"{failure.kind}: {failure.text}"
    return *about, "yes", "yes", f"{seconds:.2f} s", ""
