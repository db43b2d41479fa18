"""Shared by all steps: the command line, crash-safe files, the console, SLURM, the version."""

import sys
from types import TracebackType


def _interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """sys.excepthook until that of common.command_line: Ctrl-C during its imports is one line."""
    if issubclass(kind, KeyboardInterrupt):
        name = sys.argv[0].rpartition("/")[2].removesuffix(".py")
        print(f"{name}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _interrupted

__version__ = "2.0.0.dev0"
