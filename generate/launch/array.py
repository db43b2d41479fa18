"""The SLURM arrays of a data set: which are alive, their throttle, --cancel and --tail_log.

python generate/generate_images.py HPDv2.json --cancel
"""

import json
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from common import slurm
from common.command_line import DONE, FAILED, UserError
from common.console import visible
from common.files import named, open_plain
from common.json_text import parse_json
from common.untrusted import read_text
from generate.launch import sbatch
from generate.protocol.output_root import server_folder

NEWEST_LOGS = 5
LONGEST_LINE = 1 << 16


def job_name(dataset: str) -> str:
    """SLURM's name of the arrays of a data set."""
    return f"generate_parallel_{dataset}"


def record(output_root: Path, entry: dict[str, Any]) -> None:
    """Note a submitted array: {"dataset", "array": its number, "tasks", "server", "script"}."""
    path = _file(output_root)
    with named(path), open(path, "a", opener=open_plain) as file:
        file.write(json.dumps(entry) + "\n")


def submitted(output_root: Path, dataset: str) -> list[dict[str, Any]]:
    """What record() noted for this data set, oldest first."""
    file = _file(output_root)
    try:
        lines = read_text(file).splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = parse_json(line)
            if not all(isinstance(entry[name], str) for name in ("dataset", "array")):
                raise ValueError("not what record() writes")
            entries.append(entry)
        except (ValueError, LookupError, TypeError):
            raise UserError(
                f"{file}: line {number} is torn (a full disk?); remove it, and look for its array "
                "in squeue"
            ) from None
    return [entry for entry in entries if entry["dataset"] == dataset]


def _file(output_root: Path) -> Path:
    return server_folder(output_root) / "arrays.jsonl"


def live(output_root: Path, dataset: str) -> list[str]:
    """The numbers of the arrays that are queued or run, oldest first.

    UserError if squeue does not answer: silence is no empty queue.
    """
    entries = submitted(output_root, dataset)
    if not entries:
        return []
    done = slurm.run("squeue", "--noheader", "--me", "--format=%F %j")
    if done.returncode:
        raise UserError(f"SLURM does not answer: {done.stderr.strip()}. {slurm.NO_ANSWER}")
    # The whole name is compared here, since --name= takes "cats, dogs" for two names; and not the
    # number alone, since SLURM may use a number again.
    known = set(done.stdout.splitlines())
    return [e["array"] for e in entries if f"{e['array']} {job_name(dataset)}" in known]


def set_throttle(arrays: list[str], num_workers: int) -> None:
    """Let at most `num_workers` tasks of these arrays, taken together, run at a time."""
    for array, share in zip(arrays, sbatch.shares(num_workers, len(arrays)), strict=True):
        done = slurm.run("scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={share}")
        if done.returncode:
            raise UserError(f"array {array} keeps its throttle: {done.stderr.strip()}")
    print(
        f"already submitted as array {', '.join(arrays)}: at most {num_workers} tasks run at a "
        "time from now on, nothing else was changed (--cancel first for a new array)"
    )


def cancel(output_root: Path, dataset: str) -> int:
    """Cancel all tasks of the data set's arrays; what they hold is released at once."""
    arrays = live(output_root, dataset)
    if not arrays:
        print(f"no array of {dataset} is queued or runs for {output_root}")
        return 0
    last = slurm.max_array_size() - 1
    done = slurm.run("scancel", *(f"{array}_[0-{last}]" for array in arrays))
    if done.returncode:
        raise UserError(f"scancel failed: {done.stderr.strip()}")
    print(
        f"array {', '.join(arrays)} cancelled; the tasks publish what they have generated and "
        "release the rest. The job server goes on"
    )
    return 0


def tail_log(output_root: Path, dataset: str) -> int:
    """Follow the newest logs of the last submission's tasks, or of local runs (`tail -f`).

    UserError if there are none, and no task is left that could write one.
    """
    entries = submitted(output_root, dataset)
    if not entries:
        if logs := list(output_root.glob("local_*.out")):
            return _follow(logs)
        raise UserError(f"no client of {dataset} has run in {output_root}: there are no logs yet")
    # an array that was split has several numbers and one script
    script = entries[-1].get("script")
    arrays = [entry["array"] for entry in entries if entry.get("script") == script]

    def find() -> list[Path]:
        return [log for array in arrays for log in output_root.glob(f"{array}_*.out")]

    while not (logs := find()):
        try:
            waits = bool(set(arrays).intersection(live(output_root, dataset)))
        except UserError:  # squeue does not answer, which may pass
            waits = True
        if not waits and not find():  # looked again: a task may have begun and ended in between
            raise UserError(
                f"array {', '.join(arrays)} has left the queue (cancelled?) and none of its tasks "
                f"has written a log; `sacct -j {arrays[0]}` says how it ended"
            )
        print(f"array {', '.join(arrays)}: no task has started yet", flush=True)
        time.sleep(10)
    return _follow(logs)


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Each line; of a long one the beginning, since a sparse file is one line of any length.

    BrokenPipeError: nobody reads standard output any more, also while no line comes.
    """
    ready = select.poll()
    ready.register(stream, select.POLLIN)
    ready.register(sys.stdout.fileno(), 0)  # only that its reader has gone
    rest = b""
    while True:
        if sys.stdout.fileno() in dict(ready.poll()):
            raise BrokenPipeError
        if not (piece := os.read(stream.fileno(), LONGEST_LINE)):
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="backslashreplace") for line in lines)
        rest = rest[:LONGEST_LINE]


def _follow(logs: Sequence[Path]) -> int:
    """Show them until a signal ends this; libraries write into them, too, and so do others.

    A link or a pipe among them would show a file of elsewhere, or hold all of them up.
    """
    plain = [log for log in logs if stat.S_ISREG(log.lstat().st_mode)]
    if not plain:
        raise UserError(f"{logs[0]} is no plain file, so it is not shown")
    newest = sorted(plain, key=lambda log: log.stat().st_mtime)[-NEWEST_LOGS:]
    command = ["tail", f"--pid={os.getpid()}", "-n", "20", "-f", *map(str, newest)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tail:
        try:
            for line in _lines(cast(IO[bytes], tail.stdout)):
                print(visible(line), flush=True)
        finally:
            tail.terminate()
    return DONE if tail.returncode == 0 else FAILED
