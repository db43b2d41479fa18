"""CPU a client spends on publishing one image: as it is, as it was, and with scores.

    python benchmarks/publishing.py [--size 1024] [--images 40]

"as it was": floats come from the device, are checked and turned into bytes by a publishing thread,
and the finished JPEG is decoded again for the comment that it was given. "with scores": besides,
the JPEG is decoded for them, since they judge what is published; the scores themselves are not in
it. "twice": a JPEG is made for the scores, and another one is published, as it was once. All ways
publish the same pictures in turns, to files of a temporary folder. CPU is user + system time of
this process.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from generate.dataset import samples
from generate.dataset.layout import JPEG_QUALITY, path_of
from generate.pipelines.image import Image, problem_with

TEXT = "a photo of a lighthouse at dusk, long exposure, waves below, detailed, 35 mm " * 3


def picture(size, seed):
    """float32 array (3, size, size) in [0, 1]: coarse shapes under fine noise, as in a photo."""
    rng = numpy.random.default_rng(seed)
    coarse = rng.random((3, size // 32, size // 32), numpy.float32).repeat(32, 1).repeat(32, 2)
    return (coarse + rng.normal(0, 0.02, coarse.shape).astype(numpy.float32)).clip(0, 1)


def on_device(values):
    """What pixels.py does on the card: uint8 (height, width, 3)."""
    return numpy.ascontiguousarray((values * 255).round().astype(numpy.uint8).transpose(1, 2, 0))


def publish(folder, number, image, way):
    """Check and publish; "as it was": read the comment out of the finished JPEG, too."""
    size = image.pixels.shape[0]
    assert problem_with(image, size, size) is None
    metadata = {
        "prompt_index": number,
        "augmentation_idx": 0,
        "original_prompt": TEXT,
        "augmented_prompt": TEXT,
    }
    jpeg = samples.encode_alone(image.pixels, JPEG_QUALITY)
    if way in ("with scores", "twice"):
        samples.decoded(jpeg)
    published = image.pixels if way == "twice" else jpeg
    assert samples.publish_sample(folder, published, metadata, samples.Place("1-1"))
    if way == "as it was":
        samples.read_comment(path_of(folder, number, 0, ".jpg").read_bytes())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024, help="pixels (default: %(default)s)")
    parser.add_argument("--images", type=int, default=40, help="of each way (default: %(default)s)")
    args = parser.parse_args()
    pictures = [picture(args.size, seed) for seed in range(4)]
    converted = [on_device(values) for values in pictures]
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    spent = {"as it was": [], "now": [], "with scores": [], "twice": []}
    try:
        for number in range(len(spent) * args.images):
            way = list(spent)[number % len(spent)]
            was = way == "as it was"
            source = pictures if was else converted
            image = Image(source[number // len(spent) % len(source)], 1, None if was else True)
            began = time.process_time()
            publish(folder, number, image, way)
            spent[way].append(time.process_time() - began)
    finally:
        shutil.rmtree(folder)
    middle = {way: 1000 * statistics.median(times) for way, times in spent.items()}
    print(f"ms of CPU for publishing an image of {args.size}x{args.size} (medians, in turns)")
    for way, milliseconds in middle.items():
        print(f"  {way:11} {milliseconds:6.1f}   {milliseconds / middle['as it was']:.2f}")


if __name__ == "__main__":
    main()
