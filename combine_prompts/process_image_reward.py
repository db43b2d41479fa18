# PYTHON_ARGCOMPLETE_OK
"""ImageRewardDB's prompts -> prompts/image_reward.json

    python combine_prompts/process_image_reward.py [--input FOLDER_OR_PARQUETS] [--output FILE.json]

Reads the column `prompt` of metadata-train.parquet, metadata-validation.parquet and
metadata-test.parquet (one row an image, so each prompt stands there 4-9 times; the images are not
fetched) from zai-org/ImageRewardDB.

Expected of the real source (by its card): 55.2K rows (49.9K + 2.6K + 2.7K), 8,878 prompt ids
(8,000 + 412 + 466). Counted, on the test split as the ImageReward repository has it: 2,720 rows,
466 ids, 463 distinct texts.
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
    args = processor_options(__doc__, "image_reward.json").parse_args()
    from combine_prompts.sources import (
        image_reward,
    )  # after the options: it loads pyarrow, ftfy and the hub

    return image_reward(args)


if __name__ == "__main__":
    run_script(main)
