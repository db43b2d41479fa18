# PYTHON_ARGCOMPLETE_OK
"""Make what is published of a table: WebDataset tars, and parquet with embedded images.

    python postprocess_dataset/make_release_forms.py HPDv2.parquet release/HPDv2
    python postprocess_dataset/make_release_forms.py HPDv2.parquet release/HPDv2 --form webdataset

Both hold the same rows in the same order, in release/HPDv2/webdataset and release/HPDv2/data. Host
names, jobs, leases and absolute paths stay out. The same command again does what is missing: after
a crash, or after convert_json_to_parquet.py --update what is new. What it needs for that lies in
release/HPDv2.work; its tars and those of the release are the same files, by hard links.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import Options, run_script
from postprocess_dataset.options import DataOptions, add_data_options, add_image_options


def main() -> int:
    parser = Options(__doc__)
    parser.add_argument("table", metavar="TABLE.parquet")
    parser.add_argument("release", metavar="RELEASE", help="the folder that will be published")
    add_image_options(parser)
    add_data_options(parser)
    parser.flag("--keep_private", "publish host names, jobs, leases and paths, too")
    args = parser.parse_args()

    from postprocess_dataset.release_forms.make_forms import FormSettings, make_forms

    return make_forms(
        FormSettings(
            table=args.table,
            release=args.release,
            base_dir=args.base_dir,
            data=DataOptions.of(args),
            keep_private=args.keep_private,
            image_dirs=args.image_dir,
        )
    )


if __name__ == "__main__":
    run_script(main)
