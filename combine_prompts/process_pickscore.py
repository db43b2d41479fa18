# PYTHON_ARGCOMPLETE_OK
"""Pick-a-Pic's prompts (what PickScore was trained on), v1 and v2 -> prompts/pickscore.json

    python combine_prompts/process_pickscore.py [--input FOLDER_OR_PARQUETS] [--output FILE.json]

Reads only the column `caption` (of 17) of the train, validation and test parquets of
yuvalkirstain/pickapic_v1_no_images and pickapic_v2_no_images, in batches. The cards state no
licence: process at run time, do not publish the file.

Expected of the real source (by the cards): v1 583,747 + 17,439 + 14,073 rows, v2 959,040 + 20,596 +
20,716, together 1,615,611; v2 holds most of v1 again. Counted: v1 train has 27,480 distinct
captions of 6 words and more. By the paper: 35,000 distinct prompts in v1.
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
    args = processor_options(__doc__, "pickscore.json").parse_args()
    from combine_prompts.sources import (
        pickscore,
    )  # after the options: it loads pyarrow, ftfy and the hub

    return pickscore(args)


if __name__ == "__main__":
    run_script(main)
