"""What a run on this machine shows of itself: a bar on a terminal, a line a minute in a log."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from generate.launch.status import Answer, fetch, incomplete

ON_TERMINAL_S = 2
IN_LOG_S = 60
LAST_LOOK_S = 10


def report(text: str) -> None:
    """Print a line. A full disk under the output costs the line, a closed output ends the run."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


class Progress:
    """The progress of one data set, in figures of the job server."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.next_at = time.monotonic() + ON_TERMINAL_S
        self.bar: Any = None

    def show(self, last: bool = False) -> dict[str, Any] | None:
        """Show how far it is, if it is time to; the counts, or None if they are not known."""
        if not last and time.monotonic() < self.next_at:
            return None
        terminal = sys.stdout.isatty()
        self.next_at = time.monotonic() + (ON_TERMINAL_S if terminal else IN_LOG_S)
        answer = self._settled() if last else fetch(self.root)
        counts = answer.dataset(self.name)
        if counts and terminal:
            with contextlib.suppress(OSError):
                self._draw_bar(counts, last)
        if counts and (last or not terminal):
            less = f"; {incomplete(counts)}" if counts["short"] else ""
            report(
                f"{self.name}: {counts['done']:,} of {counts['total']:,} prompts done, "
                f"{counts['images']:,} images{less}"
            )
        return counts

    def _settled(self) -> Answer:
        """The server looks every two seconds: its look after the clients' last reports."""
        first = answer = fetch(self.root)
        end = time.monotonic() + LAST_LOOK_S
        while (
            first.document
            and answer.document
            and answer.document["time"] == first.document["time"]
            and time.monotonic() < end
        ):
            time.sleep(0.2)
            answer = fetch(self.root)
        return answer

    def _draw_bar(self, counts: dict[str, Any], last: bool) -> None:
        from tqdm import tqdm  # not loaded where there is no terminal

        if self.bar is None:
            self.bar = tqdm(total=counts["total"], unit=" prompts", initial=counts["done"])
        self.bar.n = counts["done"]
        self.bar.set_postfix_str(f"{counts['images']:,} images")
        self.bar.refresh()
        if last:
            self.bar.close()  # ends its line: what follows starts a line of its own
