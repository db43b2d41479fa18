"""Pick-a-Pic's prompts (what PickScore was trained on), v1 and v2 -> prompts/pickscore.json

    python combine_prompts/process_pickscore.py [--input FOLDER_OR_PARQUETS] [--output FILE.json]

Reads only the column `caption` (of 17) of the train, validation and test parquets of yuvalkirstain/pickapic_v1_no_images and
pickapic_v2_no_images, in batches. The cards state no licence: process at run time, do not publish the file.

Expected of the real source (by the cards): v1 583,747 + 17,439 + 14,073 rows, v2 959,040 + 20,596 + 20,716, together 1,615,611; v2 holds
most of v1 again. Counted: v1 train has 27,480 distinct captions of 6 words and more. By the paper: 35,000 distinct prompts in v1.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names


from combine_prompts.processor import local_files, parser, process
from combine_prompts.sources import hub_files, parquet_column


def main():
    args = parser(__doc__, "pickscore.json").parse_args()
    if args.input:
        files, problems = local_files(args.input, ["*.parquet"])
    else:
        patterns = [
            f"data/{split}-0*.parquet" for split in ("train", "validation", "test")
        ]  # not {validation,test}_unique: parts of these
        files = [
            path
            for version in ("v1", "v2")
            for path in hub_files(
                f"yuvalkirstain/pickapic_{version}_no_images", patterns, args.revision
            )
        ]
        problems = []
    return process(args, files, problems, lambda path: parquet_column(path, "caption"))


if __name__ == "__main__":
    sys.exit(main())
