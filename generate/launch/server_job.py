"""The job server as a SLURM job: submitted with an array, and again by its tasks if it is away.

job = submit(output_root)            # None: another task was faster, or its job is queued or runs
look_after(client)                   # in a task: submits it when no server answers for long

Its script, .server/image_server.sbatch, is written at the submission of the array. Each submission
is claimed by a numbered file that only one process can create, so that of a thousand tasks one
wins; the file holds the job's number.
"""

import logging
import os
import random
import re
import threading
import time
from pathlib import Path

from common import slurm
from common.command_line import UserError
from common.untrusted import read_text
from generate.client.job_client import JobClient
from generate.protocol.output_root import server_folder

log = logging.getLogger(__name__)

NAME = "image_server"
# A server that dies is started again by its own script; on another node that takes two minutes.
AWAY_S = float(os.environ.get("GENERATE_IMAGES_SERVER_AWAY_S") or 300)
LOOK_S = 15.0
CLAIM_BYTES = 1000
CLAIM_S = 300.0  # for the process that has made a claim to submit the job


def script_path(output_root: str | os.PathLike[str]) -> Path:
    """Where the server's sbatch script lies."""
    return server_folder(output_root) / f"{NAME}.sbatch"


def submit(output_root: str | os.PathLike[str]) -> str | None:
    """Submit the server's job; its number, or None if one lives or another process is faster.

    UserError if SLURM refuses it.
    """
    claims = server_folder(output_root) / "server_jobs"
    claims.mkdir(mode=0o700, exist_ok=True)
    last = max(
        (int(name) for name in os.listdir(claims) if re.fullmatch("[0-9]+", name)), default=0
    )
    if last and _lives(claims / str(last)):
        return None
    try:
        claim = os.open(claims / str(last + 1), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return None
    with open(claim, "w") as file:
        job = slurm.sbatch([script_path(output_root)])
        file.write(job)
    return job


def _lives(claim: Path) -> bool:
    """Whether the job of a claim is queued or runs. Assumed as long as SLURM does not answer."""
    job = read_text(claim, CLAIM_BYTES).strip()
    if not job:
        return time.time() - claim.stat().st_mtime < CLAIM_S
    queue = slurm.queue()
    return queue is None or any(job == queued for queued, _ in queue)


def look_after(client: JobClient) -> None:
    """Submit the server's job whenever none has answered this client for AWAY_S; in a thread."""
    threading.Thread(target=_watch, args=(client,), name="server job", daemon=True).start()


def _watch(client: JobClient) -> None:
    while True:
        time.sleep(min(LOOK_S, AWAY_S) * random.uniform(0.5, 1))
        since = client.away_since
        if since is None or time.monotonic() - since < AWAY_S:
            continue
        try:
            job = submit(client.output_root)
        except (UserError, OSError) as error:
            log.warning("no job server answers, and none could be submitted: %s", error)
            continue
        if job:
            log.warning("no job server answers for %d s: submitted one as job %s", AWAY_S, job)
