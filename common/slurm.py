"""SLURM as a process needs it: its identity, the time left, the user's queue; sbatch and requeue.

identity()["host"], time_left_s(), queue()
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from common.command_line import UserError

NO_ANSWER = "Is this a machine of the cluster, and does sinfo answer?"
# SLURM's answers to a requeue that will not change: --no-requeue, a job that has ended.
REFUSED = "disabled|invalid job id|already finished|already complet|permission"
AWAY = "contact|timed out|transmitted|standby|configuration source"  # slurmctld did not answer
# A line of queue(); other text on standard output is a site's own, or an error.
QUEUED = re.compile(r"(\S+) +([0-9]{1,9}) +([A-Z_]+) *")
REQUEUE_PAUSE_S = 2.0
LONGEST_REQUEUE_PAUSE_S = (
    10.0  # once slurmctld is back, it ends jobs beyond their limit within 30 s
)


def identity(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The identity of this process: {"host", "array_job", "task", "restart", "slurm_job_id"}.

    All but host are None outside of SLURM. host: SLURMD_NODENAME, else the host's name.
    slurm_job_id: "4711"; restart: int, 0 in the first run. A task keeps its id when it is requeued,
    so a worker is (slurm_job_id, restart).
    """
    environ = os.environ if environ is None else environ
    job = environ.get("SLURM_JOB_ID")
    return {
        "host": environ.get("SLURMD_NODENAME") or os.uname().nodename,
        "array_job": environ.get("SLURM_ARRAY_JOB_ID") if job else None,
        "task": environ.get("SLURM_ARRAY_TASK_ID") if job else None,
        "restart": int(environ.get("SLURM_RESTART_COUNT") or 0) if job else None,
        "slurm_job_id": job,
    }


def task_name(environ: Mapping[str, str] | None = None) -> str | None:
    """`<array>_<task>` (or the id of a job without array), to act on; None outside of SLURM.

    The last task of an array to start has the array's own id as SLURM_JOB_ID: a command with that
    id acts on the whole array.
    """
    who = identity(environ)
    return f"{who['array_job']}_{who['task']}" if who["array_job"] else who["slurm_job_id"]


def time_left_s() -> int | None:
    """Seconds this job may still run; None if unlimited, unknown or outside of SLURM.

    Costs a call of squeue: count down from it.
    """
    name = task_name()
    if not name:
        return None
    return seconds(run("squeue", "--noheader", f"--jobs={name}", "--format=%L").stdout.strip())


def requeue_self(reason: str) -> bool:
    """Have this very task requeued: it starts again, restart + 1, in about two minutes.

    Repeated until SLURM accepts it, since slurmctld may be away for a moment. True: SIGTERM follows
    at once, so this is the last thing a client does. False: outside of SLURM. UserError if SLURM
    refuses and would do so again.
    """
    name = task_name()
    if not name:
        return False
    _say(f"{reason}: asking SLURM to requeue {name}")
    said = ""
    pause_s = REQUEUE_PAUSE_S
    while (done := run("scontrol", "requeue", name)).returncode:
        why = " ".join(done.stderr.split())
        if re.search(REFUSED, why, re.I):
            raise UserError(f"{reason}, and SLURM does not requeue {name}: {why}")
        if why != said:
            _say(f"SLURM did not take it: {why}; asking again until it does")
            said = why
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_REQUEUE_PAUSE_S)
    return True


def report_start() -> None:
    """Tell the batch script (generate/launch/batch/) that this process has started well.

    If the process ends before, the script blames the node.
    """
    with contextlib.suppress(ValueError, OSError):
        os.kill(int(os.environ.get("GENERATE_IMAGES_KEEPER", "")), signal.SIGUSR2)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk under the log costs the line
        print(text, flush=True)


def queue() -> dict[tuple[str, int], str] | None:
    """The user's jobs in SLURM's queue: {(slurm_job_id, restart): state}, state "RUNNING", …

    None: unknown, squeue failed or says something else. An empty dict is an answer. One call of
    squeue for all jobs. A job that waits after a requeue has the restart count of its next run.
    """
    done = run("squeue", "--noheader", "--me", "--Format=JobID:32,RestartCnt:12,State:32")
    if done.returncode:
        return None
    rows = [QUEUED.fullmatch(line) for line in done.stdout.splitlines() if line.strip()]
    if not all(rows):
        return None
    return {(row[1], int(row[2])): row[3] for row in rows if row}


def exclude_node(array_job: str, node: str, exclude: bool = True) -> str:
    """Keep the pending tasks of an own array off a node, or let them use it again.

    Returns "done", "there" (it was so already), "" (SLURM refused, or no task waits), or "away"
    (it did not answer). To keep the user's own --exclude, call exclude=False only for nodes whose
    answer was "done".
    """
    shown = run("scontrol", "show", "job", array_job)
    if shown.returncode and not re.search("invalid job id", shown.stderr, re.I):
        return "away"
    pending = [record for record in shown.stdout.split("\n\n") if "JobState=PENDING" in record]
    if not pending:
        return ""
    found = re.search(r"ExcNodeList=(\S+)", pending[0])
    nodes: set[str] = set()
    if found and found[1] != "(null)":
        listed = run("scontrol", "show", "hostnames", found[1])
        if listed.returncode:  # without them the user's own would be taken off
            return "away"
        nodes = set(listed.stdout.split())
    if (node in nodes) == exclude:
        return "there"
    wanted = nodes | {node} if exclude else nodes - {node}
    names = ",".join(sorted(wanted))
    done = run("scontrol", "update", f"JobId={array_job}", f"ExcNodeList={names}")
    # Status 1 only says that running tasks of the array cannot be changed; each record that was
    # changed has its line "…: No error".
    changed = done.returncode == 0 or "No error" in done.stdout + done.stderr
    if changed:
        return "done"
    return "away" if re.search(AWAY, done.stderr, re.I) else ""


def sbatch(words: Sequence[object], stdin: str | None = None) -> str:
    """Submit a job; its number, "" with --test-only.

    UserError with sbatch's own words when SLURM refuses it, or when they name no job.
    """
    # SLURM_* of an interactive job (memory, CPUs) would contradict the script's options; the GPU
    # that was chosen here is not the one there.
    kept = {"SLURM_CONF", "SLURM_CLUSTERS"}
    dropped = {"CUDA_VISIBLE_DEVICES", "SBATCH_EXPORT"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not (name.startswith("SLURM_") or name in dropped)
    }
    done = subprocess.run(
        ["sbatch", "--parsable", *map(str, words)],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode == 0:
        if "--test-only" in words:
            return ""
        # A site's own sbatch may print more lines; the number stands in one of its own.
        if numbers := re.findall(r"^([0-9]{1,18})(?:;\S*)?$", done.stdout, re.M):
            return str(numbers[-1])
        said = done.stdout.strip()[:200]
        raise UserError(f"sbatch names no job, but says {said!r}: see squeue --me for what it did")
    lines = [
        re.sub(r"^(sbatch: )?(error|fatal): |^allocation failure: ", "", line)
        for line in done.stderr.strip().split("\n")
    ]
    why = "; ".join(dict.fromkeys(lines))
    if re.search("contact slurm controller|configuration source", why, re.I):
        raise UserError(f"SLURM does not answer: {why}. {NO_ANSWER}")
    raise UserError(
        f"SLURM refuses the job: {why}. See --partition, --account, --qos, --gres, --mem, --time"
    )


def partition_limit_s(partition: str) -> int | None:
    """Time limit of a partition in seconds (of several, the longest); None: none, or unknown."""
    shown = run("sinfo", "--noheader", f"--partition={partition}", "--format=%l").stdout
    limits = [seconds(line) for line in shown.split()]
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def max_array_size() -> int:
    """Tasks that an array may have; SLURM's default of 1001 if it does not answer."""
    shown = run("scontrol", "show", "config").stdout
    found = re.search(r"^MaxArraySize\s*=\s*([0-9]{1,9})\b", shown, re.M)
    return max(1, int(found[1])) if found else 1001


def run(*words: str, timeout_s: float = 15) -> subprocess.CompletedProcess[str]:
    """Run a command. If it is not installed, or does not answer in time, that is a failure, too.

    With slurmctld down its commands give up after 9 s. If PATH has folders that the user may not
    enter, a command that is not installed raises PermissionError.
    """
    try:
        return subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=timeout_s
        )
    except (FileNotFoundError, PermissionError):
        return subprocess.CompletedProcess(words, 1, "", f"{words[0]} was not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 1, "", str(error))


def seconds(text: str) -> int | None:
    """Seconds of a time as SLURM writes it: "90" (minutes), "5:59:30", "1-02:03:04", "1-2".

    None for UNLIMITED, INVALID and the like.
    """
    number = "([0-9]{1,9})"
    found = re.fullmatch(f"(?:{number}-)?{number}(?::{number})?(?::{number})?", text.strip())
    if not found:
        return None
    days, a, b, c = (int(part) if part else None for part in found.groups())
    if days is not None:
        return days * 86400 + (a or 0) * 3600 + (b or 0) * 60 + (c or 0)
    if c is not None:
        return (a or 0) * 3600 + (b or 0) * 60 + c
    return (a or 0) * 60 + (b or 0)
