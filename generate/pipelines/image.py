"""A generated image: its pixels, and why it may not count.

problem_with(image, height=1024, width=1024)     # None, or "a black image", …
"""

from functools import cached_property
from typing import Any

SPREAD = 8  # levels of 255 that some channel spans in an image that shows something
SPARSE = 8  # every eighth pixel of every eighth row
FLAGGED = "flagged by the model's safety checker"


class Image:
    """One generated image. values: uint8 array (height, width, 3), or float array (3, height,
    width) in [0, 1]; batch_size: of the batch it was generated in; finite: whether the pipeline's
    values were, where that is known already; flagged: the model's own safety checker has blackened
    it.

    Checked and turned into pixels where it is used, so that this happens in a publishing thread and
    the device goes on.
    """

    def __init__(
        self, values: Any, batch_size: int, finite: bool | None = None, flagged: bool = False
    ) -> None:
        self.values = values
        self.flagged = flagged
        self.batch_size = batch_size
        self._finite = finite

    @cached_property
    def finite(self) -> bool:
        import numpy  # not before there is an image: a client may find that all is done

        return bool(numpy.isfinite(self.values).all()) if self._finite is None else self._finite

    @cached_property
    def pixels(self) -> Any:
        """uint8 array (height, width, 3)."""
        import numpy  # see finite

        if self.values.dtype == numpy.uint8:
            return self.values
        values = self.values if self.finite else numpy.nan_to_num(self.values)
        levels = (values * 255).round().clip(0, 255).astype(numpy.uint8)
        return numpy.ascontiguousarray(levels.transpose(1, 2, 0))


def problem_with(image: Image, height: int, width: int) -> str | None:
    """None, or why an image does not count."""
    if image.flagged:
        return FLAGGED
    if not image.finite:
        return "NaN or infinite pixels"
    if image.pixels.shape != (height, width, 3):
        return f"{'x'.join(map(str, image.pixels.shape))} pixels instead of {height}x{width}x3"
    if image.pixels.max() < 8:
        return "a black image"
    if _is_of_one_colour(image.pixels):
        return "an image of one colour"
    return None


def _is_of_one_colour(pixels: Any) -> bool:
    """Whether each channel, red as well as blue, spans next to nothing over the whole image."""
    few = pixels[::SPARSE, ::SPARSE].reshape(-1, 3).astype(int)  # decides for almost every image
    if (few.max(0) - few.min(0)).max() >= SPREAD:
        return False
    levels = pixels.reshape(-1, 3).astype(int)
    return bool((levels.max(0) - levels.min(0)).max() < SPREAD)
