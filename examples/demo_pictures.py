"""The demo's contact sheet, and the count of images that show what their captions say.

draw_contact_sheet(demo)        # demo/contact_sheet.jpg
"""

import json
import textwrap
from typing import Any

import numpy
from PIL import Image, ImageDraw

from examples.demo_table import Demo
from examples.shape_score import ShapeScore

CELL = 128  # pixels of an image on the sheet
CAPTION = 52  # pixels of its text
LINE = 21  # characters
RIGHT = 0.9  # of the score: one of five facts that is wrong gives 0.8


def samples(demo: Demo) -> list[tuple[Any, dict[str, Any]]]:
    """(image, its JSON) of the whole data set, by prompt and variation."""
    found = []
    for path in demo.dataset.glob("*/*_*.json"):
        record = json.loads(path.read_text())
        if not path.with_suffix(".jpg").exists():
            continue  # the table says so
        with Image.open(path.with_suffix(".jpg")) as image:
            found.append((image.convert("RGB"), record))
    return sorted(found, key=lambda it: (it[1]["prompt_index"], it[1]["augmentation_idx"]))


def right_images(demo: Demo) -> int:
    """How many images show what their caption says, as examples/shape_score.py judges."""
    found = samples(demo)
    images = [numpy.asarray(image) for image, _ in found]
    scores = ShapeScore().score(images, [record["augmented_prompt"] for _, record in found])
    return sum(score > RIGHT for score in scores)


def draw_contact_sheet(demo: Demo) -> None:
    """Every image over its caption, a row for each prompt; the first of a row is the prompt."""
    rows: dict[int, list[tuple[Any, dict[str, Any]]]] = {}
    for image, record in samples(demo):
        rows.setdefault(record["prompt_index"], []).append((image, record))
    width = max(map(len, rows.values()), default=1)
    size = (width * (CELL + 8), len(rows) * (CELL + CAPTION))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for row, cells in enumerate(rows.values()):
        for column, (image, record) in enumerate(cells):
            x, y = column * (CELL + 8) + 4, row * (CELL + CAPTION)
            sheet.paste(image.resize((CELL, CELL)), (x, y))
            lines = textwrap.wrap(record["augmented_prompt"], LINE, max_lines=4)
            pen.text((x, y + CELL + 1), "\n".join(lines), fill="black", spacing=1)
    sheet.save(demo.sheet, "JPEG", quality=90)
