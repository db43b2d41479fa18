# PYTHON_ARGCOMPLETE_OK
"""Write a table's images as WebDataset shards: KEY.jpg (the very bytes), KEY.txt (caption),
KEY.json (metadata).

    command="python postprocess_dataset/convert_parquet_to_wds.py --parquet_file HPDv2.parquet"
    $command --base_dir DIR --output_dir tars --num_workers 8

The same command again does only what is missing: after a crash, or after
`convert_json_to_parquet.py --update` what is new. On a cluster:

    command="$command --base_dir DIR --output_dir tars"
    sbatch --array=0-63 --wrap "$command --part \\$SLURM_ARRAY_TASK_ID/64"
    $command --part 0/64 --finish

An image that is missing, truncated or not the one of its row is left out, named, and makes the exit
status 3.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import Options, run_script
from common.number_options import LARGEST_SEED, MOST_PROCESSES, whole
from postprocess_dataset.options import MOST_MB, add_where_option, partition, split


def main() -> int:
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
    parser.add_argument(
        "--image_dir",
        metavar="DIR",
        action="append",
        default=[],
        help="image_path and links may lead into this folder, too (repeatable; default: only into "
        "--base_dir)",
    )
    parser.add_argument("--output_dir", required=True, help="the folder of the tars")
    parser.add_argument(
        "--num_workers",
        type=whole(1, MOST_PROCESSES),
        default=min(8, len(os.sched_getaffinity(0))),
        help="processes (default: %(default)s)",
    )
    parser.add_argument(
        "--shard_size_mb",
        type=whole(1, MOST_MB),
        default=500,
        help="at most so many MB (10**6 bytes) a shard (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        metavar="train=0.98,val=0.02",
        type=split,
        help="split by prompt: all images of a prompt go to one side",
    )
    parser.add_argument(
        "--shuffle_seed",
        type=whole(0, LARGEST_SEED),
        help="shuffle the rows (after an --update the new ones among themselves)",
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        type=partition,
        help="write every N-th shard, from the I-th (0/64 … 63/64)",
    )
    add_where_option(parser)
    parser.add_argument(
        "--scores", metavar="FOLDER", help="the table of score_images.py, for --where"
    )
    parser.flag("--finish", "with --part I/N: check that every shard is there and write index.json")
    args = parser.parse_args()
    if args.finish and not args.part:
        parser.error("--finish needs the number of partitions: --part 0/N")

    if args.scores and not args.where:
        parser.error("--scores is for --where: which rows?")

    import pyarrow as pa

    from common.without_pandas import without_pandas
    from postprocess_dataset.scored.where import Where
    from postprocess_dataset.to_tars.make_tars import make_tars
    from postprocess_dataset.to_tars.tar_settings import TarSettings

    without_pandas()
    # malloc: as fast here as pyarrow's own pool, which keeps 50 MB more
    pa.set_memory_pool(pa.system_memory_pool())
    return make_tars(
        TarSettings(
            table=args.parquet_file,
            base_dir=args.base_dir,
            output=args.output_dir,
            workers=args.num_workers,
            shard_size_mb=args.shard_size_mb,
            split=args.split,
            shuffle_seed=args.shuffle_seed,
            partition=args.part,
            finish=args.finish,
            image_dirs=args.image_dir,
            where=Where(args.where, args.scores) if args.where else None,
        )
    )


if __name__ == "__main__":
    run_script(main)
