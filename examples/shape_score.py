"""An example of a user's score: does an image of the tiny model show what its caption says?

    python generate/generate_images.py examples/shapes.json --model tiny \
        --scores examples/shape_score.py:ShapeScore --accept "shape > 0.9" --max_tries 8

The caption's words (examples/tiny_model/README.md has the grammar) say which colour, shape, size
and place each thing has, and which colour is behind it. The image is compared with that, pixel by
pixel; nothing is learned. `python benchmarks/shape_score.py` measures how often it is right.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy

GRID = 64  # the image is looked at on a grid of so many pixels a side
PALETTE = {
    "red": (220, 40, 40),
    "green": (40, 165, 70),
    "blue": (45, 75, 225),
    "yellow": (245, 215, 50),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
NAMES = list(PALETTE)
# Radius, in pixels of the grid, and how often radius squared the shape's area is.
SIZES = {"small": 8.0, "": 13.0, "large": 20.0}
AREA = {"circle": 3.14, "square": 3.24, "triangle": 1.8}
PLACES = {"top": (0, -15), "bottom": (0, 15), "left": (-15, 0), "right": (15, 0)}
BESIDE = {"above": (0, -1), "below": (0, 1), "to the left of": (-1, 0), "to the right of": (1, 0)}
ROWS = {
    "two": [(-15, 0), (15, 0)],
    "three": [(-20, 0), (0, 0), (20, 0)],
    "four": [(-14, -14), (14, -14), (-14, 14), (14, 14)],
}
NEAR = 6.0  # pixels between the middle of a thing and its place
SMALLEST = 60  # pixels that a thing has at least
FOREIGN = 0.04  # share of pixels that may have another colour: edges are mixed ones
# Overlap of a thing with its shape; a triangle's tip is cut off with the outermost hundredth.
LEAST_IOU = {"circle": 0.85, "square": 0.85, "triangle": 0.6}
UNKNOWN = -1  # number of a colour that no pixel has
TOLERANCE = 1.2  # of the radius of a thing whose size has no word

COLOUR = "|".join(NAMES)
SHAPE = "|".join(AREA)
THING = rf"\ba (?:(small|large) )?({COLOUR}) ({SHAPE})\b"
ALONE = re.compile(rf"{THING}(?: at the ({'|'.join(PLACES)})\b)?")
PAIR = re.compile(rf"{THING} ({'|'.join(BESIDE)}) {THING}")
ROW = re.compile(rf"\b({'|'.join(ROWS)}) ({COLOUR}) ({SHAPE})s\b")
BEHIND = re.compile(r"\bon an? (\w+) background\b")


@dataclass(frozen=True)
class Thing:
    """What a caption names. x, y: pixels of the grid from its middle; radius in pixels."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    sized: bool = False  # its size stands in the caption


class ShapeScore:
    """Share of what the caption names that the image shows, 0 to 1: background, colours, shapes,
    sizes, places; each counts when it holds for all things. NaN: the caption names no thing."""

    name = "shape"
    version = "3"
    licence = "Apache-2.0"

    def score(self, images: list[Any], texts: list[str]) -> list[float]:
        """images: uint8 arrays, height x width x 3."""
        return [share(image, text) for image, text in zip(images, texts, strict=True)]


def share(image: Any, text: str) -> float:
    """The score of one image."""
    things, background = things_of(text)
    if not things:
        return float("nan")
    facts = facts_of(labels_of(image), things, background)
    return sum(facts.values()) / len(facts)


def things_of(text: str) -> tuple[list[Thing], str | None]:
    """The things that a caption names, and the colour of the background (None: it names none).

    A background of a colour outside PALETTE counts, too: no image shows it.
    """
    words = " ".join(text.lower().split())
    behind = BEHIND.search(words)
    background = behind[1] if behind else None
    if pair := PAIR.search(words):
        size, colour, shape, relation, size_2, colour_2, shape_2 = pair.groups()
        x, y = (15 * step for step in BESIDE[relation])
        return [_thing(colour, shape, x, y, size), _thing(colour_2, shape_2, -x, -y, size_2)], (
            background
        )
    if row := ROW.search(words):
        count, colour, shape = row.groups()
        return [Thing(colour, shape, x, y, SIZES["small"]) for x, y in ROWS[count]], background
    if alone := ALONE.search(words):
        size, colour, shape, place = alone.groups()
        if place:
            return [_thing(colour, shape, *PLACES[place], size)], background
        return [Thing(colour, shape, 0, 0, SIZES[size or ""], sized=True)], background
    return [], background


def _thing(colour: str, shape: str, x: float, y: float, size: str | None) -> Thing:
    """One of two things, or one at the edge: smaller than one that has the image to itself."""
    return Thing(colour, shape, x, y, SIZES[size] if size else 11.0, sized=size is not None)


def labels_of(image: Any) -> Any:
    """The number of the nearest colour of PALETTE, GRID x GRID."""
    height, width = image.shape[:2]
    rows = (numpy.arange(GRID) + 0.5) * height / GRID
    columns = (numpy.arange(GRID) + 0.5) * width / GRID
    pixels = image[rows.astype(int)[:, None], columns.astype(int)[None]].astype(int)
    palette = numpy.array(list(PALETTE.values()))
    return numpy.abs(pixels[:, :, None] - palette).sum(-1).argmin(-1)


def facts_of(labels: Any, things: list[Thing], background: str | None) -> dict[str, bool]:
    """{what the caption names: whether the image shows it}."""
    y, x = numpy.indices(labels.shape) - (GRID - 1) / 2
    # a pixel belongs to the thing whose place is nearest
    nearest = numpy.argmin([(x - t.x) ** 2 + (y - t.y) ** 2 for t in things], axis=0)
    colours = {NAMES.index(thing.colour) for thing in things}
    facts = dict.fromkeys(("colours", "shapes", "sizes", "places"), True)
    if background is not None:
        behind = NAMES.index(background) if background in NAMES else UNKNOWN
        edge = numpy.concatenate(
            [labels[:3].ravel(), labels[-3:].ravel(), labels[:, [0, 1, 2, -1, -2, -3]].ravel()]
        )
        facts["background"] = bool((edge == behind).mean() > 0.8)
        colours.add(behind)
        facts["colours"] = bool((~numpy.isin(labels, list(colours))).mean() < FOREIGN)
    for number, thing in enumerate(things):
        mask = (labels == NAMES.index(thing.colour)) & (nearest == number)
        if mask.sum() < SMALLEST:
            return facts | {"colours": False, "shapes": False, "sizes": False, "places": False}
        facts["places"] &= _distance(mask, x - thing.x, y - thing.y, thing) < NEAR
        facts["shapes"] &= shape_of(mask) == thing.shape
        facts["sizes"] &= _is_size(float(mask.sum()), thing)
    return facts


def _distance(mask: Any, x: Any, y: Any, thing: Thing) -> float:
    """Pixels from a mask's middle to the origin; a triangle's centroid lies below its middle."""
    low = 0.2 * thing.radius if thing.shape == "triangle" else 0.0
    return float(numpy.hypot(x[mask].mean(), y[mask].mean() - low))


def _is_size(area: float, thing: Thing) -> bool:
    radius = (area / AREA[thing.shape]) ** 0.5
    if thing.sized:
        return min(SIZES.values(), key=lambda size: abs(numpy.log(radius / size))) == thing.radius
    return bool(1 / TOLERANCE < radius / thing.radius < TOLERANCE)


def shape_of(mask: Any) -> str | None:
    """The shape whose drawing, in the mask's bounding box, covers the mask best (by IoU).

    None: none covers it well enough.
    """
    rows, columns = numpy.nonzero(mask)
    top, bottom = numpy.percentile(rows, (1, 99))
    left, right = numpy.percentile(columns, (1, 99))
    y, x = numpy.indices(mask.shape)
    v = (y - top + 0.5) / (bottom - top + 1) * 2 - 1  # -1 to 1 from top to bottom
    u = (x - left + 0.5) / (right - left + 1) * 2 - 1
    inside = (numpy.abs(u) <= 1) & (numpy.abs(v) <= 1)
    drawings = {
        "circle": u**2 + v**2 <= 1,
        "square": inside,
        "triangle": inside & (numpy.abs(u) <= (v + 1) / 2),
    }
    found = {name: (mask & d).sum() / (mask | d).sum() for name, d in drawings.items()}
    best = max(found, key=lambda name: found[name])
    return best if found[best] >= LEAST_IOU[best] else None
