"""The scenes that the tiny model knows: captions, and drawings of them.

    caption, background, things = scene(random.Random(1))
    pixels = draw(background, things)

Apart from the training, which needs torch and diffusers.
"""

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 165, 70),
    "blue": (45, 75, 225),
    "yellow": (245, 215, 50),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle")
RADIUS = {"small": 8, "": 13, "large": 20}
PLACES = {"top": (0, -15), "bottom": (0, 15), "left": (-15, 0), "right": (15, 0)}
RELATIONS = {
    "above": (0, -1),
    "below": (0, 1),
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
}
COUNTS = {
    "two": [(-15, 0), (15, 0)],
    "three": [(-20, 0), (0, 0), (20, 0)],
    "four": [(-14, -14), (14, -14), (-14, 14), (14, 14)],
}


def scene(rng):
    """One random scene: (prompt, background, [(color, shape, x, y, radius), ...])."""
    bg, c1, c2 = rng.sample(list(COLORS), 3)
    s1, s2 = rng.choice(SHAPES), rng.choice(SHAPES)
    kind, j = rng.random(), lambda n: rng.uniform(-n, n)
    if kind < 0.35:
        size = rng.choice(list(RADIUS))
        text, things = f"a {size} {c1} {s1}", [(c1, s1, j(3), j(3), RADIUS[size])]
    elif kind < 0.5:
        place = rng.choice(list(PLACES))
        x, y = PLACES[place]
        text, things = f"a {c1} {s1} at the {place}", [(c1, s1, x + j(2), y + j(2), 11)]
    elif kind < 0.85:
        rel = rng.choice(list(RELATIONS))
        x, y = (15 * v for v in RELATIONS[rel])
        text = f"a {c1} {s1} {rel} a {c2} {s2}"
        things = [(c1, s1, x + j(2), y + j(2), 11), (c2, s2, -x + j(2), -y + j(2), 11)]
    else:
        count = rng.choice(list(COUNTS))
        text = f"{count} {c1} {s1}s"
        things = [(c1, s1, x + j(1.5), y + j(1.5), 8) for x, y in COUNTS[count]]
    return " ".join(f"{text} on a {bg} background".split()), bg, things


def draw(bg, things, scale=3):
    """The scene as uint8 array (64, 64, 3)."""
    im = Image.new("RGB", (SIZE * scale,) * 2, COLORS[bg])
    pen = ImageDraw.Draw(im)
    for color, shape, x, y, r in things:
        x, y, r = ((v + SIZE / 2) * scale for v in (x, y, r - SIZE / 2))
        if shape == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=COLORS[color])
        elif shape == "square":
            pen.rectangle((x - r * 0.9, y - r * 0.9, x + r * 0.9, y + r * 0.9), fill=COLORS[color])
        else:
            pen.polygon(
                [(x, y - r), (x + r, y + r * 0.8), (x - r, y + r * 0.8)], fill=COLORS[color]
            )
    return np.asarray(im.resize((SIZE, SIZE), Image.BOX))
