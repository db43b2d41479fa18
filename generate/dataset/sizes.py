"""Image sizes: one for all, or a mix from which each image gets one.

size_from("1024x768")                         # (768, 1024): height, width
mix = Mix.from_text("1024x1024:0.5,1344x768:0.25,768x1344:0.25")
mix.size(run_seed=0, index=12345, aug=3)      # the same on every machine
"""

import hashlib
import math
from dataclasses import dataclass

LARGEST = 65536  # pixels of a side
EXAMPLE = "1024x1024:0.5,1344x768:0.25,768x1344:0.25"

Size = tuple[int, int]  # (height, width), pixels


def size_from(text: str) -> Size:
    """(height, width) of "WIDTHxHEIGHT". ValueError if it is none."""
    words = text.lower().split("x")
    if len(words) == 2 and all(word.isdecimal() and word.isascii() for word in words):
        width, height = int(words[0][:9]), int(words[1][:9])
        if 0 < width <= LARGEST and 0 < height <= LARGEST:
            return height, width
    raise ValueError(f"{text[:80]!r} is no size: expected width x height, 1024x768")


def words_of(size: Size) -> str:
    """ "1024x768", width first."""
    return f"{size[1]}x{size[0]}"


@dataclass(frozen=True)
class Mix:
    """Sizes and their shares of all images, which add up to 1."""

    sizes: tuple[Size, ...]
    shares: tuple[float, ...]

    @classmethod
    def from_text(cls, text: str) -> "Mix":
        """Parse a mix. Shares are relative to their sum; without one: 1. ValueError: it is none."""
        sizes: list[Size] = []
        weights: list[float] = []
        for part in text.split(","):
            size, _, share = part.strip().partition(":")
            sizes.append(size_from(size))
            try:
                weight = float(share or 1)
            except ValueError:
                weight = math.nan
            if not 0 < weight < math.inf:
                raise ValueError(f"{part[:80]!r}: the share is no number above 0; as in {EXAMPLE}")
            weights.append(weight)
        if len(set(sizes)) < len(sizes):
            raise ValueError(f"{text[:80]!r} names a size twice")
        return cls(tuple(sizes), tuple(weight / sum(weights) for weight in weights))

    def text(self) -> str:
        """As an option and a definition have it."""
        pairs = zip(self.sizes, self.shares, strict=True)
        return ",".join(f"{words_of(size)}:{share:.6g}" for size, share in pairs)

    @property
    def largest(self) -> Size:
        """The size of the most pixels."""
        return max(self.sizes, key=lambda size: size[0] * size[1])

    def size(self, run_seed: int, index: int, aug: int) -> Size:
        """The size of one image. It depends on run seed, prompt and augmentation only."""
        digest = hashlib.sha256(f"size:{run_seed}:{index}:{aug}".encode()).digest()
        point = int.from_bytes(digest[:8], "big") / 2**64
        for size, share in zip(self.sizes, self.shares, strict=True):
            point -= share
            if point < 0:
                return size
        return self.sizes[-1]  # the shares' sum was rounded
