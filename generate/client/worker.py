"""The identity of this client: its host, its GPU, its SLURM task, its log.

this_worker()      # WorkerIdentity(host="node7", gpu="GPU-5f1c…", array_job="42", task="7", …)
"""

import os
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from common import slurm

# The submission that a process belongs to, in the environment of all its processes.
SUBMISSION = "GENERATE_IMAGES_SUBMISSION"
CHILD = "GENERATE_IMAGES_CLIENT"  # number and log of a client process, in its environment


@dataclass(frozen=True)
class WorkerIdentity:
    """What the job server is told of a client. gpu: a UUID, "cpu", or None (unknown)."""

    host: str
    gpu: str | None = None
    array_job: str | None = None
    task: str | None = None
    restart: int | None = None
    log: str | None = None  # a bare name in the output root
    submission: str | None = None  # the command that this worker is one of
    slurm_job_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The field `worker` of a request; the job's id is a field of its own."""
        record = asdict(self)
        del record["slurm_job_id"]
        return record


def this_worker() -> WorkerIdentity:
    """The identity of this process."""
    return WorkerIdentity(
        **slurm.identity(), gpu=gpu_uuid(), log=log_name(), submission=submission()
    )


def this_host() -> WorkerIdentity:
    """The identity of a process that asks the job server but generates nothing."""
    return WorkerIdentity(slurm.identity()["host"], submission=submission())


def submission() -> str:
    """The name of this submission, made by its first process and inherited by all others."""
    return os.environ.setdefault(SUBMISSION, secrets.token_hex(8))


def is_child() -> bool:
    """Whether this process is one of several clients that another process has started."""
    return CHILD in os.environ


def log_name() -> str | None:
    """The log of this process, a bare name in the output root.

    None: a SLURM task's, which follows from its ids.
    """
    return os.environ.get(CHILD, "").partition(" ")[2] or None


def gpus() -> list[str]:
    """The GPUs this process may use, each as CUDA_VISIBLE_DEVICES wants it. Imports no torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() and gpu.strip() != "-1"]
    return [line.split(",")[0].strip() for line in _nvidia_smi("index")]


def gpu_uuid() -> str:
    """The UUID of this client's GPU (its number where nvidia-smi does not tell), or "cpu"."""
    mine = gpus()
    if not mine:
        return "cpu"
    uuids = dict(line.split(", ") for line in _nvidia_smi("index,uuid") if ", " in line)
    return uuids.get(mine[0], mine[0])


def _nvidia_smi(fields: str) -> list[str]:
    done = slurm.run("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    return done.stdout.splitlines() if done.returncode == 0 else []
