"""All tars of a table, one partition of them, or the check that all are there.

status = make_tars(TarSettings("HPDv2.parquet", "/data", "tars", workers=8))
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from common.command_line import DONE, LEFT_OUT, UserError
from common.console import amount
from postprocess_dataset import increment, shard_rows, table
from postprocess_dataset.progress import first_line, tell
from postprocess_dataset.publish import Draft, refuse_samples
from postprocess_dataset.shard_images import check_folders
from postprocess_dataset.to_tars import shard_files, shard_plan, tars_readme
from postprocess_dataset.to_tars.shard_files import Stats
from postprocess_dataset.to_tars.shard_plan import Plan, Shard, ShardSizes
from postprocess_dataset.to_tars.tar_settings import TarSettings, in_tar_order
from postprocess_dataset.to_tars.tar_workers import write

GO_ON = "finished shards stay, the same command goes on from there"


def make_tars(settings: TarSettings) -> int:
    """Do what was asked for, and say how the tars are loaded; the exit status."""
    try:
        status, summary = convert(settings)
        hints = []
        if settings.finish or not settings.partition:
            hints = tars_readme.explain(settings.output, settings.shuffle_seed is not None)
    except OSError as error:
        where = "" if error.filename else f"{settings.output}: "
        raise UserError(f"{where}{error}; {GO_ON}") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{settings.table} cannot be read: {first_line(error)}") from None
    tell(summary)
    for line in hints:
        tell(line)
    return status


def convert(settings: TarSettings) -> tuple[int, str]:
    """All shards, or one partition of them, or the check that all are there.

    Returns the exit status and what was done.
    """
    output = settings.output
    files = table.files(settings.table)
    check_folders([settings.base_dir, *settings.image_dirs])
    refuse_samples(output)
    os.makedirs(output, exist_ok=True)
    shard_rows.check_columns(files)
    if settings.where:
        settings.where.check(files)
    lines = increment.load_lines(f"{settings.table.rstrip('/')}.gone.jsonl", "__key__")
    deleted = {line["__key__"] for line in lines}
    plan = plan_of(settings, files, deleted)
    shards: list[Shard] = plan["shards"]
    images = settings.images()
    done = {shard["name"]: shard_files.stats_of(output, shard, images) for shard in shards}
    number, count = settings.partition or (0, 1)
    mine = shards[number::count]
    todo = [shard for shard in mine if not done[shard["name"]]]
    if settings.finish:
        mine = shards
        all_there(output, [shard["name"] for shard in shards], done)
        todo = []
    elif todo:
        done.update(write(settings, plan, todo, deleted))
    stats = [found for shard in mine if (found := done[shard["name"]])]
    if settings.finish or not settings.partition:
        shard_files.write_index(output, stats, where_of(settings, plan))
        shutil.rmtree(settings.rows_folder, ignore_errors=True)
    left_out = sum(len(shard["left_out"]) for shard in stats)
    dropped = sum(shard["gone"] for shard in stats)
    without = f", {dropped:,} deleted" if dropped else ""
    if settings.where:
        without += f"; --where takes {plan['kept'][0]:,} of {plan['rows']:,} rows"
    status = LEFT_OUT if left_out else DONE
    return status, (
        f"{output}: {len(stats):,} shard{'s' * (len(stats) != 1)} ({len(todo):,} written now), "
        f"{sum(shard['nsamples'] for shard in stats):,} images, "
        f"{amount(sum(shard['filesize'] for shard in stats))}; "
        f"{left_out:,} left out{without}"
    )


def where_of(settings: TarSettings, plan: Plan) -> dict[str, Any] | None:
    """The entry of index.json about the filter, so that others can repeat it."""
    if not settings.where:
        return None
    return {
        "expression": settings.where.text,
        "scores": settings.where.versions(),
        "rows": plan["rows"],
        "taken": plan["kept"][0],
        "refused": plan["rows"] - plan["kept"][0],
    }


def all_there(output: str, names: Sequence[str], done: Mapping[str, Stats | None]) -> None:
    """UserError unless every shard is done."""
    missing = [name for name in names if not done[name]]
    if missing:
        more = " …" if len(missing) > 5 else ""
        raise UserError(
            f"{output}: {len(missing)} of {len(names)} shards are missing "
            f"({', '.join(missing[:5])}{more}); run the missing --part again, then --finish"
        )


def plan_of(settings: TarSettings, files: Sequence[str], deleted: set[str]) -> Plan:
    """The plan as it is on disk, or made or grown now.

    UserError when the folder's shards are of another table or other options.
    """
    identity = table.identity(settings.table)
    old = load_plan(settings)
    if old and old["identity"] == identity and not settings.anew:
        check_kept(settings, files, old)
        return old
    # of many partitions that start at once, one makes the plan
    with Draft(shard_plan.plan_path(settings.output), wait=True) as draft:
        old = load_plan(settings)
        if old and old["identity"] == identity and not settings.anew:
            return old
        kept = None if settings.anew else old
        plan = new_plan(settings, files, kept, deleted) | {"identity": identity}
        names = {shard["name"] for shard in plan["shards"]}
        for shard in old["shards"] if old else ():
            if shard["name"] not in names:  # a plan that got shorter: its last images are deleted
                shard_files.remove(settings.output, shard)
        draft.file.write(json.dumps(plan).encode())
        draft.publish()
        return plan


def load_plan(settings: TarSettings) -> Plan | None:
    """The plan on disk. UserError when it was made with other options."""
    old = shard_plan.load_plan(settings.output)
    for name, value in settings.plan_options().items():
        # an older plan has no --where
        if old and (was := old["options"].get(name)) != value:
            raise UserError(
                f"{settings.output} was written with --{name} {was}, now it is "
                f"{value}; choose an empty --output_dir"
            )
    return old


def new_plan(
    settings: TarSettings, files: Sequence[str], old: Plan | None, deleted: set[str]
) -> Plan:
    """A plan of all rows, without the identity; the shards of `old` keep their place."""
    rows = sum(table.footer(path).num_rows for path in files)
    if not rows:
        raise UserError(f"{settings.table}: the table has no rows")
    before = old["rows"] if old else 0
    digests = shard_rows.digest_rows(files, [rows, before] if rows > before else [rows])
    if old and digests.get(before) != old["digest"]:
        raise UserError(
            f"{settings.output} holds shards of another table: its {before:,} rows are not the "
            f"first of {settings.table} ({rows:,} rows); choose an empty --output_dir"
        )
    shard_rows.check_unique(files)
    if old:
        check_kept(settings, files, old)
    kept_rows = settings.where.kept(files, rows) if settings.where else (rows, "")
    if not kept_rows[0]:
        raise UserError(f"--where {settings.where and settings.where.text!r} takes no row")
    generations = generations_of(settings.table, rows, old)
    kept: list[Shard] = old["shards"] if old else []
    if rows > before:
        last = {shard["split"]: shard for shard in kept}
        # the last one of a split may not be full
        kept = [shard for shard in kept if shard is not last[shard["split"]]]
        shutil.rmtree(settings.rows_folder, ignore_errors=True)
        sizes = ShardSizes(settings.shard_size_mb, settings.images(), deleted)
        kept = sizes.shards(in_tar_order(settings, files, generations), kept)
    return {
        "rows": rows,
        "digest": digests[rows],
        "options": settings.plan_options(),
        "generations": generations,
        "kept": kept_rows,
        "shards": kept,
    }


def check_kept(settings: TarSettings, files: Sequence[str], old: Plan) -> None:
    """UserError if --where takes other rows than when the plan was made."""
    if settings.where and list(settings.where.kept(files, old["rows"])) != old["kept"]:
        raise UserError(
            f"{settings.output}: the scores have changed since it was begun, and --where takes "
            "other rows now; choose an empty --output_dir"
        )


def generations_of(path: str, rows: int, old: Plan | None) -> list[int]:
    """Rows of the first conversion and of each update; each of these is shuffled by itself.

    For its own rows an earlier plan, `old`, decides.
    """
    facts = table.facts(path)
    before: list[int] = old["generations"] if old else []
    noted = [rows]
    if facts and sum(facts["generations"]) == rows:
        noted = facts["generations"]
    if noted[: len(before)] == before:
        return noted
    more = rows - sum(before)
    return [*before, more] if more else before
