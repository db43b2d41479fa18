"""Command-line options as every script here takes them. The same file, byte for byte, lies in combine_prompts/, generate/ and
postprocess_dataset/, since each folder runs on its own (tests/test_options.py holds the three together).

    parser = Options(__doc__)
    parser.add_argument("data_path")
    parser.flag("--use_slurm", "submit an array")        # --use_slurm, --use_slurm=True and --use_slurm False all work
    args = parser.parse_args()
"""

import argparse
import difflib
import sys

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Options(argparse.ArgumentParser):
    def __init__(self, doc, **kwargs):
        super().__init__(
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )
        self.flags = set()

    def flag(self, name, help, default=False):
        """Add a true/false option. Only a true/false word is taken as its value: `--use_slurm HPDv2.json` keeps its path."""
        self.flags.add(name)
        self.add_argument(
            name,
            type=_true_or_false,
            default=default,
            metavar="True|False",
            help=f"{help} (default: {default})",
        )

    def parse_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        followed_by = args[1:] + [""]
        args = [
            f"{a}=True" if a in self.flags and n.lower() not in WORDS else a
            for a, n in zip(args, followed_by)
        ]
        known, unknown = self.parse_known_args(args, namespace)
        for option in unknown:
            name = option.split("=")[0]
            names = [n for action in self._actions for n in action.option_strings]
            near = difflib.get_close_matches(name, names, 1, 0.5)
            self.error(
                f"unknown argument {option!r}"
                + (f", did you mean {near[0]}?" if near else ", see --help")
            )
        return known

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")  # one line: the usage of 40 options would bury it


def _true_or_false(word):
    if word.lower() not in WORDS:
        raise argparse.ArgumentTypeError(f"{word!r} is neither True nor False")
    return WORDS[word.lower()]
