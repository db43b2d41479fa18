# PYTHON_ARGCOMPLETE_OK
"""Turn the finished sub-folders of a data set into tars, so that it takes few files.

python postprocess_dataset/pack_finished_folders.py outputs/generate_images/generated_images/HPDv2

It may run beside a generation, on several nodes, and may be killed at any instant.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

import time
from pathlib import Path

from common.command_line import DONE, LEFT_OUT, Options, UserError, run_script
from common.console import visible
from common.number_options import YEAR_S, whole
from common.sample_reader import FOLDER_OF_PROMPTS
from postprocess_dataset.options import partition
from postprocess_dataset.packing.pack_folder import Packing

SHOWN = 20  # reasons; a broken disk has many


def main() -> int:
    """The exit status: 3 when something stays loose, which is named."""
    parser = Options(__doc__)
    parser.add_argument("folder", metavar="DIR", help="the data set folder")
    parser.add_argument(
        "--part",
        type=partition,
        default=(0, 1),
        metavar="I/N",
        help="the I-th of N parts of the sub-folders, as in a SLURM array (0/8 … 7/8)",
    )
    parser.add_argument(
        "--watch",
        type=whole(1, YEAR_S),
        metavar="SECONDS",
        help="look again every so many seconds, until this process is ended",
    )
    args = parser.parse_args()
    root = Path(args.folder)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give that of a data set")
    while True:
        left = pack_all(root, *args.part)
        if args.watch is None:
            return LEFT_OUT if left else DONE
        time.sleep(args.watch)


def pack_all(root: Path, number: int, count: int) -> int:
    """Pack what is finished; the number of prompts, or folders, that stay loose for a reason."""
    folders = sorted(path for path in root.iterdir() if FOLDER_OF_PROMPTS.fullmatch(path.name))
    done = prompts = files = 0
    left: list[str] = []
    for folder in folders:
        if int(folder.name) % count != number:
            continue
        try:
            result = Packing(folder).run()
        except OSError as error:
            left.append(f"{error.filename or folder}: {error.strerror}")
            continue
        done += bool(result.files)
        prompts += result.prompts
        files += result.files
        left += result.left
        if result.busy:
            print(f"{folder}: another process packs it")
    for line in left[:SHOWN]:
        print(visible(line), file=sys.stderr)
    print(
        f"{root}: {done:,} sub-folders packed now, {prompts:,} prompts, {files:,} files; "
        f"{len(left):,} left out",
        flush=True,
    )
    return len(left)


if __name__ == "__main__":
    run_script(main)
