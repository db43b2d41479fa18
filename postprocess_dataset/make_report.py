# PYTHON_ARGCOMPLETE_OK
"""Make a page to look at of a data set: report.html, which holds all that it shows.

    python postprocess_dataset/make_report.py HPDv2.parquet report.html
    python generate/image_server.py --status --json > status.json
    python postprocess_dataset/make_report.py HPDv2.parquet report.html --status status.json

Prompts beside their variations; sources, language models and image models with their shares;
sizes, lengths, scores; images that look alike; time and energy; what was left out and why. Of a
large table a part is read that is spread evenly over it: the time does not grow with the images.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import Options, run_script
from postprocess_dataset.options import add_image_options, add_status_option


def main() -> int:
    parser = Options(__doc__)
    parser.add_argument(
        "table", metavar="TABLE.parquet", help="a file, or a directory of part files"
    )
    parser.add_argument("output", metavar="REPORT.html")
    add_image_options(parser)
    add_status_option(parser)
    parser.add_argument("--name", default="", help="the title (default: the table's name)")
    args = parser.parse_args()

    from postprocess_dataset.report.gather import ReportSettings
    from postprocess_dataset.report.page import make_report

    return make_report(
        ReportSettings(
            table=args.table,
            output=args.output,
            base_dir=args.base_dir,
            image_dirs=args.image_dir,
            status=args.status,
            name=args.name,
        )
    )


if __name__ == "__main__":
    run_script(main)
