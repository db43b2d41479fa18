"""Read, clean, deduplicate and write one source: what the five processors share."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from combine_prompts.cleaning import Repair, clean_row
from combine_prompts.prompt_files import LONGEST, name_problems, one_line, write_output
from common.command_line import UserError

NAMED = 3  # bad rows of a kind that are named one by one

Read = Callable[[Path], Iterable[tuple[int, Any]]]  # (row number, text as str or bytes, or None)


@dataclass(frozen=True)
class Job:
    """How a source is read, and where its prompts go."""

    output: Path
    ascii: bool
    read: Read
    repair: Repair | None = None
    # further sources of a file's prompts, by its name: they stand in the items
    sources: Mapping[str, list[str]] = field(default_factory=dict)


def local_files(inputs: Sequence[str], patterns: Sequence[str]) -> tuple[list[Path], list[str]]:
    """(files, problems) of `inputs`: files, or folders searched for `patterns` in their order."""
    files: list[Path] = []
    problems = []
    for given in map(Path, inputs):
        if given.is_dir():
            for pattern in patterns:
                found = sorted(path for path in given.rglob(pattern) if path.is_file())
                files += [path for path in found if path not in files]
                if not found:
                    problems.append(f"{given}: no {pattern} in this folder")
        elif given.is_file():
            files.append(given)
        elif given.exists():
            problems.append(f"{given}: a device or a pipe, not a file")
        else:
            problems.append(f"{given}: no such file or folder")
    return files, problems


def process(job: Job, files: Iterable[Path], problems: Iterable[str]) -> int:
    """Read, clean, deduplicate and write one source, and print the table of what happened.

    Returns the exit status: LEFT_OUT when something was left out, each named on stderr.
    """
    prompts = SourcePrompts(job, list(problems))
    for path in files:
        prompts.add_file(path)
    prompts.name_the_rest()
    if not prompts.kept:
        raise UserError("; ".join(["no prompts to write", *prompts.problems]))
    items = [
        {"prompt": prompt, "source": sources} if sources else prompt
        for prompt, sources in prompts.kept.items()
    ]
    lines = [json.dumps(item, ensure_ascii=False) for item in items]
    write_output(job.output, "[\n" + ",\n".join(lines) + "\n]\n")
    print_table(prompts.counts())
    print(f"wrote {job.output}")
    return name_problems(prompts.problems)


class SourcePrompts:
    """The prompts of a source in the order they were read, and what happened to its rows."""

    def __init__(self, job: Job, problems: list[str]) -> None:
        self.job = job
        self.problems = problems
        self.kept: dict[str, Sequence[str]] = {}  # prompt: its further sources
        self._seen: set[str] = set()
        self._read = 0
        self._changed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._bad_rows: Counter[str] = Counter()

    def add_file(self, path: Path) -> None:
        """Add the rows of a file; what is wrong with it goes to `problems`."""
        for row, text in rows(path, self.job.read, self.problems):
            self._read += 1
            if why := why_unreadable(text):
                self._dropped[why] += 1
                if text is not None:
                    self._bad_rows[why] += 1
                    if self._bad_rows[why] <= NAMED:
                        self.problems.append(f"{path}: row {row}: {why}")
            else:
                plain = text.decode() if isinstance(text, bytes) else text
                self._add(plain, self.job.sources.get(path.name, ()))

    def _add(self, text: str, sources: Sequence[str]) -> None:
        if text in self._seen:
            self._dropped["duplicate"] += 1
            return
        self._seen.add(text)
        cleaned, reason, rules = clean_row(text, self.job.ascii, self.job.repair)
        self._changed.update(rules)
        if reason is None and cleaned in self.kept:
            reason = "duplicate after cleaning"
        if reason:
            self._dropped[reason] += 1
        else:
            self.kept[cleaned] = sources

    def name_the_rest(self) -> None:
        """Count the bad rows that were not named one by one."""
        self.problems += [
            f"{count - NAMED:,} more rows: {why}"
            for why, count in self._bad_rows.items()
            if count > NAMED
        ]

    def counts(self) -> list[tuple[str, int]]:
        """The table: read, changed by which rule, dropped for which reason, kept."""
        changed = [(f"changed: {rule}", count) for rule, count in sorted(self._changed.items())]
        dropped = [(f"dropped: {why}", count) for why, count in sorted(self._dropped.items())]
        return [("read", self._read), *changed, *dropped, ("kept", len(self.kept))]


def rows(path: Path, read: Read, problems: list[str]) -> Iterator[tuple[int, Any]]:
    """The rows of a file; what a library says of a broken one goes to `problems`."""
    row = None
    try:
        for row, text in tqdm(
            read(path), desc=path.name, unit=" rows", disable=None, mininterval=1, leave=False
        ):
            yield row, text
    except Exception as error:  # OSError, ValueError, sqlite3.Error, csv.Error, ArrowException
        if isinstance(error, (MemoryError, ImportError)):
            raise
        where = "cannot be read" if row is None else f"stopped after row {row}"
        problems.append(f"{path}: {where}: {one_line(error)}")


def why_unreadable(text: Any) -> str:
    """Why a row holds no text that can be cleaned; empty if it does."""
    if text is None:
        return "no prompt (null)"
    if not isinstance(text, (str, bytes)):
        return f"not a string ({type(text).__name__})"
    if len(text) > LONGEST:
        return f"longer than {LONGEST:,} characters"
    if isinstance(text, bytes):
        try:
            text.decode()
        except UnicodeDecodeError:
            return "not UTF-8"
    return ""


def print_table(counts: Sequence[tuple[str, int]]) -> None:
    width = max(len(name) for name, _ in counts)
    for name, count in counts:
        print(f"  {name:<{width}}  {count:>12,}")
