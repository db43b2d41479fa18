# PYTHON_ARGCOMPLETE_OK
"""HPDv2's benchmark prompts -> prompts/HPDv2.json

    python combine_prompts/process_hpdv2.py [--input FOLDER_OR_FILES] [--output FILE.json]

Reads benchmark/{anime,concept-art,paintings,photo}.json of ymhao/HPDv2, each a list of strings.
Never drawbench.json, which lies beside them and is a validation set of others. The three art styles
were rewritten by ChatGPT, and its chatter is repaired or dropped. The photo prompts are captions of
COCO (CC-BY-4.0) and are written as {"prompt", "source": ["HPDv2", "COCO"]}, the others as strings.

Expected of the real source (counted): 4 x 800 prompts, 3,172 distinct (anime 781, concept-art 795,
paintings 798, photo 800); 3,170 are written after cleaning.
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


def main() -> int:
    args = processor_options(__doc__, "HPDv2.json").parse_args()
    from combine_prompts.sources import (
        hpdv2,
    )  # after the options: it loads pyarrow, ftfy and the hub

    return hpdv2(args)


if __name__ == "__main__":
    run_script(main)
