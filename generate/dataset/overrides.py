"""Options of single prompts: what an item of the prompts file asks for its own images.

    {"prompt": "a tall tower", "size": "768x1344", "seed": 7, "negative_prompt": "people",
     "num_inference_steps": 40, "guidance_scale": 3.5}

Each overrides the option of its name. All are part of the list's sha256 and recorded in the JSON of
each image.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, cast

from common.json_form import number
from generate.dataset.sizes import size_from, words_of

LARGEST_SEED = 2**62  # room for the augmentation, which is added
MOST_STEPS = 100_000
LONGEST_NEGATIVE = 4096  # characters


class Overrides(TypedDict, total=False):
    """The fields that an item may hold."""

    size: str
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float


def _size(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected width x height, 1024x768")
    return words_of(size_from(value))


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NEGATIVE:
        raise ValueError(f"expected a text of at most {LONGEST_NEGATIVE:,} characters")
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def checked(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return checked


def _number(value: Any) -> float:
    if not number(value) or abs(value) > 1e6:
        raise ValueError("expected a number")
    return float(value)


FIELDS: dict[str, Callable[[Any], Any]] = {
    "size": _size,
    "negative_prompt": _text,
    "seed": _whole(0, LARGEST_SEED),
    "num_inference_steps": _whole(1, MOST_STEPS),
    "guidance_scale": _number,
}


def read_overrides(item: Mapping[str, Any]) -> Overrides:
    """The overrides of an item; null means none. ValueError says what is wrong."""
    found: dict[str, Any] = {}
    for name, check in FIELDS.items():
        value = item.get(name)
        if value is None:
            continue
        try:
            found[name] = check(value)
        except ValueError as error:
            raise ValueError(f'has a "{name}" that cannot be used: {error}') from None
    return cast(Overrides, found)
