"""Argument types of both converters: partitions, positive numbers, the shares of a split."""

import argparse


def partition(text: str) -> tuple[int, int]:
    """(I, N) of "I/N". ValueError unless 0 <= I < N."""
    number, count = map(int, text.split("/"))
    if not 0 <= number < count:
        raise ValueError
    return number, count


def positive(text: str) -> int:
    """A whole number above 0, else ValueError."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def split(text: str) -> str:
    """The text, when it names a split; see shares()."""
    try:
        shares(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text}: give names and shares that make 1, as in train=0.98,val=0.02"
        ) from None
    return text


def shares(text: str) -> dict[str, float]:
    """{"train": 0.98, "val": 0.02} of "train=0.98,val=0.02"; ValueError unless they make 1."""
    found: dict[str, float] = {}
    for share in text.split(","):
        name, value = share.split("=")
        if not name.isidentifier() or name in found or float(value) <= 0:
            raise ValueError
        found[name] = float(value)
    if abs(sum(found.values()) - 1) > 1e-6:
        raise ValueError
    return found
