"""Shared by all steps: the command line, crash-safe files, the console, SLURM, the version."""

import sys


def interrupted(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """sys.excepthook of a script's imports, until that of common.command_line: Ctrl-C is one line.

    This module loads nothing else: until it is loaded, Ctrl-C is a traceback.
    """
    if issubclass(kind, KeyboardInterrupt):
        name = sys.argv[0].rpartition("/")[2].removesuffix(".py")
        print(f"{name}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, error.__traceback__)


__version__ = "2.0.0.dev0"
