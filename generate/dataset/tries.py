"""Seeds whose images were not accepted, kept so that a later client does not try them again.

    note(dataset_dir, index, lease, aug, tried)          # one line in .12345.tries.<lease>.tmp
    tries = take_over(dataset_dir, index, lease, names)  # {3: [Tried, …]}: what earlier holders saw
    publish_not_accepted(dataset_dir, index, lease, aug, tries)      # the last one: given up
    not_accepted(dataset_dir, index, aug)                # what such a .failed tells
    forget(dataset_dir, index, lease)                    # all of the index is published

They lie in a temporary file of the lease's holder, which every reader of the folder ignores. It is
not fsynced: if a node crashes, some seeds are tried again.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.files import open_plain
from common.given_up import read_given_up
from common.json_text import parse_json
from common.untrusted import Refused, read_untrusted
from generate.dataset.captions import MOST_IMAGES
from generate.dataset.layout import folder_name, path_of
from generate.dataset.links import remove
from generate.dataset.samples import give_up

MOST_ATTEMPTS = 1_000_000  # of a caption: its images that are black or the like count, too
MOST_SEEDS = 1 << 64  # and scores that are whole numbers
LARGEST = 16 << 20  # bytes of a file: 200 images with 100 tries each take 5 MB
NOT_ACCEPTED = "not accepted"  # the reason in a .failed
NAME = re.compile(r"\.(0|[1-9][0-9]*)\.tries\..*\.tmp")


@dataclass(frozen=True)
class Tried:
    """An image that was not accepted."""

    attempt: int  # which of the caption's seeds, from 0
    seed: int
    scores: dict[str, float | None]


def note(
    dataset_dir: str | os.PathLike[str], index: int, lease: str, aug: int, tried: Tried
) -> None:
    """Append one try. OSError: the disk."""
    path = _path(dataset_dir, index, lease)
    path.parent.mkdir(parents=True, exist_ok=True)
    # one write: a kill leaves a whole line or none
    with open(path, "ab", buffering=0, opener=open_plain) as file:
        file.write(_line(aug, tried))


def take_over(
    dataset_dir: str | os.PathLike[str],
    index: int,
    lease: str,
    names: Iterable[str],
    opened: Mapping[int, Sequence[Tried]] | None = None,
) -> dict[int, list[Tried]]:
    """The tries in the index's temporary files `names`, by augmentation, in order of attempts.

    opened: the tries of captions that were given up and are open again. All of them are written to
    this lease's own file before the earlier files are removed. A torn line is skipped.
    """
    folder = Path(dataset_dir) / folder_name(index)
    found = {(aug, one.attempt): one for aug, ones in (opened or {}).items() for one in ones}
    for name in names:
        if (match := NAME.fullmatch(name)) and int(match[1]) == index:
            found |= _read(folder / name)
    if found:
        text = b"".join(_line(aug, tried) for (aug, _), tried in sorted(found.items()))
        path = _path(dataset_dir, index, lease)
        remove(path)
        with open(path, "xb") as file:
            file.write(text)
    tries: dict[int, list[Tried]] = {}
    for (aug, _), tried in sorted(found.items()):
        tries.setdefault(aug, []).append(tried)
    return tries


def forget(dataset_dir: str | os.PathLike[str], index: int, lease: str) -> None:
    """Remove this lease's file of an index that is finished."""
    remove(_path(dataset_dir, index, lease))


def publish_not_accepted(
    dataset_dir: str | os.PathLike[str], index: int, lease: str, aug: int, tries: list[Tried]
) -> bool:
    """Mark a caption as given up, which is no fault of prompt or worker. OSError: the disk."""
    why = {
        "reason": NOT_ACCEPTED,
        "error": f"none of {len(tries)} images was accepted",
        "rejected": [{"seed": tried.seed, "scores": tried.scores} for tried in tries],
    }
    return give_up(dataset_dir, index, aug, lease, why)


def not_accepted(dataset_dir: str | os.PathLike[str], index: int, aug: int) -> list[Tried] | None:
    """The images of a caption that was given up, by its .failed; attempt: counted from 0.

    None: it was given up for another reason, or its .failed is gone or not to be read.
    """
    try:
        record = read_given_up(path_of(dataset_dir, index, aug, ".failed"))
        if record["reason"] != NOT_ACCEPTED:
            return None
        rejected = [(each["seed"], each["scores"]) for each in record["rejected"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if not all(
        type(seed) is int and 0 <= seed < MOST_SEEDS and _are_scores(scores)
        for seed, scores in rejected
    ):
        return None
    return [Tried(number, *each) for number, each in enumerate(rejected)]


def by_seed(tries: Sequence[Tried], seed: Callable[[int], int]) -> list[Tried]:
    """The same with the attempts that their seeds belong to; seed: of an attempt.

    Attempts whose image was black or the like are in no .failed: at most one before each entry. A
    seed of no attempt is left out, so it is tried again.
    """
    attempts = {seed(attempt): attempt for attempt in range(2 * len(tries))}
    return [
        replace(tried, attempt=attempts[tried.seed]) for tried in tries if tried.seed in attempts
    ]


def _path(dataset_dir: str | os.PathLike[str], index: int, lease: str) -> Path:
    return Path(dataset_dir) / folder_name(index) / f".{index}.tries.{lease}.tmp"


def _line(aug: int, tried: Tried) -> bytes:
    record = {"aug": aug, "attempt": tried.attempt, "seed": tried.seed, "scores": tried.scores}
    return json.dumps(record).encode() + b"\n"


def _read(path: Path) -> dict[tuple[int, int], Tried]:
    """{(augmentation, attempt): Tried} of one file; {} if it cannot be read."""
    found = {}
    try:
        lines = read_untrusted(path, LARGEST).splitlines()
    except (FileNotFoundError, Refused):
        return {}
    for line in lines:
        try:
            record = parse_json(line)
            aug, attempt, seed = (record[key] for key in ("aug", "attempt", "seed"))
        except (ValueError, TypeError, KeyError):
            continue
        scores = record.get("scores")
        numbers = ((aug, MOST_IMAGES), (attempt, MOST_ATTEMPTS), (seed, MOST_SEEDS))
        if all(type(n) is int and 0 <= n < most for n, most in numbers) and _are_scores(scores):
            found[aug, attempt] = Tried(attempt, seed, scores)
    return found


def _are_scores(scores: Any) -> bool:
    return isinstance(scores, dict) and all(
        value is None or type(value) is float or (type(value) is int and abs(value) < MOST_SEEDS)
        for value in scores.values()
    )
