"""Luck, a score for tests: half of the FakePipeline's images have some, depending on their seed.

LUCK_FAILS=SystemExit     raises this built-in exception
LUCK_WAITS_FOR=FILE:N     the first call waits until the file has N lines
"""

import builtins
import os
import time
from pathlib import Path

DEADLINE_S = 60


class Luck:
    name = "luck"
    version = "1"
    licence = "none needed"

    def __init__(self):
        self.waited = False

    def score(self, images, texts):
        if kind := os.environ.get("LUCK_FAILS"):
            raise getattr(builtins, kind)("out of luck")
        if not self.waited and (wanted := os.environ.get("LUCK_WAITS_FOR")):
            self.waited = True
            wait_for(wanted)
        return [float(image[0, 0, 0]) - float(image[..., 0].mean()) for image in images]


def wait_for(wanted):
    path, _, lines = wanted.rpartition(":")
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if Path(path).exists() and Path(path).read_text().count("\n") >= int(lines):
            return
        time.sleep(0.02)
    raise RuntimeError("the device stood still while images were scored")
