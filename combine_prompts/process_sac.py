# PYTHON_ARGCOMPLETE_OK
"""The prompts of Simulacra Aesthetic Captions -> prompts/sac.json

    python combine_prompts/process_sac.py [--input sac_public_2022_06_29.sqlite]
        [--output FILE.json]

Reads `generations.prompt` of the SQLite file from the repository
JD-P/simulacra-aesthetic-captions, opened read-only.

Expected of the real source (by a notebook run on it): 40,385 generations, 34,247 distinct prompts.
By the README: over 40,000 prompts.
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

REPOSITORY = "https://raw.githubusercontent.com/JD-P/simulacra-aesthetic-captions"
URL = REPOSITORY + "/{revision}/sac_public_2022_06_29.sqlite"


def main() -> int:
    options = processor_options(__doc__, "sac.json")
    options.add_argument(
        "--url",
        default=URL,
        help="where the file is fetched from, for a mirror (default: %(default)s)",
    )
    args = options.parse_args()
    from combine_prompts.sources import sac  # after the options: it loads pyarrow, ftfy and the hub

    return sac(args)


if __name__ == "__main__":
    run_script(main)
