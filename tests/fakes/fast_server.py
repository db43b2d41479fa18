"""The real job server, for which a second lasts FACTOR seconds.

    python tests/fakes/fast_server.py FACTOR OPTIONS_OF_IMAGE_SERVER…

FastTime(FACTOR) is the clock of its callers: both count from the machine's monotonic clock.
"""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class FastTime:
    """monotonic() and time() of a world that runs `factor` times as fast."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._monotonic, self._began = time.monotonic, time.time()
        self._from = self.monotonic()

    def monotonic(self) -> float:
        return self._monotonic() * self.factor

    def time(self) -> float:
        return self._began + self.monotonic() - self._from


def fast_sleep(seconds: float, real_sleep: Callable[[float], None] = time.sleep) -> None:
    """At least a tenth of a real second: the server's loops would take all of the CPU."""
    real_sleep(max(seconds / factor, 0.1))


if __name__ == "__main__":
    factor = float(sys.argv.pop(1))
    fast = FastTime(factor)
    time.monotonic, time.time, time.sleep = fast.monotonic, fast.time, fast_sleep
    sys.path.insert(0, str(ROOT))
    from generate.protocol import signing
    from generate.server.ledger import live_leases

    live_leases.SWEEP_S = factor / 4  # else each sweep comes late, and puts all leases off
    signing.WINDOW_S *= factor  # a request needs its real milliseconds
    sys.argv[0] = str(ROOT / "generate" / "image_server.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
