"""Scores the trained tiny model on 96 fresh prompts of its grammar.

They go through the project's own pipeline code. Fails more than 5 points below the model's card.

python benchmarks/tiny_model.py [--quick]
"""

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from examples.tiny_model import drawings
from generate.client.recipes import seed_of
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import GeneratorSettings

CARD = {"background": 1.0, "colours": 1.0, "places": 1.0, "shapes": 0.99, "all": 0.99}
NAMES, PALETTE = list(drawings.COLORS), np.array(list(drawings.COLORS.values()))
COUNT = 32 if "--quick" in sys.argv else 96


def main():
    rng = random.Random(time.time_ns())
    scenes = [drawings.scene(rng) for _ in range(COUNT)]
    generator = ImageGenerator(GeneratorSettings("tiny"))
    generator.load()
    generator.warm_up()
    recipe = generator.recipe
    images, began = [], time.perf_counter()
    for start in range(0, COUNT, generator.batch_size):
        batch = scenes[start : start + generator.batch_size]
        images += generator.generate(
            [scene[0] for scene in batch],
            [seed_of(0, start + i, 0) for i in range(len(batch))],
        )
    ms = (time.perf_counter() - began) / COUNT * 1000
    scores = [check(image.pixels, *scene[1:]) for image, scene in zip(images, scenes, strict=True)]
    truth = [check(drawings.draw(*scene[1:]), *scene[1:]) for scene in scenes]
    print(
        f"{COUNT} fresh prompts, {recipe.steps} steps, guidance {recipe.guidance}, "
        f"{ms:.0f} ms an image (batch {generator.batch_size}, one thread)"
    )
    print(
        f"{'share of images in which':26} {'drawn':>6} {'card':>6} {'the drawings themselves':>24}"
    )
    below = False
    for name, card in CARD.items():
        drawn = np.mean([score[name] for score in scores])
        below |= drawn < card - 0.05 - (0.05 if COUNT < 96 else 0)  # one image of 32 is 3 points
        print(
            f"{name:26} {drawn:6.2f} {card:6.2f} {np.mean([score[name] for score in truth]):24.2f}"
        )
    return "tiny_model: more than 5 points below its card" if below else 0


def check(image, background, things):
    """Whether background, colours, places and shapes of an image are those of its scene."""
    labels = np.abs(image[:, :, None].astype(int) - PALETTE).sum(-1).argmin(-1)
    border = np.concatenate(
        [labels[:3].ravel(), labels[-3:].ravel(), labels[:, :3].ravel(), labels[:, -3:].ravel()]
    )
    right = {
        "background": (border == NAMES.index(background)).mean() > 0.8,
        "colours": True,
        "shapes": True,
        "places": True,
    }
    for colour, shape, x, y, _ in things:
        x, y, mask = int(x + 32), int(y + 32), labels == NAMES.index(colour)
        right["places"] &= bool(mask[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].mean() > 0.6)
        right["colours"] &= bool(mask.sum() > 60)
        right["shapes"] &= shape_of(connected(mask, y, x)) == shape
    return right | {"all": all(right.values())}


def connected(mask, y, x):
    """The part of a mask that hangs together with what lies around (y, x).

    Three shapes of a row may stand a pixel apart.
    """
    part = np.zeros_like(mask)
    part[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = True
    while True:
        grown = part & mask
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            grown = grown | (np.roll(part & mask, step, axis) & mask)
        if (grown == part).all():
            return part
        part = grown


def shape_of(mask):
    """The shape, by the share of its bounding box that it fills.

    A square fills all, a circle pi/4, a triangle half.
    """
    ys, xs = np.nonzero(mask)
    if len(ys) < 20:
        return None
    y0, y1, x0, x1 = *np.percentile(ys, (1, 99)), *np.percentile(xs, (1, 99))
    fill = len(ys) / max(1, (y1 - y0 + 1) * (x1 - x0 + 1))
    return "square" if fill > 0.89 else "circle" if fill > 0.68 else "triangle"


if __name__ == "__main__":
    sys.exit(main())
