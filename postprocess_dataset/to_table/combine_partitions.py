"""`--finish`: combine the partitions of a table.

OUTPUT.parts/part-00000-of-00064.parquet, .state    a partition and its done mark
OUTPUT/part-00000.parquet                           the table: a directory of N files, sorted
                                                    and numbered as one run would
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from common.command_line import DONE, LEFT_OUT, UserError
from common.console import visible
from common.files import sync_folder
from common.json_text import parse_json
from postprocess_dataset import increment, sorted_rows, table
from postprocess_dataset.increment import Line
from postprocess_dataset.progress import Progress, tell
from postprocess_dataset.publish import Draft

PART = re.compile(r"part-[0-9]{5,}\.parquet")


def finish(output: str, folders: Sequence[str], count: int) -> tuple[int, str]:
    """Put `count` partitions of `folders` together in a directory of part files.

    Returns the exit status and a summary.
    """
    with Draft(f"{output}.finish"):  # its lock alone
        return _finish(output, folders, count)


def forget(output: str, number: int, count: int) -> None:
    """Remove the done mark of a partition that begins: one of an earlier array does not count."""
    mark = f"{table.partition_path(output, number, count)}.state"
    if os.path.lexists(mark):
        os.unlink(mark)
        sync_folder(os.path.dirname(mark))


def _finish(output: str, folders: Sequence[str], count: int) -> tuple[int, str]:
    folder = f"{output}.parts"
    fresh, old, used = (_beside(output, word) for word in ("fresh", "old", "used"))
    if os.path.isdir(old) and not os.path.lexists(output):
        os.rename(old, output)  # a call before this one was killed between its two renames
    for leftover in (fresh, old, used):
        shutil.rmtree(leftover, ignore_errors=True)
    if os.path.isdir(output) and not os.path.exists(folder):
        return put_together_before(output)
    paths = [table.partition_path(output, number, count) for number in range(count)]
    facts = facts_of(output, folders, paths)
    lines = rejects_of(paths)
    rejected = sum("json" in line for line in lines)
    total = sum(sum(fact["generations"]) for fact in facts)
    if not total:
        increment.save_lines(f"{output}.rejects.jsonl", lines)
        raise UserError(
            f"{output} was not published: no good sample in {count} parts; {rejected:,} rejected "
            f"(see {output}.rejects.jsonl)"
        )
    os.mkdir(fresh)
    write_rows(paths, fresh, total, facts[0])
    if os.path.exists(output):
        os.rename(output, old)
    os.rename(fresh, output)
    shutil.rmtree(old, ignore_errors=True)
    for line in increment.keep_others(output):
        tell(line)
    publish_what_is_beside(output, lines, paths)
    os.rename(folder, used)  # from here on it is done
    shutil.rmtree(used)
    return LEFT_OUT if rejected else DONE, (
        f"{output}: {total:,} rows of {count} parts; {rejected:,} rejected, "
        f"{len(lines) - rejected:,} images without JSON"
    )


def _beside(output: str, word: str) -> str:
    folder, name = os.path.split(output)
    return os.path.join(folder, f".{name}.{word}")


def put_together_before(output: str) -> tuple[int, str]:
    """The same command again, after it was done: print the counts."""
    lines = increment.load_lines(f"{output}.rejects.jsonl", "json", "image")
    rejected = sum("json" in line for line in lines)
    rows = sum(table.footer(path).num_rows for path in table.files(output))
    summary = f"{output}: {rows:,} rows, put together before; {rejected:,} rejected"
    return LEFT_OUT if rejected else DONE, summary


def facts_of(output: str, folders: Sequence[str], paths: Sequence[str]) -> list[dict[str, Any]]:
    """The facts of the partitions. UserError unless all are there and of these folders."""
    count = len(paths)
    missing = [str(n) for n, path in enumerate(paths) if not os.path.exists(f"{path}.state")]
    if missing:
        raise UserError(
            f"{output}: {len(missing)} of {count} parts are missing: {', '.join(missing[:20])}; "
            f"run --part {missing[0]}/{count} … and --finish again"
        )
    if os.path.isfile(output):
        raise UserError(
            f"{output} is a file; a table of parts is a directory: remove it or give another name"
        )
    refuse_other_files(output)
    facts = [fact for path in paths if (fact := table.facts(path)) is not None]
    made = [[fact.get(name) for name in ("base", "relative", "scores")] for fact in facts]
    alike = all(options == made[0] for options in made)
    same = all(fact.get("folders") == sorted(folders) for fact in facts)
    if len(facts) < count or not alike or not same:
        raise UserError(
            f"{output}: the parts were made of different folders or with different options, or of "
            "other folders than were given now; make them anew"
        )
    return facts


def refuse_other_files(output: str) -> None:
    """UserError if a folder lies there that is no table of parts: it would be removed."""
    if not os.path.isdir(output):
        return
    names = sorted(name for name in os.listdir(output) if name[0] != ".")
    others = [name for name in names if not PART.fullmatch(name)]
    if others or (names and table.facts(output) is None):
        raise UserError(
            f"{output} holds {visible((others or names)[0])}, which is no part of a table of this "
            "script: move it to another folder"
        )


def rejects_of(paths: Sequence[str]) -> list[Line]:
    """The rejects of all partitions, each once: every partition lists the unreadable folders."""
    unique = {
        json.dumps(line)
        for path in paths
        for line in increment.load_lines(f"{path}.rejects.jsonl", "json", "image")
    }
    return [parse_json(line) for line in sorted(unique)]


def write_rows(paths: Sequence[str], folder: str, total: int, facts: dict[str, Any]) -> None:
    """The rows of all partitions, sorted and numbered, to as many files in `folder`."""
    size = -(-total // len(paths))
    note = {name: value for name, value in facts.items() if name not in ("generations", "folders")}
    rows = Rows(paths)
    progress = Progress("samples", total)
    for first in range(0, total, size):
        with Draft(os.path.join(folder, f"part-{first // size:05d}.parquet")) as draft:
            writer = sorted_rows.RowWriter(draft, note, first)
            for piece in rows.take(min(size, total - first)):
                writer.write(piece)
                progress.add(piece.num_rows)
            writer.close([] if first else [total])
            draft.publish()
    progress.close()


class Rows:
    """The rows of several sorted files in one order, taken a number at a time."""

    def __init__(self, paths: Sequence[str]) -> None:
        batch = sorted_rows.MERGE_BATCH
        self.pieces = sorted_rows.merge(
            [table.read_rows([path], batch_size=batch) for path in paths]
        )
        self.rest: pa.Table | None = None

    def take(self, count: int) -> Iterator[pa.Table]:
        """Tables that together are the next `count` rows."""
        while count:
            piece = self.rest or next(self.pieces)
            taken = piece.slice(0, count)
            self.rest = piece.slice(count) if taken.num_rows < piece.num_rows else None
            count -= taken.num_rows
            yield taken


def publish_what_is_beside(output: str, lines: list[Line], paths: Sequence[str]) -> None:
    """The lists and the state of the table that now stands; see increment.py."""
    no_lines: list[Line] = []
    for path, content in ((f"{output}.rejects.jsonl", lines), (f"{output}.gone.jsonl", no_lines)):
        if content:
            increment.save_lines(path, content)
        elif os.path.exists(path):
            os.unlink(path)
    states = [increment.load_state(path) for path in paths]
    mtimes: dict[str, int] = {}
    for state in states:
        for subdirectory, mtime in state["folders"].items():
            mtimes[subdirectory] = min(mtime, mtimes.get(subdirectory, mtime))
    increment.save_state(output, min(state["scanned_ns"] for state in states), mtimes)
