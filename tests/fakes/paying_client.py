"""A client that asks a paid LLM and reports over a pipe, for tests that kill it in between.

context = multiprocessing.get_context("forkserver")
context.Process(target=paying_client.run, args=(backends_file, connection, seed, 60.0))
"""

import logging
from multiprocessing.connection import Connection

import langchain_openai  # noqa: F401  the fork server imports it once instead of fifty clients each

from generate.llms.backends_file import BackendsFile
from generate.llms.prompter import Prompter, PrompterSettings


def run(backends_file: str, connection: Connection, seed: int, budget_usd: float) -> None:
    """Ask for 40 prompts; after each report take what the test grants."""
    logging.disable()
    prompter = Prompter(BackendsFile(backends_file), PrompterSettings(budget_usd, seed))
    connection.send(("limits", prompter.limits()))
    prompter.set_share(connection.recv())
    futures = [prompter.submit(f"a corgi number {k} of client {seed}", 3) for k in range(40)]
    while not all(future.done() for future in futures):
        connection.send(("use", prompter.use()))
        prompter.set_share(connection.recv())
