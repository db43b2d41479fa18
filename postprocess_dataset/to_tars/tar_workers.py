"""Tars written by worker processes, with one progress for all of them.

done = write(settings, plan, shards, deleted)       # {name: stats}
"""

import os
import sys
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any

from common.command_line import INTERRUPTED, UserError, script_name
from common.console import amount, name_of
from postprocess_dataset import table
from postprocess_dataset.progress import Progress
from postprocess_dataset.publish import Draft
from postprocess_dataset.to_tars import shard_files
from postprocess_dataset.to_tars.shard_files import Source, Stats
from postprocess_dataset.to_tars.shard_plan import Plan, Shard
from postprocess_dataset.to_tars.tar_settings import TarSettings, in_tar_order
from postprocess_dataset.workers import CONTEXT, forked, start

Counter = Any  # a shared integer of multiprocessing
COUNTED: list[Counter] = []  # images and bytes done by all workers, for the progress
SHOWN = 5  # images left out of a shard that are named on the terminal


def write(
    settings: TarSettings, plan: Plan, todo: list[Shard], deleted: set[str]
) -> dict[str, Stats]:
    """{name: stats} of the shards `todo`.

    UserError, after all others are written, for those without any usable image.
    """
    with Draft(os.path.join(settings.output, ".rows.lock"), wait=True):
        order = in_tar_order(settings, table.files(settings.table), plan["generations"])
    counters = CONTEXT.Value("q", 0), CONTEXT.Value("q", 0)
    workers = min(settings.workers, len(todo))
    progress = Progress("images", sum(shard["stop"] - shard["start"] for shard in todo))
    with pool_of(workers, counters) as pool:
        try:
            futures = set()
            for shard in todo:
                source = Source(order[shard["split"]], settings.images(), deleted)
                futures.add(start(pool, one_shard, settings, shard, source, plan["identity"]))
            stats = gather(settings.output, futures, progress, counters)
        except KeyboardInterrupt:
            print(
                f"{script_name()}: interrupted; finished shards stay, "
                "the same command goes on from there",
                file=sys.stderr,
                flush=True,
            )
            os._exit(INTERRUPTED)  # without waiting for the shards that are being written
        finally:
            progress.close()
    empty = [found["name"] for found in stats if not found["nsamples"]]
    if empty:
        more = " …" if len(empty) > 5 else ""
        raise UserError(
            f"{settings.output}: no image of {', '.join(empty[:5])}{more} can be taken (reasons "
            "above); the other shards are written. Put the images back and run it again, "
            "or --rebuild the table and choose an empty --output_dir"
        )
    return {found["name"]: found for found in stats}


def gather(
    output: str, futures: set[Future[Stats]], progress: Progress, counters: tuple[Counter, Counter]
) -> list[Stats]:
    """The stats of all shards; what is done and what is left out is shown on the way."""
    images, size = counters
    found = []
    while futures:
        finished, futures = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
        progress.add(images.value - progress.count, size.value - progress.bytes)
        for future in finished:
            stats = future.result()
            found.append(stats)
            for line in report(output, stats, progress.line()):
                progress.say(line)
    return found


def report(output: str, stats: Stats, progress: str) -> list[str]:
    """Print a line about a finished shard, and its images that were left out."""
    name = stats["name"]
    without = f", {stats['gone']:,} deleted" if stats["gone"] else ""
    size = amount(stats["filesize"])
    lines = [f"{name}: {stats['nsamples']:,} images, {size}{without}; {progress}"]
    left_out = stats["left_out"]
    lines += [
        f"{name}: left out {name_of(one['__key__'])}: {one['reason']}" for one in left_out[:SHOWN]
    ]
    if len(left_out) > SHOWN:
        path = shard_files.stats_path(output, stats)
        lines.append(f"{name}: left out {len(left_out) - SHOWN} more, see {path}")
    return lines


def pool_of(workers: int, counters: tuple[Counter, Counter]) -> AbstractContextManager[Executor]:
    """A pool of processes; if one worker is enough, a thread."""
    if workers > 1:
        return forked(workers, count_into, *counters)
    count_into(*counters)
    return ThreadPoolExecutor(1)


def count_into(images: Counter, size: Counter) -> None:
    """A worker's first step."""
    COUNTED[:] = images, size


def count(images: int, size: int) -> None:
    """Add to the counters that the parent shows."""
    for counter, more in zip(COUNTED, (images, size), strict=True):
        with counter.get_lock():
            counter.value += more


def one_shard(settings: TarSettings, shard: Shard, source: Source, identity: str) -> Stats:
    """Write a shard, then its done mark."""
    stats = shard_files.write_shard(settings.output, shard, source, count)
    if table.identity(settings.table) != identity:
        raise UserError(
            f"{settings.table} was replaced while its tars were written; run the same command again"
        )
    if stats["nsamples"]:
        shard_files.mark_done(settings.output, shard, stats)
    return stats
