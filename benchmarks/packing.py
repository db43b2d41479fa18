"""How many files a data set takes while it is generated and packed; is each sample there once?

    python benchmarks/packing.py                              # 200,000 images: 10,000 prompts of 20
    python benchmarks/packing.py --prompts 10000 --images 200 # 2,000,000

One process writes the samples (empty images of 300 bytes) in the order in which the job server
hands prompts out, and packs after every --every prompts, as `--watch` does beside a run. The files
are counted each time before it packs, when there are most.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.sample_reader import iterate
from generate.server.storage.blocks import BLOCK, OPEN_BLOCKS, shuffled_places, spread
from postprocess_dataset.packing.pack_folder import Packing

SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the disk is not what is measured


def order(prompts: int) -> list[int]:
    """The prompts as they are handed out: each open folder in turn."""
    blocks = spread(range(-(-prompts // BLOCK)), random.Random("42 0"))
    found: list[int] = []
    for first in range(0, len(blocks), OPEN_BLOCKS):
        opened = blocks[first : first + OPEN_BLOCKS]
        for turn in range(BLOCK):
            found += [block * BLOCK + shuffled_places(42, block)[turn] for block in opened]
    return [index for index in found if index < prompts]


def write(folder: Path, index: int, images: int) -> None:
    """A prompt's files, as a client leaves them; not fsynced: the disk is not what is measured."""
    texts = [
        {"text": f"text {aug}", "llm_model_name": None, "backend": None} for aug in range(images)
    ]
    record = {"prompt_index": index, "original_prompt": "p", "source": [], "texts": texts}
    (folder / f"{index}.prompts").write_text(json.dumps(record | {"short": None}))
    lines = []
    for aug in range(images):
        image = b"\xff\xd8" + f"{index} {aug}".encode().ljust(296) + b"\xff\xd9"
        sample = {
            "prompt_index": index,
            "augmentation_idx": aug,
            "augmented_prompt": f"text {aug}",
            "image_sha256": hashlib.sha256(image).hexdigest(),
        }
        (folder / f"{index}_{aug}.jpg").write_bytes(image)
        lines.append(json.dumps(sample) + "\n")
        (folder / f"{index}_{aug}.json").write_text(lines[-1])
    if images > 1:
        (folder / f"{index}.samples").write_text("".join(lines))


def count(root: Path) -> int:
    return sum(len(os.listdir(folder)) for folder in root.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--every", type=int, default=500, help="prompts between two looks")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=SHM) as name:
        root = Path(name)
        most = 0
        packing_s = 0.0
        begun = time.monotonic()
        left: dict[Path, int] = {}
        for number, index in enumerate(order(args.prompts), start=1):
            folder = root / f"{index // BLOCK:06d}"
            if folder not in left:
                folder.mkdir()
                left[folder] = min(BLOCK, args.prompts - index // BLOCK * BLOCK)
            write(folder, index, args.images)
            left[folder] -= 1
            if not left[folder]:
                (folder / "COMPLETE").write_text("{}")
            if number % args.every and number < args.prompts:
                continue
            most = max(most, count(root))
            before = time.monotonic()
            for each in sorted(root.iterdir()):
                assert not Packing(each, quiet_s=0).run().left
            packing_s += time.monotonic() - before
        keys = [sample.key for sample in iterate(root)]
        images = args.prompts * args.images
        assert len(keys) == len(set(keys)) == images, f"{len(keys)} of {images} samples"
        written = images * 2 + args.prompts * (2 if args.images > 1 else 1)
        print(
            f"{images:,} images, {written:,} files: at most {most:,} at a time, {count(root):,} at "
            f"the end; each sample once; packing {packing_s / images * 1e6:,.0f} us an image, "
            f"{time.monotonic() - begun:,.0f} s in all"
        )


if __name__ == "__main__":
    main()
