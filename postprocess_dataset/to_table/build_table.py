"""The table, one partition of it, or what is new in it.

status = make_table(TableSettings(["/data/HPDv2"], "HPDv2.parquet"))
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from common.command_line import DONE, LEFT_OUT, UserError
from common.untrusted import real_folders
from postprocess_dataset import increment, score_columns, table
from postprocess_dataset.increment import Earlier, Known, Line
from postprocess_dataset.progress import first_line, tell
from postprocess_dataset.publish import Draft
from postprocess_dataset.same_folder import refuse_other_names, refuse_twice
from postprocess_dataset.sample_checks import Checks, is_utf8
from postprocess_dataset.shard_images import check_folders
from postprocess_dataset.sorted_rows import SortedRows
from postprocess_dataset.to_table import combine_partitions
from postprocess_dataset.to_table.conversion import Conversion


@dataclass(frozen=True)
class TableSettings:
    """What convert_json_to_parquet.py was asked for; see its --help."""

    folders: Sequence[str]
    output: str
    verify: str = "exists"
    strict: bool = False
    relative: bool = False
    update: bool = False
    rebuild: bool = False
    partition: tuple[int, int] | None = None
    finish: bool = False
    image_dirs: Sequence[str] = ()  # where images may lie too


@dataclass(frozen=True)
class Target:
    """The table to write, and the one that is there already."""

    output: str  # the table, or a partition's file
    base: str  # the folder below which keys begin
    facts: dict[str, Any] | None  # of the table as it stands
    known: Known | None  # its rows, when they stay


def make_table(settings: TableSettings) -> int:
    """Do what was asked for; the exit status. UserError: the old table stands."""
    output = settings.output
    table.refuse_no_utf8(output)
    try:
        if settings.partition and not settings.finish:
            combine_partitions.forget(output, *settings.partition)
        settings = replace(settings, folders=absolute(settings.folders))
        check_folders(settings.image_dirs)
        os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
        if settings.finish and settings.partition:
            status, summary = combine_partitions.finish(
                output, settings.folders, settings.partition[1]
            )
        else:
            status, summary = build(settings)
    except OSError as error:  # a full disk, a folder without permission
        where = "" if error.filename else f"{output}: "
        raise UserError(f"{where}{error}; nothing was published") from error
    except (pa.ArrowException, UnicodeError) as error:
        raise UserError(f"{output}: {first_line(error)}; nothing was published") from None
    if summary:
        tell(summary)
    return status


def absolute(folders: Sequence[str]) -> list[str]:
    """Absolute paths of the DIRs. UserError if one is no folder, or lies in another."""
    found = [os.path.abspath(folder) for folder in folders]
    for given, folder in zip(folders, found, strict=True):
        if not given or not os.path.isdir(folder):  # "" would be the working directory
            raise UserError(f"{given or repr(given)} is not a directory")
        if not is_utf8(folder):
            raise UserError(
                f"{folder!r}: its name is not UTF-8, which a table's text must be; rename it"
            )
    refuse_twice(found)
    return found


def build(settings: TableSettings) -> tuple[int, str]:
    """Make or update the table, or one partition of it. Returns the exit status and a summary."""
    output = settings.output
    exists = os.path.exists(output)
    update = settings.update and exists
    facts = table.facts(output) if exists else None
    base = base_of(settings, facts, update)
    known = None
    old = None
    target = output
    if settings.partition:
        os.makedirs(f"{output}.parts", exist_ok=True)
        target = output = table.partition_path(output, *settings.partition)
    elif update:
        known = Known(output)
        if os.path.isdir(output):
            target = os.path.join(output, f"part-{len(table.files(output)):05d}.parquet")
        else:
            old = output
    scanned_ns = increment.server_time_ns(settings.folders[0], target)
    scores = known.scores if known else score_columns.names_of(settings.folders)
    note = {"base": base, "relative": settings.relative} | ({"scores": scores} if scores else {})
    if settings.partition:
        note["folders"] = sorted(settings.folders)
    with (
        SortedRows(target, note, old, known.rows if known else 0) as rows,
        Draft(f"{output}.rejects.jsonl") as rejects,
    ):
        inside = real_folders([*settings.folders, *settings.image_dirs])
        checks = Checks(base, inside, settings.verify, settings.relative, scores)
        work = Conversion(checks, settings.partition, rows, rejects.file)
        earlier = Earlier(output, known)
        refuse_other_names(settings.folders, base, earlier.folders)
        if earlier.damaged:
            work.progress.say(f"{earlier.damaged}: every folder is looked at again")
        for line in increment.keep_others(output):
            work.progress.say(line)
        deleted = work.every_folder(settings.folders, earlier)
        work.progress.close()
        if not_worth_publishing(work, settings, known):
            return refuse(work, rejects, output, settings)
        publish(work, rejects, Target(output, base, facts, known))
        try:
            publish_notes(work, rejects, deleted, output, scanned_ns)
        except OSError as error:
            raise UserError(
                f"{error}; {output} is published, the lists beside it are not: give the same "
                "command again"
            ) from error
    return LEFT_OUT if work.rejected else DONE, summary(work, output, known, len(deleted))


def base_of(settings: TableSettings, facts: dict[str, Any] | None, update: bool) -> str:
    """The folder below which keys begin: the common parent of the DIRs, or the table's.

    UserError when the table that stands there forbids the request.
    """
    output = settings.output
    if update:
        if facts is None:
            why = f"{output}: not a table of this script, so it cannot be updated"
            raise table.NotUpdatable(why, "choose another name or --rebuild")
        if facts["relative"] != settings.relative:
            how = "with" if facts["relative"] else "without"
            why = f"{output} was made {how} --relative"
            raise table.NotUpdatable(why, "update it the same way, or --rebuild")
    anew = not update and not settings.partition
    if facts is None and anew and not settings.rebuild and os.path.exists(output):
        raise UserError(
            f"{output} was not written by this script and would be replaced; choose another name, "
            "or --rebuild"
        )
    if facts and len(facts["generations"]) > 1 and anew and not settings.rebuild:
        raise UserError(
            f"{output} has grown by --update {len(facts['generations']) - 1} times; run --update "
            "again, or --rebuild to sort it anew (its tars must then be made anew, too)"
        )
    if os.path.isdir(output) and anew:
        raise UserError(
            f"{output} is a directory of part files: --update it, "
            "or make it anew with --part and --finish"
        )
    folders = settings.folders
    base = os.path.dirname(folders[0]) if len(folders) == 1 else os.path.commonpath(folders)
    if update and facts and not settings.relative:
        base = facts["base"]
    for folder in folders:
        if not folder.startswith(os.path.join(base, "")):
            why = f"{folder} lies outside {base}, the base folder of {output}'s keys"
            raise table.NotUpdatable(why)
    return base


def not_worth_publishing(work: Conversion, settings: TableSettings, known: Known | None) -> bool:
    """Whether there are rejects under --strict, or no sample at all. A partition may be empty."""
    if settings.strict and work.rejected:
        return True
    return not work.new and not known and not settings.partition


def refuse(
    work: Conversion, rejects: Draft, output: str, settings: TableSettings
) -> tuple[int, str]:
    """Publish only the list of rejects. UserError if no sample was found at all."""
    if not work.new and not work.rejected:
        raise UserError(
            f"no sample (NAME.json beside NAME.jpg) in {', '.join(settings.folders)}; "
            f"{work.orphans:,} images without JSON; nothing was published"
        )
    # the list is now of this run, so no folder may be skipped by what an earlier one knew
    rejects.publish()
    if os.path.exists(f"{output}.state"):
        os.unlink(f"{output}.state")
    listed = rejected(work, output)
    work.progress.say(f"{output} was not published: {work.new:,} good samples, {listed}")
    return LEFT_OUT if work.rejected else DONE, ""


def publish(work: Conversion, rejects: Draft, target: Target) -> None:
    """Publish the table, if it has new rows. The list of rejects has its room on the disk then."""
    rejects.sync()
    if work.new or not target.known:
        before: list[int] = []
        if target.known and target.facts and not os.path.isdir(target.output):
            before = target.facts["generations"]
        work.rows.publish([*before, work.new])


def publish_notes(
    work: Conversion, rejects: Draft, deleted: list[Line], output: str, scanned_ns: int
) -> None:
    """Publish what belongs to the table that now stands: its lists, and last its state."""
    for path, lines in ((f"{output}.gone.jsonl", deleted), (f"{output}.rejects.jsonl", work.noted)):
        if not lines and os.path.exists(path):
            os.unlink(path)
    if deleted:
        increment.save_lines(f"{output}.gone.jsonl", deleted)
    if work.noted:
        rejects.publish()
    increment.save_state(output, scanned_ns, work.mtimes)


def rejected(work: Conversion, output: str) -> str:
    """2 rejected (see t.parquet.rejects.jsonl)"""
    listed = f" (see {output}.rejects.jsonl)" if work.rejected else ""
    return f"{work.rejected:,} rejected{listed}"


def summary(work: Conversion, output: str, known: Known | None, deleted: int) -> str:
    """What was done, on one line."""
    rows = f"{work.new + (known.rows if known else 0):,} rows"
    if known:
        rows += f", {work.new:,} of them new; {work.skipped:,} folders unchanged"
    orphans = f"{work.orphans:,} images without JSON"
    without = f", {deleted:,} deleted" if deleted else ""
    return f"{output}: {rows}; {rejected(work, output)}, {orphans}{without}"
