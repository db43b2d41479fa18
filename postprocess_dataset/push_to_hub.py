# PYTHON_ARGCOMPLETE_OK
"""Publish a release on the hub: what is new of it, shards first, the card last.

    python postprocess_dataset/push_to_hub.py release/HPDv2 my-organisation/birds --dry_run
    python postprocess_dataset/push_to_hub.py release/HPDv2 my-organisation/birds

The repository is private unless --public says otherwise. The same command again goes on after a
kill, and later uploads only new shards. It publishes what release.py has verified, byte for byte.
HF_ENDPOINT names another hub, `hf auth login` or HF_TOKEN who you are.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import Options, run_script


def main() -> int:
    parser = Options(__doc__)
    parser.add_argument("release", metavar="RELEASE", help="made by release.py")
    parser.add_argument("repo", metavar="ORGANISATION/NAME")
    parser.flag("--public", "a new repository is public, and the repository may be public")
    parser.flag("--dry_run", "say what would be uploaded, and do nothing")
    parser.flag("--allow_unverified", "publish what was not verified, or was found damaged")
    args = parser.parse_args()

    from postprocess_dataset.hub.push import PushSettings, push

    return push(
        PushSettings(
            release=args.release,
            repo=args.repo,
            public=args.public,
            dry_run=args.dry_run,
            allow_unverified=args.allow_unverified,
        )
    )


if __name__ == "__main__":
    run_script(main)
