# PYTHON_ARGCOMPLETE_OK
"""Describe a release: README.md (the hub's YAML, a datasheet), ATTRIBUTION.md, croissant.json.

    python postprocess_dataset/make_dataset_card.py release/HPDv2 --about about.yaml
    python postprocess_dataset/make_dataset_card.py release/HPDv2 --licence mine=CC0-1.0

Counts, columns, settings and licences are those of the release. What only you know (motivation,
authors, uses, …) stands in a YAML file; what it lacks is named in the card as a gap.
"""

import os
import sys

# the checkout: modules are imported by their full names
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
if __name__ == "__main__":
    import common

    sys.excepthook = common.interrupted  # first of all: from here on Ctrl-C is one line

from common.command_line import Options, run_script
from postprocess_dataset.options import add_about_option, add_licence_option


def main() -> int:
    parser = Options(__doc__)
    parser.add_argument("release", metavar="RELEASE", help="made by make_release_forms.py")
    add_about_option(parser)
    add_licence_option(parser)
    args = parser.parse_args()

    from postprocess_dataset.release_card.card import CardSettings, make_card

    make_card(CardSettings(release=args.release, about=args.about, licences=args.licence))
    return 0


if __name__ == "__main__":
    run_script(main)
