"""The demo's steps: one line each on the terminal, with its time; their output goes to a log.

steps = Steps(Path("demo/demo.log"))
with steps.step("prompts: five sources, cleaned and combined"):
    steps.run("combine_prompts/combine.py", …)

VERBOSE=1 shows the commands and their output instead.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common.command_line import UserError
from common.files import CHECKOUT
from examples.demo_table import shown

WIDTH = 62  # of a step's name
LAST_LINES = 15  # of the log, when a command fails


class Steps:
    """Runs the demo's commands. .verbose: everything is shown."""

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.path = log
        log.write_text("")
        self.verbose = bool(os.environ.get("VERBOSE"))
        self.began = time.monotonic()

    @contextlib.contextmanager
    def step(self, name: str, detail: Callable[[], str] = str) -> Iterator[None]:
        """One line with its time; on a terminal it counts while the step runs, with `detail`."""
        began = time.monotonic()
        ended = threading.Event()

        def count() -> None:
            while not ended.wait(1):
                what = f"{name}{detail()}"
                print(f"\r{what:{WIDTH}} {time.monotonic() - began:4.0f} s", end="", flush=True)

        live = sys.stdout.isatty() and not self.verbose
        thread = threading.Thread(target=count, daemon=True)
        if live:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if live:
                thread.join()
                print("\r", end="")
            print(f"{name + detail():{WIDTH}} {time.monotonic() - began:4.0f} s", flush=True)

    def run(self, *command: object) -> None:
        """Run a command of this checkout. UserError with the end of what it said if it fails."""
        self.wait(self.start(*command), command[0])

    def start(self, *command: object) -> subprocess.Popen[str]:
        """Start one; its output is for wait()."""
        self.say(" ".join(["\n$ python", *map(shown, command)]))
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(
        self,
        process: subprocess.Popen[str],
        name: object,
        heard: Callable[[str], None] | None = None,
    ) -> None:
        """Until it has ended; each line goes to the log, and to `heard`."""
        for line in process.stdout or ():
            self.say(line.rstrip("\n"))
            if heard:
                heard(line)
        if process.wait():
            if not self.verbose:
                lines = self.path.read_text(errors="replace").splitlines()
                print("\n", *lines[-LAST_LINES:], sep="\n")
            raise UserError(
                f"{name} ended with exit status {process.returncode}; what it said is above, all "
                f"of it in {shown(self.path)}"
            )

    def say(self, line: str) -> None:
        """To the log; with VERBOSE=1 to the terminal, too."""
        with open(self.path, "a") as log:
            print(line, file=log)
        if self.verbose:
            print(line, flush=True)
