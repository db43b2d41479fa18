"""Progress of long work: a bar on a terminal, one line every half minute in a log."""

import sys
import time

EVERY_S = 30


class Progress:
    """progress = Progress("samples", total); progress.add(1000, 53_000_000); progress.close()"""

    def __init__(self, unit, total=None):
        self.unit, self.total, self.count, self.bytes = unit, total, 0, 0
        self.begun = self.said = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # no thread: workers are forked
            self.bar = tqdm(
                total=total, unit=f" {unit}", dynamic_ncols=True, mininterval=0.5, smoothing=0.05
            )

    def add(self, count, size=0):
        self.count += count
        self.bytes += size
        if self.bar is not None:
            if self.bytes:
                self.bar.set_postfix_str(
                    f"{self.bytes / 1e6 / (time.monotonic() - self.begun):.0f} MB/s", refresh=False
                )
            self.bar.update(count)
        elif time.monotonic() - self.said > EVERY_S:
            self.said = time.monotonic()
            self.say(self.line())

    def line(self):
        """12,000 of 50,000 images, 810 images/s, 43 MB/s, 47 s left"""
        rate = self.count / max(1e-3, time.monotonic() - self.begun)
        parts = [
            f"{self.count:,}{f' of {self.total:,}' if self.total else ''} {self.unit}",
            f"{rate:,.0f} {self.unit}/s",
        ]
        if self.bytes:
            parts.append(f"{self.bytes / 1e6 / max(1e-3, time.monotonic() - self.begun):,.0f} MB/s")
        if self.total and rate and self.count < self.total:
            parts.append(f"{(self.total - self.count) / rate:,.0f} s left")
        return ", ".join(parts)

    def say(self, line):
        """A line of its own, above the bar if there is one."""
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self):
        if self.bar is not None:
            self.bar.close()
