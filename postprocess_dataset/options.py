"""Argument types of the converters, and the options of a release's data that two scripts take."""

import argparse
import os


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


def forms(text: str) -> list[str]:
    """The forms of "webdataset,parquet"."""
    found = text.split(",")
    if set(found) - {"webdataset", "parquet"}:
        raise argparse.ArgumentTypeError(f"{text}: give webdataset, parquet, or both with a comma")
    return found


def add_form_options(group: argparse._ActionsContainer) -> None:
    """--form, --split, --shuffle_seed, --shard_size_mb, --num_workers."""
    group.add_argument(
        "--form",
        type=forms,
        default=["webdataset", "parquet"],
        help="webdataset, parquet, or both (default: webdataset,parquet)",
    )
    group.add_argument(
        "--split",
        metavar="train=0.98,val=0.02",
        type=split,
        help="by prompt: all images of a prompt go to one side",
    )
    group.add_argument("--shuffle_seed", type=int, help="shuffle the rows")
    group.add_argument(
        "--shard_size_mb",
        type=positive,
        default=500,
        help="at most so many MB (10**6 bytes) a shard (default: %(default)s)",
    )
    group.add_argument(
        "--num_workers",
        type=positive,
        default=min(8, len(os.sched_getaffinity(0))),
        help="processes (default: %(default)s)",
    )
