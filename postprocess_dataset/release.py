# PYTHON_ARGCOMPLETE_OK
"""Make a release of finished data set folders, and go on with one that was begun.

    D=outputs/generate_images/generated_images
    python postprocess_dataset/release.py $D/HPDv2 release/HPDv2 --about about.yaml

Table, WebDataset tars, parquet with images, verification, report.html, README.md, Croissant and
MANIFEST.json, in this order. The same command again goes on after a crash, and adds what is new.
What the verification calls damaged, unsafe, unlicensed or private is not described and not listed,
unless --allow names its kind; the card then says so. push_to_hub.py publishes the folder.
--c2pa signs the images that are published; those of the run stay as they are.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import Options, run_script
from postprocess_dataset.options import (
    DataOptions,
    add_about_option,
    add_allow_option,
    add_data_options,
    add_licence_option,
    add_status_option,
)


def main() -> int:
    parser = Options(__doc__, usage="%(prog)s DIR [DIR …] RELEASE [options]")
    parser.add_argument(
        "paths", metavar="DIR", nargs="+", help="data set folders; the last one is the RELEASE"
    )
    what = parser.add_argument_group("what is published")
    add_data_options(what)
    said = parser.add_argument_group("what is said of it")
    add_about_option(said)
    add_status_option(said)
    checks = parser.add_argument_group("what is checked")
    checks.add_argument("--prompts", metavar="FILE", help="the prompts file, for verification")
    add_licence_option(checks)
    add_allow_option(checks)
    args = parser.parse_args()
    if len(args.paths) < 2:
        parser.error("give DIR [DIR …] RELEASE")

    from postprocess_dataset.releasing.steps import ReleaseSettings, make_release

    return make_release(
        ReleaseSettings(
            folders=args.paths[:-1],
            release=args.paths[-1],
            data=DataOptions.of(args),
            about=args.about,
            status=args.status,
            prompts=args.prompts,
            licences=args.licence,
            allow=args.allow,
        )
    )


if __name__ == "__main__":
    run_script(main)
