"""The prompts of Simulacra Aesthetic Captions -> prompts/sac.json

    python combine_prompts/process_sac.py [--input sac_public_2022_06_29.sqlite] [--output FILE.json]

Reads `generations.prompt` of the SQLite file from the repository JD-P/simulacra-aesthetic-captions, opened read-only.

Expected of the real source (by a notebook run on it): 40,385 generations, 34,247 distinct prompts. By the README: over 40,000 prompts.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names

import sqlite3

from combine_prompts.processor import local_files, parser, process
from combine_prompts.sources import web_file

NAME = "sac_public_2022_06_29.sqlite"
URL = "https://raw.githubusercontent.com/JD-P/simulacra-aesthetic-captions/{revision}/" + NAME


def main():
    options = parser(__doc__, "sac.json")
    options.add_argument(
        "--url",
        default=URL,
        help="where the file is fetched from, for a mirror (default: %(default)s)",
    )
    args = options.parse_args()
    files, problems = (
        local_files(args.input, ["*.sqlite"])
        if args.input
        else ([web_file(args.url.replace("{revision}", args.revision))], [])
    )
    return process(args, files, problems, read)


def read(path):
    """Yield (id, prompt as bytes), in the order of the ids. Raises sqlite3.Error where the file is locked, damaged or another one."""
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
    database.text_factory = bytes  # a prompt that is not UTF-8 is one bad row, not the end
    try:
        yield from database.execute("SELECT id, prompt FROM generations ORDER BY id")
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
