"""Convert a pipeline's output to bytes on the device: a quarter of what floats take to copy.

arrays, finite = pixels_of(pipe(...).images)    # uint8 (height, width, 3) each, whether finite

Only tensors are converted here. Arrays of a class of the user's own go as they are; image.py turns
them into bytes in a publishing thread.
"""

from typing import Any

LEVELS = 255


def pixels_of(images: Any) -> tuple[list[Any], list[bool | None]]:
    """(arrays, whether each is finite) of a batch; None: not looked at, the array is as it came.

    NaN becomes black; whether there was one is found before.

    images: a tensor (count, 3, height, width) with values in [0, 1] on any device, or a sequence
    of arrays or of PIL images. Rounds half to even, as numpy does.
    """
    if not hasattr(images, "detach"):
        return [_array_of(image) for image in images], [None] * len(images)
    values = images.detach().float()
    finite = values.isfinite().flatten(1).all(1).cpu().tolist()
    levels = values.nan_to_num(0.0).clamp(0, 1).mul(LEVELS).round().byte()
    return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()), finite


def _array_of(image: Any) -> Any:
    """An array as it is; a PIL image, which most pipelines give by default, as uint8."""
    if not hasattr(image, "convert"):
        return image
    import numpy

    return numpy.asarray(image.convert("RGB"))
