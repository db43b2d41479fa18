"""How busy the client keeps a device while images are scored, and what a score costs.

    python benchmarks/scoring.py [--quick]

The real client, server and files with a device stand-in (10 images of 512 x 512 pixels a batch, 2 s
a batch, a fifth of it in Python), without scores and with each set of them, in turns: share of the
time in which the device was busy, from the first batch to the last. Then CPU a score and image.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy

from benchmarks.device_stand_in import BATCH, SIZE, Run, StandIn
from common.scores.interface import load_scores

SECONDS = 2.0  # a batch
PYTHON = 0.2
AIM = 0.97  # share of the time
ALONE = ("sharpness", "entropy", "nsfw")
SETS = (None, "nsfw", "nsfw,sharpness,entropy", "nsfw,sharpness,entropy,dhash")


def busy(scores, batches):
    """Share of the time in which the device was busy."""
    run = Run([f"bird {i}" for i in range(1000)], BATCH, [f"view {k}" for k in range(BATCH - 1)])
    options = ("--scores", scores) if scores else ()
    client = run.stand_in(SECONDS, PYTHON, *options)
    while len(run.calls()) < batches:
        assert client.poll() is None, (run.folder / "client.out").read_text()
        time.sleep(0.05)
    client.send_signal(signal.SIGTERM)
    assert client.wait() == 0, (run.folder / "client.out").read_text()
    run.close()
    calls = run.calls()
    return sum(end - begin for begin, end in calls) / (calls[-1][1] - calls[0][0])


def cpu_ms(word):
    """CPU of one image, in ms."""
    [score] = load_scores(word)
    images = StandIn().images
    pixels = [(image * 255).astype(numpy.uint8).transpose(1, 2, 0).copy() for image in images]
    score.score(pixels, [""] * BATCH)
    began = time.process_time()
    score.score(pixels, [""] * BATCH)
    return (time.process_time() - began) / BATCH * 1000


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer batches")
    batches = 5 if parser.parse_args().quick else 20
    print(f"{BATCH} images of {SIZE}x{SIZE} in {SECONDS:g} s; load {os.getloadavg()[0]:.1f}")
    print(f"device busy (aim: {AIM})")
    for scores in SETS:
        print(f"{busy(scores, batches):.3f}  --scores {scores or '(none)'}", flush=True)
    for word in ALONE:
        print(f"{cpu_ms(word):6.1f} ms of CPU an image  {word}")


if __name__ == "__main__":
    main()
