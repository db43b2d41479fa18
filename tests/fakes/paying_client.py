"""A client that asks a paid LLM and beats over a pipe, for tests that kill it between a call and its report.

multiprocessing.get_context("forkserver").Process(target=paying_client.run, args=(backends_file, connection, seed))
"""

import langchain_openai  # noqa: F401  the fork server imports it once instead of fifty clients each

from generate.llms.prompter import Prompter


def run(backends_file, connection, seed, budget_usd):
    prompter = Prompter(backends_file, budget_usd=budget_usd, seed=seed, log=lambda line: None)
    connection.send(("limits", prompter.limits()))
    prompter.set_share(connection.recv())
    futures = [prompter.submit(f"a corgi number {k} of client {seed}", 3) for k in range(40)]
    while not all(future.done() for future in futures):
        connection.send(("use", prompter.use()))
        prompter.set_share(connection.recv())
