# PYTHON_ARGCOMPLETE_OK
"""Scores of a finished data set's images, in a table of their own beside its parquet table.

    python postprocess_dataset/score_images.py DIR scores --scores nsfw,sharpness,dhash
    python postprocess_dataset/convert_parquet_to_wds.py --parquet_file HPDv2.parquet \\
        --base_dir DIR --output_dir subset \\
        --scores scores --where "score_nsfw < 0.2 and dhash_distance > 6"

DIR: a data set folder, packed or not, or a folder of tars. Scores that a run has computed already
(generate_images.py --scores) are taken from its JSONs. The same command again scores what is new.
dhash: how far each image is from the nearest earlier one of its prompt, and of the whole set, in
bits of 64. On a cluster, 64 tasks and a last one that compares the images of all of them:

    sbatch --array=0-63 --wrap "$command --part \\$SLURM_ARRAY_TASK_ID/64"
    $command

What cannot be read is left out, named, and makes the exit status 3.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import DONE, LEFT_OUT, Options, run_script
from postprocess_dataset.options import partition


def main() -> int:
    parser = Options(__doc__)
    parser.add_argument("folder", metavar="DIR", help="a data set folder, or a folder of tars")
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        help="the folder of the scores: parquet files that are one table",
    )
    parser.add_argument(
        "--scores",
        required=True,
        metavar="NAMES",
        help="clip,nsfw,dhash, …, or FILE.py:CLASS of your own, see docs/scores.md",
    )
    parser.add_argument(
        "--part",
        type=partition,
        default=(0, 1),
        metavar="I/N",
        help="the I-th of N parts of the prompts, as in a SLURM array (0/64 … 63/64)",
    )
    args = parser.parse_args()

    from postprocess_dataset.progress import tell
    from postprocess_dataset.scored.score_folder import FolderScores

    scores = FolderScores(args.folder, args.output, args.scores)
    scores.run(*args.part)
    tell(scores.summary())
    return LEFT_OUT if scores.problems else DONE


if __name__ == "__main__":
    run_script(main)
