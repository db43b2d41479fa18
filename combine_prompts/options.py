"""The options that the five processors share."""

from pathlib import Path

from common.command_line import Options
from common.files import CHECKOUT

PROMPTS_FOLDER = CHECKOUT / "prompts"


def processor_options(doc: str | None, output: str) -> Options:
    """Options of a processor that writes prompts/`output` unless told otherwise."""
    options = Options(doc)
    options.add_argument(
        "--input",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="local files (default: fetched from the source's public home)",
    )
    options.add_argument(
        "--output",
        type=Path,
        default=PROMPTS_FOLDER / output,
        metavar="FILE.json",
        help="default: %(default)s",
    )
    options.add_argument(
        "--revision",
        help="branch, tag or commit to fetch; main is the newest (default: a fixed commit, or the "
        "one fetched before: revisions.json beside the output)",
    )
    options.flag("--ascii", "transliterate to ASCII (å -> a); letters are never dropped")
    return options
