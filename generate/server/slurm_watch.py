"""What SLURM knows, brought to the ledger: which jobs run (a lease of one that is gone ends early), which nodes pending tasks keep off.

watch = SlurmWatch(server); watch.step()      # in a thread: a squeue without an answer takes 9 s
"""

import json
import logging
import shutil

from common import slurm
from generate.server import identity as server_files

log = logging.getLogger("image_server")


class SlurmWatch:
    """server: look(function) -> function(ledger, now) under the ledger's lock; output_root."""

    def __init__(self, server):
        self.server = server
        self.path = server.output_root / server_files.FOLDER / "excluded_nodes.json"
        # [array, node] pairs that this server put on ExcNodeLists: nodes that the user excluded are never taken off again
        self.added = (
            {tuple(pair) for pair in json.loads(self.path.read_text())}
            if self.path.exists()
            else set()
        )
        self.there = set()

    @staticmethod
    def possible():
        return shutil.which("squeue") is not None and shutil.which("scontrol") is not None

    def step(self):
        jobs = slurm.queue()  # None = unknown: squeue failed
        self.server.look(lambda ledger, now: ledger.slurm_seen(now, jobs))
        rows = self.server.look(lambda ledger, now: ledger.quarantined())
        wanted = {
            (str(row["worker"]["array_job"]), row["host"])
            for row in rows
            if (row.get("worker") or {}).get("array_job") and row["host"]
        }
        for pair in wanted - self.added - self.there:
            done = slurm.exclude_node(*pair)
            if done == "done":
                self._record(self.added | {pair})
                log.warning(
                    "node %s is kept from the pending tasks of array %s (ExcNodeList): its worker is quarantined",
                    pair[1],
                    pair[0],
                )
            elif done == "there":
                self.there.add(pair)
        for pair in self.added - wanted:
            slurm.exclude_node(
                *pair, exclude=False
            )  # refused when nothing waits any more, and then there is nothing to take back
            self._record(self.added - {pair})
        self.there &= wanted

    def _record(self, added):
        self.added = added
        server_files.write_json(self.path, sorted(added))
