"""A strip of a few sample images, for the top of the card.

    captions = draw_strip(read_facts("release/HPDv2"))     # release/HPDv2/pictures.jpg

The images are taken at even steps over all rows of the first split; at most SHOWN row groups (of
8 MB) are read. A release without images in its parquet files has no such picture.
"""

import os
from collections.abc import Iterator

import pyarrow.parquet as pq
from PIL import Image, ImageOps

from common.untrusted import open_jpeg
from postprocess_dataset.own_files import DRAWN
from postprocess_dataset.progress import first_line, tell
from postprocess_dataset.publish import Draft
from postprocess_dataset.release_card.facts import Facts

NAME = "pictures.jpg"
SHOWN = 6
EDGE = 160  # pixels
GAP = 8


def draw_strip(facts: Facts) -> list[str]:
    """Write the picture; the captions of its images from left to right, [] where there is none."""
    found = list(_chosen(facts)) if facts.has_images else []
    path = os.path.join(facts.folder, NAME)
    if not found:
        if os.path.lexists(path):
            os.unlink(path)
        return []
    strip = Image.new("RGB", (len(found) * (EDGE + GAP) - GAP, EDGE), "white")
    for place, (image, _) in enumerate(found):
        left = place * (EDGE + GAP) + (EDGE - image.width) // 2
        strip.paste(image, (left, (EDGE - image.height) // 2))
    with Draft(path) as draft:
        strip.save(draft.file, "JPEG", quality=88, comment=DRAWN)
        draft.publish()
    return [caption for _, caption in found]


def _chosen(facts: Facts) -> Iterator[tuple[Image.Image, str]]:
    split = next(iter(facts.splits.values()))
    wanted = sorted({place * split.rows // SHOWN for place in range(SHOWN)})
    passed = 0
    for name in split.parquet:
        with pq.ParquetFile(os.path.join(facts.folder, facts.rows_in, name)) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                here = [place - passed for place in wanted if passed <= place < passed + rows]
                passed += rows
                if not here:
                    continue
                batch = file.read_row_group(group, columns=["image", "caption"])
                for row in here:
                    try:
                        with open_jpeg(batch["image"][row].as_py()["bytes"]) as image:
                            small = ImageOps.contain(image.convert("RGB"), (EDGE, EDGE))
                    except Exception as error:  # none, or damaged: Pillow raises anything
                        tell(f"{NAME}: an image of {name} is left out: {first_line(error)}")
                        continue
                    yield small, batch["caption"][row].as_py() or ""
