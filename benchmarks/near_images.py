"""How long near duplicates over a whole set take, and how many of them are found.

    python benchmarks/near_images.py [--quick]

The hashes are made up: tables of scores of several sizes, in which a tenth of the images is 0 to 6
bits from an earlier one. `even`: every bit is 0 or 1 equally often. `alike`: seven of eight bits
are 0, as in images of one kind, whose buckets are crowded. `+`: each image has an embedding of 768
numbers besides, which is another image's own for half of those made near: how many of the others
are taken for near duplicates. Then what one image of 512 x 512 pixels costs before that: decoding
it, and its dhash. Fails above two minutes of CPU for 100,000 images: one thread, so alone they take
no longer.
"""

import argparse
import io
import itertools
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy
import pyarrow.parquet as pq
from PIL import Image

from common.scores.dhash import fingerprint
from postprocess_dataset import near_table, score_table
from postprocess_dataset.scored.embeddings import packed
from postprocess_dataset.scored.near_images import compare

AIM_S = 120.0  # of CPU, 100,000 images
DUPLICATES = 0.1
FACTS = {"scores": {"dhash": "1"}, "licences": {}}
DIMENSIONS = 768


def hashes(count, alike, rng):
    """(uint64 hashes, which of them were made near an earlier one, and near which)."""
    made = rng.integers(0, 2**64, count, dtype=numpy.uint64)
    for _ in range(2 if alike else 0):
        made &= rng.integers(0, 2**64, count, dtype=numpy.uint64)
    repeats = rng.random(count) < DUPLICATES
    repeats[0] = False
    near, first = numpy.flatnonzero(repeats), numpy.flatnonzero(~repeats)
    of = first[(rng.random(len(near)) * numpy.searchsorted(first, near)).astype(int)]
    made[near] = made[of]
    for _ in range(6):
        flip = rng.random(len(near)) < 0.5
        made[near] ^= flip.astype(numpy.uint64) << rng.integers(0, 64, len(near), numpy.uint64)
    return made, near, of


def embeddings(count, near, first, rng):
    """(bytes of each image's, which of `near` have nearly that of the image they were made of)."""
    vectors = rng.standard_normal((count, DIMENSIONS), numpy.float32)
    same = rng.random(len(near)) < 0.5
    noise = 0.1 * rng.standard_normal((same.sum(), DIMENSIONS), numpy.float32)
    vectors[near[same]] = vectors[first[same]] + noise
    return packed(vectors), same


def one(count, alike, embedded):
    rng = numpy.random.default_rng(1)
    made, near, of = hashes(count, alike, rng)
    vectors, same = [None] * count, numpy.ones(len(near), bool)
    if embedded:
        vectors, same = embeddings(count, near, of, rng)
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, count, 20_000):
            rows = [
                {
                    score_table.KEY: f"set/{n // 1000:06d}/{n:012d}_0",
                    "dhash": f"{value:016x}",
                    "embedding": vectors[n],
                }
                for n, value in enumerate(made[start : start + 20_000].tolist(), start)
            ]
            name = f"{folder}/part-00000-of-00001.{start // 20_000:06d}.parquet"
            score_table.publish(rows, name, FACTS | {"embedding": "clip"} if embedded else FACTS)
        began, cpu = time.perf_counter(), time.process_time()
        found = compare(folder)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        bits = pq.read_table(f"{folder}/{near_table.NAME}")[near_table.DISTANCE].to_numpy()
    share, false = (bits[near[same]] <= 6).mean(), (bits[near[~same]] <= 6).sum()
    kind = ("alike" if alike else "even") + "+" * embedded
    also = f", {false:,} of {(~same).sum():,} others too" if embedded else ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{count:10,} {kind:6} {took:7.1f} s {cpu:7.1f} s of CPU "
        f"{peak:5.2f} GiB  {share:.4f} of {same.sum():,} found{also}, "
        f"{found.cut:,} not fully compared",
        flush=True,
    )
    return cpu


def cost_of_an_image():
    rng = numpy.random.default_rng(2)
    small = rng.integers(0, 256, (32, 32, 3), dtype=numpy.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((512, 512)).save(file, "JPEG", quality=95)
    began = time.process_time()
    for _ in range(50):
        pixels = numpy.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    decoded = time.process_time()
    for _ in range(50):
        fingerprint(pixels)
    print(f"decoding an image {(decoded - began) * 20:.1f} ms of CPU", end=", ")
    print(f"its dhash {(time.process_time() - decoded) * 20:.1f} ms")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="no more than 100,000 images")
    quick = parser.parse_args().quick
    print(f"load {os.getloadavg()[0]:.1f}; memory counts what was before it, too")
    slow = 0.0
    for count in (100_000,) if quick else (100_000, 200_000, 400_000, 1_000_000):
        for alike, embedded in itertools.product((False, True), (False, True)):
            if embedded and count > 100_000:
                continue
            cpu = one(count, alike, embedded)
            slow = max(slow, cpu if count == 100_000 else 0.0)
    cost_of_an_image()
    return f"near_images: {slow:.0f} s of CPU for 100,000 images" if slow > AIM_S else 0


if __name__ == "__main__":
    sys.exit(main())
