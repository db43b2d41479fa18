"""FakeSlurm: a `squeue` and a `scontrol` that answer from a file, as SLURM answers.

For what a cluster cannot be brought to do in a test.

slurm = FakeSlurm(folder)                                # put the folder on PATH
slurm.set(queue=[["71", 0, "RUNNING"]], arrays={"7": "n[3-4]"})      # array id: its ExcNodeList
slurm.set(squeue_fails=True)                             # as with slurmctld down
slurm.set(scontrol_fails="hostnames")                    # the calls with that word do
slurm.excluded("7"), slurm.calls()
"""

import json
import re
import sys
from pathlib import Path

PENDING = """JobId={job} ArrayJobId={job} ArrayTaskId=2-9 JobName=p
   JobState=PENDING Reason=Resources Dependency=(null)
   ReqNodeList=(null) ExcNodeList={excluded}

"""
RUNNING = """JobId={job}1 ArrayJobId={job} ArrayTaskId=1 JobName=p
   JobState=RUNNING Reason=None Dependency=(null)
   ReqNodeList=(null) ExcNodeList=(null)

"""


class FakeSlurm:
    def __init__(self, folder):
        self.state = folder / "fake_slurm.json"
        self.log = folder / "fake_slurm.calls"
        self.state.write_text(
            json.dumps({"queue": [], "arrays": {}, "squeue_fails": False, "scontrol_fails": None})
        )
        self.log.touch()
        for name in ("squeue", "scontrol"):
            (folder / name).write_text(
                f'#!/bin/sh\nexec {sys.executable} -S {__file__} {self.state} {name} "$@"\n'
            )
            (folder / name).chmod(0o755)

    def set(self, **changes):
        """queue: [[job id, restart count, state], …], or text; squeue_fails: whether squeue does.

        arrays: {id of an array of which tasks wait: its ExcNodeList}.
        """
        self.state.write_text(json.dumps(json.loads(self.state.read_text()) | changes))

    def excluded(self, array):
        return json.loads(self.state.read_text())["arrays"][array]

    def calls(self, word=""):
        """The command lines so far that hold a word."""
        return [line for line in self.log.read_text().splitlines() if word in line]


def hostnames(listed):
    """n1,n[3-4] -> ["n1", "n3", "n4"]"""
    names = []
    for name, first, last in re.findall(r"([a-z]+)\[?(\d+)(?:-(\d+)\])?", listed):
        names += [f"{name}{n}" for n in range(int(first), int(last or first) + 1)]
    return names


def squeue(state, *_):
    if state["squeue_fails"]:
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    if isinstance(state["queue"], str):
        print(state["queue"])
        return
    for job, restart, word in state["queue"]:
        print(f"{job:<32}{restart:<12}{word:<32}")


def scontrol(state, verb, *words):
    if state["scontrol_fails"] in (verb, words[0]):
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    if words[0] == "hostnames":
        print("\n".join(hostnames(words[1])))
    elif verb == "show":
        if words[1] not in state["arrays"]:
            sys.exit("slurm_load_jobs error: Invalid job id specified")
        print(
            (RUNNING + PENDING).format(
                job=words[1], excluded=state["arrays"][words[1]] or "(null)"
            ),
            end="",
        )
    else:  # status 1 for the task that runs, and "No error" for those that wait
        job, excluded = (word.partition("=")[2] for word in words)
        state["arrays"][job] = excluded
        sys.exit(f"{job}_1: Job is no longer pending execution\n{job}_2-9: No error")


def main(path, command, *words):
    path = Path(path)
    with open(path.with_suffix(".calls"), "a") as log:
        log.write(" ".join([command, *words]) + "\n")
    state = json.loads(path.read_text())
    try:
        {"squeue": squeue, "scontrol": scontrol}[command](state, *words)
    finally:
        path.write_text(json.dumps(state))


if __name__ == "__main__":
    main(*sys.argv[1:])
