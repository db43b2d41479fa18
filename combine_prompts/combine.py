# PYTHON_ARGCOMPLETE_OK
"""Combine the sources' prompts into one file: unique, filtered, without the validation set.

    python combine_prompts/combine.py prompts/image_reward.json prompts/sac.json \\
        prompts/pickscore.json prompts/HPDv2.json --exclude prompts/gecko.json \\
        --output prompts/combined.json

Writes a list of {"prompt", "source": [every source that has it]} (--plain: strings), beside it
combined.report.json (counts per source and reason, licences, versions), combined.removed.json
(every removed prompt and variation with its reason, rule and match), combined.ATTRIBUTION.md, and
combined.screening.npz: the rules and an index of the validation set, without its text, by which
generate_images.py judges every variation. The order is shuffled, so that any prefix of the file is
a fair sample of all sources. The same inputs and options give the same bytes.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from pathlib import Path

from combine_prompts.options import PROMPTS_FOLDER
from common.command_line import Options, run_script
from common.number_options import LARGEST_SEED, MOST_PROCESSES, whole


def main() -> int:
    options = Options(__doc__)
    add = options.add_argument
    actions = ("drop", "flag", "keep")
    add(
        "inputs",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="prompts files (JSON lists; .jsonl, an item a line; .txt, a prompt a line); the name "
        "is the source",
    )
    add(
        "--exclude",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="validation sets: prompts like one of these are left out",
    )
    add(
        "--output",
        type=Path,
        default=PROMPTS_FOLDER / "combined.json",
        help="default: %(default)s",
    )
    options.flag("--plain", "write strings instead of objects")
    add(
        "--seed",
        type=whole(-LARGEST_SEED, LARGEST_SEED),
        default=0,
        help="of the order (default: %(default)s)",
    )
    add(
        "--language",
        choices=("en", "any"),
        default="en",
        help="keep English prompts, or any (default: %(default)s)",
    )
    add("--min_words", type=whole(0), default=3, help="default: %(default)s")
    add("--max_words", type=whole(0), default=200, help="default: %(default)s")
    add("--min_chars", type=whole(0), default=8, help="default: %(default)s")
    add("--max_chars", type=whole(0), default=1000, help="default: %(default)s")
    add(
        "--profanity",
        choices=actions,
        default="flag",
        help="rude words: drop, flag ({'flags': ['profanity']}) or keep (default: %(default)s)",
    )
    add(
        "--sexual",
        choices=actions,
        default="drop",
        help="sexual content: drop, flag or keep (default: %(default)s); with an age word for "
        "minors it is always dropped",
    )
    add(
        "--hate",
        choices=actions,
        default="drop",
        help="slurs and calls for violence: drop, flag or keep (default: %(default)s)",
    )
    options.flag(
        "--near_duplicates", "drop near duplicates (MinHash LSH, 0.7, same subject)", default=True
    )
    options.flag("--publishable", "leave out prompts whose sources state no licence")
    add(
        "--licence",
        nargs="+",
        default=[],
        metavar="NAME=LICENCE",
        help="the licence of a source of your own, by its file's name: mine=CC0-1.0",
    )
    add(
        "--num_workers",
        type=whole(1, MOST_PROCESSES),
        default=len(os.sched_getaffinity(0)),
        help="processes (default: the cores, %(default)s)",
    )
    args = options.parse_args()
    # after the options: it loads the detectors
    from combine_prompts.combination import Settings, combine

    return combine(Settings(**vars(args)))


if __name__ == "__main__":
    run_script(main)
