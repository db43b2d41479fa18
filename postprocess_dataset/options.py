"""Argument types of the converters, and the options that several scripts take."""

import argparse
import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.expression import option
from common.number_options import LARGEST_SEED, MOST_PARTS, MOST_PROCESSES, whole

MOST_MB = 10**6  # of a shard
SPLIT = re.compile(r"[^\W\d]\w*")  # part of the names of files, which are told by \w


def partition(text: str) -> tuple[int, int]:
    """(I, N) of "I/N"; for argparse."""
    with contextlib.suppress(ValueError):
        number, count = map(int, text.split("/"))
        if 0 <= number < count <= MOST_PARTS:
            return number, count
    raise argparse.ArgumentTypeError(
        f"{text[:30]} is no part I/N with 0 <= I < N <= {MOST_PARTS:,}"
    )


def split(text: str) -> str:
    """The text, when it names a split; see shares()."""
    if not is_split(text):
        raise argparse.ArgumentTypeError(
            f"{text}: give names of letters, digits and _ (no digit in front), at most 100 bytes "
            "each, and shares that make 1, as in train=0.98,val=0.02"
        )
    return text


def is_split(value: object) -> bool:
    """Whether it is a text that names a split."""
    try:
        return isinstance(value, str) and bool(shares(value))
    except ValueError:
        return False


def shares(text: str) -> dict[str, float]:
    """{"train": 0.98, "val": 0.02} of "train=0.98,val=0.02"; ValueError unless they make 1."""
    found: dict[str, float] = {}
    for share in text.split(","):
        name, value = share.split("=")
        if not SPLIT.fullmatch(name) or len(name.encode()) > 100 or name in found:
            raise ValueError
        if not float(value) > 0:  # nan is not
            raise ValueError
        found[name] = float(value)
    if not abs(sum(found.values()) - 1) <= 1e-6:
        raise ValueError
    return found


def forms(text: str) -> list[str]:
    """The forms of "webdataset,parquet"."""
    found = text.split(",")
    if set(found) - {"webdataset", "parquet"}:
        raise argparse.ArgumentTypeError(f"{text}: give webdataset, parquet, or both with a comma")
    return found


@dataclass(frozen=True)
class DataOptions:
    """Of a release's data, as add_data_options() reads them."""

    forms: Sequence[str] = ("webdataset", "parquet")
    split: str | None = None
    shuffle_seed: int | None = None
    shard_size_mb: int = 500
    workers: int = 1
    where: str | None = None  # only the rows that fulfil it
    scores: str | None = None  # a table of scores, for `where` and to be published
    c2pa: Sequence[str] = ()  # PEM files: the certificate chain, its key

    @property
    def inputs(self) -> list[str]:
        """Files and folders that a release is made of beside its table."""
        return [*self.c2pa, *([self.scores] if self.scores else [])]

    @classmethod
    def of(cls, args: Any) -> "DataOptions":
        """As they were parsed."""
        return cls(
            forms=args.form,
            split=args.split,
            shuffle_seed=args.shuffle_seed,
            shard_size_mb=args.shard_size_mb,
            workers=args.num_workers,
            where=args.where,
            scores=args.scores,
            c2pa=args.c2pa,
        )


def add_data_options(group: argparse._ActionsContainer) -> None:
    """What a release's data is: DataOptions."""
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
        help="split by prompt: all images of a prompt go to one side",
    )
    group.add_argument("--shuffle_seed", type=whole(0, LARGEST_SEED), help="shuffle the rows")
    group.add_argument(
        "--shard_size_mb",
        type=whole(1, MOST_MB),
        default=500,
        help="at most so many MB (10**6 bytes) a shard (default: %(default)s)",
    )
    group.add_argument(
        "--num_workers",
        type=whole(1, MOST_PROCESSES),
        default=min(8, len(os.sched_getaffinity(0))),
        help="processes (default: %(default)s)",
    )
    add_where_option(group)
    group.add_argument(
        "--scores",
        metavar="FOLDER",
        help="the table of score_images.py: for --where, and published beside the rows",
    )
    group.add_argument(
        "--c2pa",
        metavar=("CERT.pem", "KEY.pem"),
        nargs="+",
        action=Chain,
        default=(),
        help="sign each JPEG: its bytes change (a PEM file may hold both; "
        "requirements-c2pa.txt has the package)",
    )


class Chain(argparse.Action):
    """One or two files."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if len(values) > 2:
            parser.error(f"{option_string} takes CERT.pem and KEY.pem; give it behind all folders")
        setattr(namespace, self.dest, values)


def add_where_option(group: argparse._ActionsContainer) -> None:
    """--where, over the columns of a table and scores."""
    group.add_argument(
        "--where",
        type=option,
        metavar="EXPRESSION",
        help='only such rows: "score_clip > 0.28 and width >= 512", see docs/score-images.md',
    )


def add_image_options(parser: argparse._ActionsContainer) -> None:
    """--base_dir, --image_dir: where the images of a table lie."""
    parser.add_argument(
        "--base_dir", default="", help="where the images lie (default: as the table says)"
    )
    parser.add_argument(
        "--image_dir",
        metavar="DIR",
        action="append",
        default=[],
        help="image_path and links may lead into this folder, too (repeatable)",
    )


def add_licence_option(parser: argparse._ActionsContainer) -> None:
    """--licence, repeatable."""
    parser.add_argument(
        "--licence",
        metavar="NAME=LICENCE",
        action="append",
        default=[],
        help="the licence of a source, an LLM or a model that is not known here (repeatable)",
    )


def add_status_option(parser: argparse._ActionsContainer) -> None:
    """--status, for the report."""
    parser.add_argument(
        "--status",
        metavar="STATUS.json",
        default="",
        help="what image_server.py --status --json printed: tokens, USD, failed prompts",
    )


def add_about_option(parser: argparse._ActionsContainer) -> None:
    """--about, for the card."""
    parser.add_argument(
        "--about",
        metavar="ABOUT.yaml",
        default="",
        help="what only the author knows: title, repo, authors, motivation, … (docs/release.md)",
    )


def add_allow_option(parser: argparse._ActionsContainer) -> None:
    """--allow, for verification."""
    parser.add_argument(
        "--allow",
        metavar="KIND,KIND",
        type=words,
        default=[],
        help="kinds of findings that are named, and do not count against the data set",
    )


def words(text: str) -> list[str]:
    """The words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
