"""Scores that need nothing but the pixels: sharpness, and entropy for flat and noisy images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy

from common.scores.interface import Pixels

TILES = 8  # a side


Brightness = numpy.ndarray[Any, numpy.dtype[Any]]


def luma(image: Pixels) -> Brightness:
    """Brightness, float32, height x width, 0 to 255 (ITU-R BT.601)."""
    weights = numpy.array([0.299, 0.587, 0.114], numpy.float32)
    values: Brightness = numpy.asarray(image, numpy.float32) @ weights
    return values


class Sharpness:
    """Variance of the Laplacian of the brightness: blurred images are near 0.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000). It grows with
    contrast and with noise, so it ranks images of one kind and size; it is no absolute measure.
    """

    name = "sharpness"
    version = "1"
    licence = "none needed"

    def score(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        return [_variance(laplacian(luma(image))) for image in images]


def _variance(values: Brightness) -> float:
    return float(values.var()) if values.size else math.nan  # fewer than 3 x 3 pixels


def laplacian(values: Brightness) -> Brightness:
    """Second difference of a 2D array, without its border."""
    middle = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    second: Brightness = around - 4 * middle
    return second


class Entropy:
    """Median over 8 x 8 tiles of the entropy of the brightness, in bits.

    0: flat, or flat but for a strip. Photographs: about 3 to 6. Noise: near 8 at 1024 pixels.
    """

    name = "entropy"
    version = "1"
    licence = "none needed"

    def score(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        return [_median_entropy(luma(image).astype(numpy.uint8)) for image in images]


def _median_entropy(values: Brightness) -> float:
    rows = numpy.array_split(values, TILES)
    tiles = [tile for row in rows for tile in numpy.array_split(row, TILES, axis=1)]
    return float(numpy.median([_entropy(tile) for tile in tiles if tile.size]))


def _entropy(tile: Brightness) -> float:
    shares = numpy.bincount(tile.ravel(), minlength=256) / tile.size
    shares = shares[shares > 0]
    return float(-(shares * numpy.log2(shares)).sum()) + 0.0
