# PYTHON_ARGCOMPLETE_OK
"""Verify a data set: that nothing is missing, doubled, damaged, unsafe or unlicensed.

    command="python postprocess_dataset/verify_dataset.py"
    $command generated_images/HPDv2 --parquet_file HPDv2.parquet --tars HPDv2_wds

reads folders (loose or packed), the table and the tars once each, compares them with each other,
with the captions and with the job server's ledger, and names what it finds by 22 kinds, each with
its count, first examples and what to do. When all agree, the tars get a MANIFEST.json.

    $command DOWNLOAD --manifest

checks a download by its MANIFEST.json alone. Exit status: 0 all agree; 1 something was found, or
nothing could be checked.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line


from common.command_line import Options, run_script
from postprocess_dataset.options import add_allow_option, add_licence_option


def main() -> int:
    parser = Options(__doc__)
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", help="data set folders (several are allowed)"
    )
    parser.add_argument("--parquet_file", help="the table that was made of them")
    parser.add_argument("--tars", metavar="DIR", help="the folder of tars made of the table")
    parser.add_argument("--scores", metavar="DIR", help="the table that score_images.py made")
    parser.add_argument(
        "--output_root",
        help="where the job server's ledger lies (default: two folders above DIR, if one is there)",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="the prompts file, beside which the validation set's index lies "
        "(default: NAME.json here, or in prompts/)",
    )
    add_licence_option(parser)
    add_allow_option(parser)
    parser.flag("--repair", "mend marks, table, tars and index (never an image), then verify again")
    parser.add_argument(
        "--report",
        metavar="FILE",
        default="verification.json",
        help="JSON of what was found (default: %(default)s)",
    )
    parser.flag("--manifest", "check a download by its MANIFEST.json alone")
    args = parser.parse_args()
    if args.manifest and len(args.folders) > 1:
        parser.error("--manifest takes one DIR")
    for name in ("parquet_file", "tars", "scores", "repair"):
        parser.at_most_one(args, "manifest", name)
    if args.repair and args.tars and not args.parquet_file:
        parser.error("--repair of tars needs the table: --parquet_file")

    from postprocess_dataset.manifest.download import verify_download

    if args.manifest:
        return verify_download(args.folders[0])

    from postprocess_dataset.verification.show import run
    from postprocess_dataset.verification.verify import VerifySettings

    return run(
        VerifySettings(
            folders=args.folders,
            parquet_file=args.parquet_file,
            tars=args.tars,
            scores=args.scores,
            output_root=args.output_root,
            prompts=args.prompts,
            licences=args.licence,
            allow=args.allow,
            scratch=os.path.dirname(os.path.realpath(args.report)),
        ),
        args.report,
        args.repair,
    )


if __name__ == "__main__":
    run_script(main)
