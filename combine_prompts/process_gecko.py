# PYTHON_ARGCOMPLETE_OK
"""Gecko's prompts, the validation set -> prompts/gecko.json

    python combine_prompts/process_gecko.py [--input prompts.csv] [--output FILE.json] [--reliable]
        [--trainable]

Reads the column `prompt` of prompts.csv from google-deepmind/gecko_benchmark_t2i. --reliable keeps
the rows whose annotators agreed (max_disagreement_less_0.5, the paper's choice); --trainable leaves
out the rows whose terms forbid training use, by their dataset_id: posescript (CC-BY-NC-SA-4.0) and
whoops ("prohibited to use as a training set").

Expected of the real source (counted): 1,546 rows, 1,545 prompts; --reliable 1,037 rows;
--trainable 1,438 rows.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from combine_prompts.options import processor_options
from common.command_line import run_script

REPOSITORY = "https://raw.githubusercontent.com/google-deepmind/gecko_benchmark_t2i"
URL = REPOSITORY + "/{revision}/prompts.csv"


def main() -> int:
    options = processor_options(__doc__, "gecko.json")
    options.flag("--reliable", "only rows with max_disagreement_less_0.5")
    options.flag("--trainable", "without the rows whose terms forbid training use")
    options.add_argument(
        "--url",
        default=URL,
        help="where the file is fetched from, for a mirror (default: %(default)s)",
    )
    args = options.parse_args()
    from combine_prompts.sources import (
        gecko,
    )  # after the options: it loads pyarrow, ftfy and the hub

    return gecko(args)


if __name__ == "__main__":
    run_script(main)
