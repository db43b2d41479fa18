"""The prompts that the tiny model was trained on, and a warning about others.

KNOWN.fullmatch("two red circles on a blue background")
lines_of([{"prompt": "a cat"}])       # what the plan says of prompts that it does not know
"""

import re
from collections.abc import Sequence
from itertools import islice

from common.console import visible
from generate.dataset.prompts_file import Item

COLOURS = "red|green|blue|yellow|white|black"
THING = rf"a (?:{COLOURS}) (?:circle|square|triangle)"
ALONE = rf"a (?:(?:small|large) )?(?:{COLOURS}) (?:circle|square|triangle)"
PLACED = rf"{THING} at the (?:top|bottom|left|right)"
PAIR = rf"{THING} (?:above|below|to the (?:left|right) of) {THING}"
ROW = rf"(?:two|three|four) (?:{COLOURS}) (?:circle|square|triangle)s"
KNOWN = re.compile(rf"(?:{ALONE}|{PLACED}|{PAIR}|{ROW}) on a (?:{COLOURS}) background\.?", re.I)
LOOKED_AT = 10_000  # prompts


def lines_of(items: Sequence[Item]) -> list[str]:
    """One line, if some of the first prompts are not among them."""
    prompts = [" ".join(item["prompt"].split()) for item in islice(items, LOOKED_AT)]
    unknown = [prompt for prompt in prompts if not KNOWN.fullmatch(prompt)]
    if not unknown:
        return []
    return [
        f"prompts    the tiny model does not know {len(unknown):,} of {len(prompts):,}, like "
        f'"{visible(unknown[0], 80)}": expect wrong images. It knows circles, squares and '
        "triangles in red, green, blue, yellow, white and black, each on a background of one of "
        "these colours: examples/tiny_model/README.md"
    ]
