"""Progress of long work: a bar on a terminal, one line every half minute in a log."""

import contextlib
import sys
import time

from common.console import visible

EVERY_S = 30


def tell(summary: str) -> None:
    """Print what was done, on standard error if standard output cannot be written.

    OSError after that, for the exit status.
    """
    line = visible(summary)
    try:
        print(line, flush=True)
    except OSError:
        print(line, file=sys.stderr, flush=True)
        raise


def first_line(error: Exception) -> str:
    """The first line of an error's text; Arrow's have many."""
    return visible(str(error).strip().split("\n")[0])


class Progress:
    """progress = Progress("samples", total); progress.add(1000, 53_000_000); progress.close()"""

    def __init__(self, unit: str, total: int | None = None) -> None:
        self.unit = unit
        self.total = total
        self.count = 0
        self.bytes = 0
        self.begun = self.reported = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm  # a log needs none

            tqdm.monitor_interval = 0  # no thread: workers are forked
            self.bar = tqdm(
                total=total, unit=f" {unit}", dynamic_ncols=True, mininterval=0.5, smoothing=0.05
            )

    def add(self, count: int, size: int = 0) -> None:
        """Count so many more, of so many bytes."""
        self.count += count
        self.bytes += size
        if self.bar is not None:
            if self.bytes:
                self.bar.set_postfix_str(f"{self._mb_per_s():.0f} MB/s", refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.reported > EVERY_S:
            self.reported = time.monotonic()
            self.say(self.line())

    def _mb_per_s(self) -> float:
        return self.bytes / 1e6 / max(1e-3, time.monotonic() - self.begun)

    def line(self) -> str:
        """12,000 of 50,000 images, 810 images/s, 43 MB/s, 47 s left"""
        rate = self.count / max(1e-3, time.monotonic() - self.begun)
        total = f" of {self.total:,}" if self.total else ""
        parts = [f"{self.count:,}{total} {self.unit}", f"{rate:,.0f} {self.unit}/s"]
        if self.bytes:
            parts.append(f"{self._mb_per_s():,.0f} MB/s")
        if self.total and rate and self.count < self.total:
            parts.append(f"{(self.total - self.count) / rate:,.0f} s left")
        return ", ".join(parts)

    def say(self, line: str) -> None:
        """Print a line of its own, above the bar if there is one; it may hold foreign text.

        A full disk under the log costs the line, not the work.
        """
        if self.bar is not None:
            self.bar.write(visible(line), file=sys.stderr)
            return
        with contextlib.suppress(OSError):
            print(visible(line), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.close()
