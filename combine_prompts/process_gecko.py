"""Gecko's prompts, the validation set -> prompts/gecko.json

    python combine_prompts/process_gecko.py [--input prompts.csv] [--output FILE.json] [--reliable] [--trainable]

Reads the column `prompt` of prompts.csv from google-deepmind/gecko_benchmark_t2i. --reliable keeps the rows whose annotators agreed
(max_disagreement_less_0.5, the paper's choice); --trainable leaves out the rows whose terms forbid training use, by their dataset_id:
posescript (CC-BY-NC-SA-4.0) and whoops ("prohibited to use as a training set").

Expected of the real source (counted): 1,546 rows, 1,545 prompts; --reliable 1,037 rows; --trainable 1,438 rows.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # the checkout: modules are imported by their full names

import csv
from functools import partial

from combine_prompts.processor import local_files, parser, process
from combine_prompts.sources import web_file

URL = "https://raw.githubusercontent.com/google-deepmind/gecko_benchmark_t2i/{revision}/prompts.csv"
RELIABLE = "max_disagreement_less_0.5"
NOT_FOR_TRAINING = ("posescript", "whoops")


def main():
    options = parser(__doc__, "gecko.json")
    options.flag("--reliable", "only rows with max_disagreement_less_0.5")
    options.flag("--trainable", "without the rows whose terms forbid training use")
    options.add_argument(
        "--url",
        default=URL,
        help="where the file is fetched from, for a mirror (default: %(default)s)",
    )
    args = options.parse_args()
    files, problems = (
        local_files(args.input, ["prompts.csv"])
        if args.input
        else ([web_file(args.url.replace("{revision}", args.revision))], [])
    )
    return process(
        args, files, problems, partial(read, reliable=args.reliable, trainable=args.trainable)
    )


def read(path, reliable=False, trainable=False):
    """Yield (line number, prompt). Raises ValueError where a column is missing."""
    csv.field_size_limit(
        1 << 30
    )  # a line without its closing quote is named below, not refused at 128 kB
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        for column in ("prompt", *[RELIABLE] * reliable, *["dataset_id"] * trainable):
            if column not in (rows.fieldnames or []):
                raise ValueError(
                    f"no column {column!r}; its columns are {', '.join(rows.fieldnames or ['none: the file is empty'])}"
                )
        for row in rows:
            if (
                reliable
                and row[RELIABLE] != "True"
                or trainable
                and (row["dataset_id"] or "").startswith(NOT_FOR_TRAINING)
            ):
                continue
            text = row["prompt"]
            yield rows.line_num, text if text is None else text.encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    sys.exit(main())
