"""Make a release of finished data set folders, and go on with one that was begun.

    D=outputs/generate_images/generated_images
    python postprocess_dataset/release.py $D/HPDv2 release/HPDv2 --about about.yaml

Table, WebDataset tars, parquet with images, verification, report.html, README.md, Croissant and
MANIFEST.json, in this order. The same command again goes on after a crash, and adds what is new.
What the verification calls damaged, unsafe, unlicensed or private is not described and not listed,
unless --allow names its kind; the card then says so. push_to_hub.py publishes the folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.command_line import Options, run_script
from postprocess_dataset.options import add_form_options


def main() -> int:
    parser = Options(__doc__)
    parser.add_argument(
        "paths", metavar="DIR", nargs="+", help="data set folders; the last one is the RELEASE"
    )
    what = parser.add_argument_group("what is published")
    add_form_options(what)
    said = parser.add_argument_group("what is said of it")
    said.add_argument(
        "--about", metavar="ABOUT.yaml", default="", help="what only the author knows"
    )
    said.add_argument(
        "--status", metavar="STATUS.json", default="", help="of image_server.py --status --json"
    )
    checks = parser.add_argument_group("what is checked")
    checks.add_argument("--prompts", metavar="FILE", help="the prompts file, for verification")
    checks.add_argument(
        "--licence",
        metavar="NAME=LICENCE",
        action="append",
        default=[],
        help="the licence of a source, an LLM or a model that is not known here (repeatable)",
    )
    checks.add_argument(
        "--allow",
        metavar="KIND,KIND",
        default="",
        help="kinds of findings that may be published; the card names them",
    )
    args = parser.parse_args()
    if len(args.paths) < 2:
        parser.error("give DIR [DIR …] RELEASE")

    from postprocess_dataset.releasing.steps import ReleaseSettings, make_release

    return make_release(
        ReleaseSettings(
            folders=args.paths[:-1],
            release=args.paths[-1],
            forms=args.form,
            split=args.split,
            shuffle_seed=args.shuffle_seed,
            shard_size_mb=args.shard_size_mb,
            workers=args.num_workers,
            about=args.about,
            status=args.status,
            prompts=args.prompts,
            licences=args.licence,
            allow=[word.strip() for word in args.allow.split(",") if word.strip()],
        )
    )


if __name__ == "__main__":
    run_script(main)
