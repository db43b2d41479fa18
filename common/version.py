"""The version of this project, recorded with every image and in /status."""

import functools
import subprocess

from common import __version__
from common.files import CHECKOUT


@functools.lru_cache(maxsize=1)
def version() -> str:
    """`2.0.0+1a2b3c4d5e6f`: the version and, in a git checkout, its commit (`.dirty`: changed).

    Never raises: without git, or outside of a checkout, it is the version alone.
    """
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return __version__
    changed = ".dirty" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{__version__}+{commit}{changed}"


def _git(*words: str) -> str:
    """What git says of the checkout; empty when it cannot (no git, no repository, no answer)."""
    if not (CHECKOUT / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *words],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
