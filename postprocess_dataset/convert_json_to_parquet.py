# PYTHON_ARGCOMPLETE_OK
"""Make one parquet table of the samples (NAME.json beside NAME.jpg) of one or more dataset folders.

    outputs=outputs/generate_images/generated_images
    python postprocess_dataset/convert_json_to_parquet.py $outputs/HPDv2 HPDv2.parquet
    python postprocess_dataset/convert_json_to_parquet.py $outputs/HPDv2 HPDv2.parquet --update

The second command appends, later, what is new. On a cluster, 64 tasks and a last one that puts
their parts together (HPDv2.parquet is then a directory of part files):

    command="python postprocess_dataset/convert_json_to_parquet.py DIR HPDv2.parquet"
    sbatch --array=0-63 --wrap "$command --part \\$SLURM_ARRAY_TASK_ID/64"
    $command --part 0/64 --finish

Rows come by (input_file, prompt_index, augmentation_idx). A sample that does not pass the checks is
left out, listed with its reason in HPDv2.parquet.rejects.jsonl and counted; the exit status is then
3. It may run while images are still being generated.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import Options, run_script
from postprocess_dataset.options import partition


def main() -> int:
    parser = Options(__doc__, usage="%(prog)s DIR [DIR …] OUTPUT.parquet [options]")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="DIR",
        help="dataset folders; the last argument is OUTPUT.parquet unless --output_path is given",
    )
    parser.add_argument("--output_path", "--output-path", metavar="OUTPUT.parquet")
    parser.add_argument(
        "--verify",
        choices=("exists", "json", "size", "sha256", "decode"),
        default="exists",
        help="what an image must pass: be there (default, costs nothing), not be empty, have its "
        "JSON's sha256, decode; json: be there, and each JSON is read even where a .samples holds "
        "those of its prompt",
    )
    parser.add_argument(
        "--image_dir",
        metavar="DIR",
        action="append",
        default=[],
        help="image_path and links may lead into this folder, too (repeatable; default: only into "
        "the dataset folders)",
    )
    parser.flag("--strict", "publish nothing when any sample is rejected")
    parser.flag(
        "--relative",
        "image_path relative to the base folder (the common parent of the DIRs), for data that "
        "will move",
    )
    parser.flag(
        "--update",
        "keep the table's rows and their order, append new samples; rows whose sample was deleted "
        "are named in OUTPUT.gone.jsonl",
    )
    parser.flag("--rebuild", "sort a table anew that has been updated")
    parser.add_argument(
        "--part",
        metavar="I/N",
        type=partition,
        help="do partition I of N (0/64 … 63/64), independently of the others",
    )
    parser.flag(
        "--finish", "with --part I/N: check that all N partitions are there and combine them"
    )
    args = parser.parse_args()
    output = args.output_path or (args.paths.pop() if args.paths[-1].endswith(".parquet") else None)
    if output is None or not args.paths or not output.endswith(".parquet"):
        parser.error("give DIR [DIR …] OUTPUT.parquet, the last one ending in .parquet")
    if args.update and (args.rebuild or args.part):
        parser.error("--update goes neither with --rebuild nor with --part")
    if args.finish and not args.part:
        parser.error("--finish needs the number of partitions: --part 0/N")

    from common.without_pandas import without_pandas
    from postprocess_dataset.to_table.build_table import TableSettings, make_table

    without_pandas()
    settings = TableSettings(
        folders=args.paths,
        output=output,
        verify=args.verify,
        strict=args.strict,
        relative=args.relative,
        update=args.update,
        rebuild=args.rebuild,
        partition=args.part,
        finish=args.finish,
        image_dirs=args.image_dir,
    )
    return make_table(settings)


if __name__ == "__main__":
    run_script(main)
