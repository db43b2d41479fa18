"""Limits of space and files below an output root: of its file system and of quotas.

for name, bytes_left, files_left in disk_limits(Path("/data/outputs")): ...
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from common.files import device_of, file_system_of

QUOTA_S = 20  # a quota command may wait for a file server that is away
Limit = tuple[str, float | None, float | None]  # who sets it, bytes left, files left


def disk_limits(output_root: Path) -> list[Limit]:
    """What may still be written below output_root, by the file system and by quotas."""
    root = Path(os.path.realpath(output_root))
    root = next(folder for folder in (root, *root.parents) if folder.exists())
    stat = os.statvfs(root)
    # btrfs and some network file systems count no files
    files_left = stat.f_favail if stat.f_files else None
    limits: list[Limit] = [("the file system", stat.f_bavail * stat.f_frsize, files_left)]
    mounted = (device_of(root), file_system_of(root)[1])
    for command in (
        ["quota", "-w", "-p", "-u"],
        ["lfs", "quota", "-q", "-u", str(os.getuid()), str(root)],
    ):
        rows = quota_rows(_output_of(command)) if shutil.which(command[0]) else []
        limits += [
            (f"the quota of {name}", bytes_left, files_left)
            for name, bytes_left, files_left in rows
            if name in mounted
        ]
    return limits


def _output_of(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=QUOTA_S).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"no quota is known: {command[0]}: {type(error).__name__}", file=sys.stderr)
        return ""


def quota_rows(text: str) -> list[Limit]:
    """The rows of `quota -w -p` and of `lfs quota -q`: (file system, bytes left, files left).

    A row is "file system, kB used, soft, hard, grace, files used, soft, hard, grace". 0 = no limit;
    the lower one of the soft and the hard limit counts.
    """
    rows: list[Limit] = []
    for line in text.splitlines():
        name, *words = line.split() or [""]
        numbers = [int(word.rstrip("*")) if word.rstrip("*").isdigit() else 0 for word in words]
        if len(numbers) < 7 or not words[0].rstrip("*").isdigit():
            continue
        kilobytes = _left(*numbers[0:3])
        rows.append((name, None if kilobytes is None else kilobytes * 1024, _left(*numbers[4:7])))
    return rows


def _left(used: int, soft: int, hard: int) -> int | None:
    limits = [limit for limit in (soft, hard) if limit]
    return max(0, min(limits) - used) if limits else None
