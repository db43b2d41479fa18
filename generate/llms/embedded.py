"""Start the embedded LLM, a small model for demonstration and tests, as a backend.

source = EmbeddedLLM()
source.configs()        # one BackendConfig with a base_url on loopback
source.close()

examples/embedded_llm.py runs as a child process. When this process dies, however it dies, the pipe
to the child's standard input closes and the child ends.
"""

import logging
import subprocess
import sys
import threading

from common.command_line import UserError
from common.console import visible
from common.files import CHECKOUT
from generate.llms.backend import BackendConfig

LOG = logging.getLogger(__name__)
SCRIPT = CHECKOUT / "examples" / "embedded_llm.py"
MODEL = "SmolLM2-135M-Instruct"
# Loading takes 1 s; a node that reads the package over a slow network file system for the first
# time takes longer.
START_S = 120.0


class EmbeddedLLM:
    """The child process and the one backend that it is."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.key = ""  # the child's own, so that nobody else on the node can use it

    def configs(self) -> list[BackendConfig]:
        """Start the child, if it is not there. Raises UserError when it does not come up."""
        if self.process is None:
            self._start()
        return [
            BackendConfig(
                "embedded",
                provider="openai",
                model=MODEL,
                concurrency=2,  # the slots of examples/embedded_llm.py
                timeout_s=600.0,
                max_tokens=900,
                base_url=f"{self.url}/v1",
                temperature=0.9,
                few_shot=True,
                begin_with_prompt=True,
                options={"api_key": self.key, "extra_body": {"dry_multiplier": 0.8}},
            )
        ]

    def changed_at(self) -> None:
        """There is no file that could be changed while a run waits."""

    def close(self) -> None:
        """End the child."""
        if self.process and self.process.stdin:
            self.process.stdin.close()
            self.process.wait()

    def __str__(self) -> str:
        return "the embedded LLM"

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout and self.process.stderr
        too_late = threading.Timer(START_S, self.process.kill)
        too_late.start()
        self.url, _, self.key = self.process.stdout.readline().strip().partition(" ")
        too_late.cancel()
        if not self.url.startswith("http"):
            self.process.kill()
            lines = self.process.stderr.read().strip().splitlines()
            reason = visible(lines[-1], 300) if lines else "no answer"
            raise UserError(f"the embedded LLM did not start: {reason}")
        # A full pipe would stop the child.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        LOG.info("LLMs: the embedded %s serves at %s", MODEL, self.url)
