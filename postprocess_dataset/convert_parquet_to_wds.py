"""Write the images of a table as WebDataset shards: KEY.jpg (the very bytes), KEY.txt (caption), KEY.json (metadata).

    python postprocess_dataset/convert_parquet_to_wds.py --parquet_file HPDv2.parquet --base_dir DIR --output_dir tars --num_workers 8

The same command again does only what is missing: after a crash, or after `convert_json_to_parquet.py --update` what is new. On a cluster:

    command="python postprocess_dataset/convert_parquet_to_wds.py --parquet_file HPDv2.parquet --base_dir DIR --output_dir tars"
    sbatch --array=0-63 --wrap "$command --part \\$SLURM_ARRAY_TASK_ID/64"
    $command --part 0/64 --finish

An image that is missing, truncated or not the one of its row is left out, named, and makes the exit status 3.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names

import os
import shutil

from common.command_line import Options
from postprocess_dataset import table
from postprocess_dataset.parts import part
from postprocess_dataset.progress import Progress


def main(as_script=False):
    parser = Options(__doc__)
    parser.add_argument(
        "--parquet_file",
        required=True,
        help="the table: a parquet file or a directory of part files",
    )
    parser.add_argument(
        "--base_dir",
        default=".",
        help="where a relative image_path, or KEY.jpg, begins (default: here)",
    )
    parser.add_argument("--output_dir", required=True)
    parser.add_argument(
        "--num_workers",
        type=positive,
        default=min(8, len(os.sched_getaffinity(0))),
        help="processes (default: %(default)s)",
    )
    parser.add_argument(
        "--shard_size_mb",
        type=positive,
        default=500,
        help="at most so many MB (10**6 bytes) a shard (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        metavar="train=0.98,val=0.02",
        help="by prompt: all images of a prompt go to one side",
    )
    parser.add_argument(
        "--shuffle_seed",
        type=int,
        help="shuffle the rows (after an --update the new ones among themselves)",
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        type=part,
        help="write every N-th shard, from the I-th (0/64 … 63/64)",
    )
    parser.flag("--finish", "with --part I/N: check that every shard is there and write index.json")
    args = parser.parse_args()
    if args.finish and not args.part:
        parser.error("--finish needs the number of pieces: --part 0/N")
    try:
        if args.split:
            from postprocess_dataset.row_order import parse_split

            parse_split(args.split)
    except ValueError:
        parser.error(
            f"--split {args.split}: give names and shares that make 1, as in train=0.98,val=0.02"
        )
    if as_script:
        table.own_process()
    try:
        return convert(args)
    except KeyboardInterrupt:
        print(
            "convert_parquet_to_wds.py: interrupted; finished shards stay, the same command goes on from there",
            file=sys.stderr,
            flush=True,
        )
        os._exit(130)  # without waiting for the shards that are being written
    except OSError as error:
        where = "" if error.filename else f"{args.output_dir}: "
        raise SystemExit(
            f"convert_parquet_to_wds.py: {where}{error}; finished shards stay, the same command goes on from there"
        )


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def convert(args):
    """All shards, or one part of them, or the check that all are there. Returns the exit status."""
    from postprocess_dataset import increment, shards

    files = table.files(args.parquet_file)
    os.makedirs(args.output_dir, exist_ok=True)
    gone = {
        line["__key__"]
        for line in increment.load_lines(f"{args.parquet_file.rstrip('/')}.gone.jsonl")
    }
    plan = plan_of(args, files, gone)
    done = {
        shard["name"]: shards.stats_of(args.output_dir, shard, args.base_dir)
        for shard in plan["shards"]
    }
    mine = [
        shard
        for n, shard in enumerate(plan["shards"])
        if not args.part or n % args.part[1] == args.part[0]
    ]
    todo = [shard for shard in mine if not done[shard["name"]]]
    if args.finish:
        missing = [shard["name"] for shard in plan["shards"] if not done[shard["name"]]]
        if missing:
            raise SystemExit(
                f"{args.output_dir}: {len(missing)} of {len(plan['shards'])} shards are missing "
                f"({', '.join(missing[:5])}{' …' * (len(missing) > 5)}); "
                f"run the missing --part again, then --finish"
            )
    elif todo:
        done.update(write(args, plan, todo, gone))
    stats = [
        done[shard["name"]] for shard in (plan["shards"] if args.finish or not args.part else mine)
    ]
    if args.finish or not args.part:
        shards.write_index(args.output_dir, stats)
        shutil.rmtree(os.path.join(args.output_dir, ".rows"), ignore_errors=True)
    left_out, dropped = sum(len(s["left_out"]) for s in stats), sum(s["gone"] for s in stats)
    print(
        f"{args.output_dir}: {len(stats):,} shards ({len(todo) if not args.finish else 0:,} written now), "
        f"{sum(s['nsamples'] for s in stats):,} images, "
        f"{sum(s['filesize'] for s in stats) / 1e6:,.0f} MB; {left_out:,} left out{f', {dropped:,} gone' if dropped else ''}"
    )
    return 3 if left_out else 0


def plan_of(args, files, gone):
    """The plan as it is on disk, or made or grown now. SystemExit when the folder's shards are of another table or other options."""
    import json

    from postprocess_dataset import shards
    from postprocess_dataset.publish import Draft

    identity, options = (
        table.identity(args.parquet_file),
        {
            "shard_size_mb": args.shard_size_mb,
            "split": args.split,
            "shuffle_seed": args.shuffle_seed,
        },
    )

    def load():
        old = shards.load_plan(args.output_dir)
        if old and old["options"] != options:
            name = next(name for name in options if old["options"][name] != options[name])
            raise SystemExit(
                f"{args.output_dir} was written with --{name} {old['options'][name]}, now it is {options[name]}; "
                "choose an empty --output_dir"
            )
        return old, old is not None and old["identity"] == identity

    old, ready = load()
    if ready:
        return old
    with Draft(
        shards.plan_path(args.output_dir), wait=True
    ) as draft:  # of many parts that start at once, one makes the plan
        old, ready = load()
        if ready:
            return old
        rows = sum(table.footer(path).num_rows for path in files)
        if not rows:
            raise SystemExit(f"{args.parquet_file}: the table has no rows")
        before = old["rows"] if old else 0
        digests = shards.digest_rows(files, [rows, before] if rows > before else [rows])
        if old and digests.get(before) != old["digest"]:
            raise SystemExit(
                f"{args.output_dir} holds shards of another table: its {before:,} rows are not the first of {args.parquet_file} "
                f"({rows:,} rows); choose an empty --output_dir"
            )
        shards.check_unique(files)
        plan = {
            "rows": rows,
            "digest": digests[rows],
            "identity": identity,
            "options": options,
            "generations": generations_of(args.parquet_file, rows, old),
        }
        kept = old["shards"] if old else []
        if rows > before:
            last = {shard["split"]: shard for shard in kept}
            kept = [
                shard for shard in kept if shard is not last[shard["split"]]
            ]  # the last one of a split may not be full
            shutil.rmtree(os.path.join(args.output_dir, ".rows"), ignore_errors=True)
            kept = shards.make_shards(
                in_tar_order(args, files, plan), kept, args.shard_size_mb, args.base_dir, gone
            )
        names = {shard["name"] for shard in kept}
        for shard in old["shards"] if old else ():
            if shard["name"] not in names:  # a plan that got shorter: its last images are gone
                shards.remove(args.output_dir, shard)
        draft.file.write(json.dumps({**plan, "shards": kept}).encode())
        draft.publish()
        return {**plan, "shards": kept}


def generations_of(path, rows, old):
    """Rows of the first conversion and of each update: what is shuffled together. What `old`, an earlier plan, says of its rows stands."""
    facts, before = table.facts(path), old["generations"] if old else []
    said = facts["generations"] if facts and sum(facts["generations"]) == rows else [rows]
    return (
        said
        if said[: len(before)] == before
        else before + [rows - sum(before)] * (rows > sum(before))
    )


def in_tar_order(args, files, plan):
    """{split: parquet files whose rows are in the order of the tars}; where that is not the table's they are made in O/.rows."""
    from postprocess_dataset.row_order import ordered, parse_split

    folder = os.path.join(args.output_dir, ".rows")
    split = parse_split(args.split) if args.split else None
    if split is None and args.shuffle_seed is None:
        return {None: files}
    if not os.path.isdir(folder):
        shutil.rmtree(f"{folder}.tmp", ignore_errors=True)
        ordered(files, plan["generations"], split, args.shuffle_seed, f"{folder}.tmp")
        os.rename(f"{folder}.tmp", folder)
    return {name: [os.path.join(folder, f"{name or 'all'}.parquet")] for name in split or [None]}


def write(args, plan, todo, gone):
    """{name: stats} of the shards `todo`, written by worker processes. SystemExit, after all others, for those without any usable image."""
    import multiprocessing
    import signal
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool

    from postprocess_dataset import shards
    from postprocess_dataset.publish import Draft

    files = table.files(args.parquet_file)
    with Draft(os.path.join(args.output_dir, ".rows.lock"), wait=True):
        order = in_tar_order(args, files, plan)
    rows = sum(shard["stop"] - shard["start"] for shard in todo)
    progress, done, empty = Progress("images", rows), {}, {}
    context = multiprocessing.get_context(
        "fork"
    )  # no thread lives here yet, and a worker saves 0.4 s of imports
    images, size = context.Value("q", 0), context.Value("q", 0)
    workers = min(args.num_workers, len(todo))
    pool = (
        ThreadPoolExecutor(1, initializer=begin_worker, initargs=(images, size))
        if workers == 1
        else ProcessPoolExecutor(workers, context, begin_worker, (images, size))
    )
    try:
        signal.pthread_sigmask(
            signal.SIG_BLOCK, [signal.SIGINT]
        )  # workers, forked now, keep it: Ctrl-C is the parent's to answer
        waiting = {
            pool.submit(
                one_shard,
                args.output_dir,
                shard,
                order[shard["split"]],
                args.base_dir,
                gone,
                args.parquet_file,
                plan["identity"],
            )
            for shard in todo
        }
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        while waiting:
            finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            progress.add(images.value - progress.count, size.value - progress.bytes)
            for stats in (future.result() for future in finished):
                (done if stats["nsamples"] else empty)[stats["name"]] = stats
                without = f", {stats['gone']:,} gone" if stats["gone"] else ""
                size_mb = stats["filesize"] / 1e6
                progress.say(
                    f"{stats['name']}: {stats['nsamples']:,} images, {size_mb:,.1f} MB{without}; {progress.line()}"
                )
                for line in stats["left_out"][:5]:
                    progress.say(f"{stats['name']}: left out {line['__key__']}: {line['reason']}")
                if len(stats["left_out"]) > 5:
                    progress.say(
                        f"{stats['name']}: left out {len(stats['left_out']) - 5} more, see {shards.stats_path(args.output_dir, stats)}"
                    )
        if empty:
            raise SystemExit(
                f"{args.output_dir}: no image of {', '.join(list(empty)[:5])}{' …' * (len(empty) > 5)} can be taken (reasons above); the "
                "other shards are written. Put the images back and say it again, or --rebuild the table and choose an empty --output_dir"
            )
        return done
    except BrokenProcessPool:
        raise SystemExit(
            "convert_parquet_to_wds.py: a worker process was killed (out of memory?); the same command goes on from there"
        )
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        progress.close()


COUNTED = []  # images and bytes done by all workers, for the progress


def begin_worker(images, size):
    import multiprocessing
    import threading

    COUNTED[:] = images, size
    if parent := multiprocessing.parent_process():  # a killed parent takes its workers along
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def one_shard(output, shard, files, base_dir, gone, parquet_file, identity):
    """Write a shard, then its done mark."""
    from postprocess_dataset import shards

    def counted(images, size):
        for counter, more in zip(COUNTED, (images, size)):
            with counter.get_lock():
                counter.value += more

    stats = shards.write_shard(output, shard, files, base_dir, gone, counted)
    if table.identity(parquet_file) != identity:
        raise SystemExit(
            f"{parquet_file} was replaced while its tars were written; run the same command again"
        )
    if stats["nsamples"]:
        shards.mark_done(output, shard, stats)
    return stats


if __name__ == "__main__":
    sys.exit(main(as_script=True))
