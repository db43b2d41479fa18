"""What commands cost, side by side.

compare("conversion", {"ours": [...], "theirs": [...]}, reference="theirs", repetitions=3)

All repetitions of a comparison are interleaved; figures are medians. CPU is user + system time of
the command and its workers, memory the largest resident set of one process, and of all of them
together (shared pages counted once, sampled every 0.2 s).
"""

import os
import statistics
import subprocess
import threading
import time
from pathlib import Path


class Cost:
    """What a command took: wall and CPU seconds, MB of its largest process, of all together."""

    def __init__(self, command):
        started = time.monotonic()
        self.together = 0
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        reading = threading.Thread(target=self.read, args=(process.stdout,))
        reading.start()
        watching = threading.Thread(target=self.watch, args=(process,))
        watching.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.wall = time.monotonic() - started
        reading.join()
        watching.join()
        if process.returncode:
            raise SystemExit(
                f"{' '.join(map(str, command))} ended with {process.returncode}: {self.output}"
            )
        self.cpu = usage.ru_utime + usage.ru_stime
        self.peak = usage.ru_maxrss / 1024

    def read(self, stream):
        self.output = stream.read().decode(errors="replace")

    def watch(self, process):
        while process.returncode is None:
            total = 0
            waiting = [process.pid]
            while waiting:
                pid = waiting.pop()
                try:
                    # Pss: a page that n processes share counts 1/n in each
                    shares = Path(f"/proc/{pid}/smaps_rollup").read_text()
                    total += int(shares.split("\nPss:")[1].split()[0]) / 1024
                    waiting += Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                except (OSError, IndexError):
                    continue
            self.together = max(self.together, total)
            time.sleep(0.2)


def compare(title, ways, reference, repetitions, before=lambda name: None):
    """Run each way in turns and print medians, as ratios of `reference`."""
    costs = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, command in ways.items():
            before(name)
            costs[name].append(Cost(command))
    middle = {
        name: {
            field: statistics.median(getattr(c, field) for c in some)
            for field in ("cpu", "wall", "peak", "together")
        }
        for name, some in costs.items()
    }
    print(f"\n{title} (medians of {repetitions}, interleaved; reference: {reference})")
    print(f"  {'':44}{'CPU s':>8}{'ratio':>7}{'wall s':>9}{'ratio':>7}{'peak MB':>9}{'all MB':>8}")
    for name, m in middle.items():
        base = middle[reference]
        print(
            f"  {name:44}{m['cpu']:8.2f}{m['cpu'] / base['cpu']:7.2f}"
            f"{m['wall']:9.2f}{m['wall'] / base['wall']:7.2f}"
            f"{m['peak']:9.0f}{m['together']:8.0f}",
            flush=True,
        )
    return middle
