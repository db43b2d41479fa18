"""Verify a data set: that nothing is missing, doubled, damaged, unsafe or unlicensed.

    python postprocess_dataset/verify_dataset.py RELEASE --manifest

checks a download by its MANIFEST.json alone. Exit status: 0 all agree; 1 something was found, and
is named, or nothing could be checked.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.command_line import Options, run_script


def main() -> int:
    parser = Options(__doc__)
    parser.add_argument("folder", help="the release folder")
    parser.flag("--manifest", "check a download by its MANIFEST.json alone")
    args = parser.parse_args()
    if not args.manifest:
        parser.error("give --manifest")

    from postprocess_dataset.verification.download import verify_download

    return verify_download(args.folder)


if __name__ == "__main__":
    run_script(main)
