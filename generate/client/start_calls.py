"""Calls of a client to the job server before its first lease.

may_load(job, parallel=16)                   # 0, or how many load at the moment
loaded(job)
cannot_start(job, "memory", "…")             # why the run is stopped, or None: try again

Each is tried once: a server that is away neither holds a start up nor stops a run.
"""

from generate.client.job_client import JobClient
from generate.protocol.answers import LoadAnswer, StartAnswer


def may_load(job: JobClient, parallel: int) -> int:
    """0, or how many other clients load at the moment: ask again."""
    answer = job.ask_once("/load", {"parallel": parallel})
    return LoadAnswer.from_json(answer).ahead if answer else 0


def loaded(job: JobClient) -> None:
    """The model is loaded, or the place given up."""
    job.ask_once("/load", {"loaded": True})


def cannot_start(job: JobClient, fault: str, error: str) -> str | None:
    """Say that this worker cannot start; why the run is stopped, or None: try again.

    fault: command, unclear, memory or device.
    """
    answer = job.ask_once("/cannot_start", {"kind": fault, "error": error})
    return StartAnswer.from_json(answer).stopped if answer else None
