"""Tell the ledger which SLURM jobs run, and SLURM which nodes are to get no tasks.

watch = SlurmWatch(folder, ledger)
watch.step()                           # in a thread: a squeue without an answer takes 9 s

A lease of a job that is gone ends early; nodes of quarantined workers go onto the ExcNodeList.
"""

import json
import logging
import shutil
from pathlib import Path

from common import slurm
from common.files import keep_damaged, read_json, write_whole
from generate.server.ledger.ledger import Ledger
from generate.server.ledger.shared_ledger import SharedLedger

log = logging.getLogger("image_server")
Pair = tuple[str, str]  # array, node


class SlurmWatch:
    """SLURM's queue and ExcNodeLists, as this server sees and changes them."""

    def __init__(self, folder: Path, ledger: SharedLedger) -> None:
        """folder: the server's, where it keeps what it has put on ExcNodeLists."""
        self.ledger = ledger
        self.path = folder / "excluded_nodes.json"
        # What this server has put there: nodes that the user excluded are never taken off again.
        self.added = self._recorded()
        self.there: set[Pair] = set()  # excluded by the user

    def _recorded(self) -> set[Pair]:
        try:
            return {(str(array), str(node)) for array, node in read_json(self.path)}
        except FileNotFoundError:
            return set()
        except (ValueError, TypeError) as error:
            log.warning(
                "%s: %s; it is kept as %s. Nodes that this server has excluded from arrays stay "
                "so: scontrol update JobId=<array> ExcNodeList=<nodes>",
                self.path,
                error,
                keep_damaged(self.path).name,
            )
            return set()

    @staticmethod
    def possible() -> bool:
        """Whether squeue and scontrol are installed here."""
        return shutil.which("squeue") is not None and shutil.which("scontrol") is not None

    def step(self) -> None:
        """One round: end leases of jobs that are gone, exclude and include nodes."""
        jobs = slurm.queue()  # None = unknown: squeue failed
        self.ledger.run(Ledger.slurm_seen, jobs)
        wanted = {
            (str(row["worker"]["array_job"]), row["host"])
            for row in self.ledger.read(lambda ledger: ledger.queries.quarantined())
            if (row.get("worker") or {}).get("array_job") and row["host"]
        }
        for pair in wanted - self.added - self.there:
            done = slurm.exclude_node(*pair)
            if done == "done":
                self._record(self.added | {pair})
                log.warning(
                    "node %s is kept from the pending tasks of array %s (ExcNodeList): "
                    "its worker is quarantined",
                    pair[1],
                    pair[0],
                )
            elif done == "there":
                self.there.add(pair)
        for pair in self.added - wanted:
            # refused when nothing waits any more, and then there is nothing to take back
            if slurm.exclude_node(*pair, exclude=False) != "away":
                self._record(self.added - {pair})
        self.there &= wanted

    def _record(self, added: set[Pair]) -> None:
        self.added = added
        write_whole(self.path, json.dumps(sorted(added)) + "\n", mode=0o600)
