"""Progress of a local run: a bar on a terminal, lines in a log.

A log gets a line after 2, 6, 14, 30 and 60 s, then each minute. Both say why nothing happens: the
model is being loaded, no LLM answers, the server is away.
"""

import contextlib
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from common.command_line import DONE
from common.console import visible
from generate.launch.status import WORDS, Answer, fetch, incomplete, not_read

ON_TERMINAL_S = 2
IN_LOG_S = 60
LAST_LOOK_S = 10
LONGEST = 100_000  # characters of a line: a command that is to be typed again
BUSY = ("drawing", "idle")
# of a run as a whole: it goes on, or begins
WELL = ("fair", "finished", "idle", "rebuilding")


lost: list[OSError] = []  # of the newest lines, if standard output did not take them


def report(text: str) -> None:
    """Print lines. A closed output ends the run; a full one costs them, see unless_lost()."""
    lines = "\n".join(visible(line, LONGEST) for line in text.split("\n"))
    lost.clear()
    try:
        print(lines, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        lost.append(error)
        with contextlib.suppress(OSError):
            print(lines, file=sys.stderr, flush=True)


def unless_lost(status: int) -> int:
    """The exit status of what has reported. OSError: all is well, and the newest lines are lost."""
    if status == DONE and lost:
        raise lost[0]
    return status


class Progress:
    """The progress of one data set, in figures of the job server."""

    def __init__(self, name: str, root: Path, there: int = 0) -> None:
        """there: images that lie in the folder before anything is generated."""
        self.name = name
        self.root = root
        self.drawn = Drawn(name, there)
        self.pause_s = ON_TERMINAL_S
        self.next_at = time.monotonic() + self.pause_s
        self.bar: Any = None
        self.said: list[str] = []

    def show(self, last: bool = False) -> dict[str, Any] | None:
        """Show how far it is, if it is time to; the counts, or None if they are not known."""
        if not last and time.monotonic() < self.next_at:
            return None
        terminal = sys.stdout.isatty()
        if not terminal:
            self.pause_s = min(2 * self.pause_s, IN_LOG_S)
        self.next_at = time.monotonic() + self.pause_s
        answer = self._settled() if last else fetch(self.root)
        counts = self.drawn.counted(answer)
        if not last:
            self._say_what_is_wrong(answer)
        if counts and terminal:
            with contextlib.suppress(OSError):
                self._draw_bar(counts, "" if last else states(answer), last)
        if counts and (last or not terminal):
            less = f"; {incomplete(counts)}" if counts["short"] else ""
            less += f"; {cut}" if last and (cut := not_read(counts)) else ""
            doing = "" if last or not (now := states(answer)) else f"; {now}"
            report(
                f"{self.name}: {counts['done']:,} of {counts['total']:,} prompts done, "
                f"{counts['images']:,} images{less}{doing}"
            )
        return counts

    def _say_what_is_wrong(self, answer: Answer) -> None:
        """Print a problem once, when it begins: of the run as a whole, or a silent server."""
        lines = troubles(answer)
        if lines and lines != self.said:
            if self.bar:
                self.bar.clear()
            for line in lines:
                report(line)
        self.said = lines

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

    def _draw_bar(self, counts: dict[str, Any], doing: str, last: bool) -> None:
        from tqdm import tqdm  # not loaded where there is no terminal

        if self.bar is None:
            expected = counts["images_expected"]
            # tqdm shows nothing on a pty that says it has 0 columns
            columns, lines = shutil.get_terminal_size()
            self.bar = tqdm(
                total=expected,
                unit=" images",
                initial=counts["images"],
                ncols=columns,
                nrows=lines,
            )
        self.bar.n = counts["images"]
        done = f"{counts['done']:,} of {counts['total']:,} prompts"
        self.bar.set_postfix_str(", ".join(filter(None, (done, doing))))
        self.bar.refresh()
        if last:
            self.bar.close()  # ends its line: what follows starts a line of its own


class Drawn:
    """Images of a data set, also those of prompts that are not finished.

    The server counts the images of finished prompts alone; a prompt of 200 would show none for
    long, and after --extend those that lie there would be gone. The clients report what they draw.
    """

    def __init__(self, name: str, there: int) -> None:
        self.name = name
        self.there = there
        self.before: dict[str, int] | None = None  # {client: its images at the first look}
        self.newest: dict[str, int] = {}

    def counted(self, answer: Answer) -> dict[str, Any] | None:
        """The server's counts of the data set, with all images; None if they are not known."""
        counts = answer.dataset(self.name)
        if not counts or not answer.document:
            return counts
        rows = answer.document["workers"].get("rows", [])
        seen = {row["client_id"]: row["images"] or 0 for row in rows if row["dataset"] == self.name}
        if self.before is None:
            self.before = seen
        self.newest |= seen
        drawn = sum(images - self.before.get(name, 0) for name, images in self.newest.items())
        images = min(self.there + drawn, counts["images_expected"])
        return counts | {"images": max(images, counts["images"])}


def states(answer: Answer) -> str:
    """What the clients do, where it is not generating: "1 waiting for an LLM"."""
    by_state = answer.document["workers"]["by_state"] if answer.document else {}
    return ", ".join(
        f"{count} {WORDS.get(state, state)}"
        for state, count in by_state.items()
        if state not in BUSY
    )


def troubles(answer: Answer) -> list[str]:
    """What keeps the run from going on, and what to do; empty: nothing does."""
    if not answer.document:
        return [f"{answer.why}; the clients wait for it"]
    health = answer.document["weather"]
    stuck = health["state"] == "rebuilding" and health["what_to_do"]
    if health["state"] in WELL and not stuck:
        return []
    lines = [health["headline"], *(f"  {line}" for line in health["what_to_do"])]
    for backend in (answer.document["llm"] or {}).get("backends", []):
        if health.get("reason") == "llm" and backend.get("because"):
            lines.append(f"  {backend['name']}: {backend['because']}")
    return lines
