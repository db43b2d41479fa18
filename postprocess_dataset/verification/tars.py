"""One pass over the tars: every member, the index, and what must not be published.

seen = TarPass("tars", evidence, found).run()
seen.samples, seen.lost, seen.names
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from common.command_line import UserError
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.manifest import Known
from postprocess_dataset.manifest.tar_facts import (
    TarFacts,
    kept_path,
    load_facts,
    read_facts,
)
from postprocess_dataset.progress import Progress
from postprocess_dataset.release_folder import WORK, others
from postprocess_dataset.to_tars import shard_plan
from postprocess_dataset.verification.evidence import Evidence
from postprocess_dataset.workers import forked, start

INLINE = 1  # shards: so few are read without worker processes
WORKERS = 8


@dataclass
class SeenTars:
    """names: of the shards, in their order. lost: samples of shards that cannot be read."""

    names: list[str] = field(default_factory=list)
    samples: int = 0
    lost: int = 0
    shuffled: bool = False
    taken: int | None = None  # rows that --where took; None: all
    options: dict[str, Any] = field(default_factory=dict)  # of the plan
    known: dict[str, Known] = field(default_factory=dict)  # for the manifest, by name
    damaged: set[str] = field(default_factory=set)


class TarPass:
    """output: the folder that convert_parquet_to_wds.py wrote.

    kept: a folder in which release.py has kept what it read of them.
    """

    def __init__(self, output: str, evidence: Evidence, found: Findings, kept: str = "") -> None:
        self.output = output
        self.kept = kept
        self.evidence = evidence
        self.found = found
        self.seen = SeenTars()
        self.progress = Progress("samples in tars")

    def run(self) -> SeenTars:
        """UserError: there is no such folder, or no tar in it."""
        try:
            there = sorted(name for name in os.listdir(self.output) if name.endswith(".tar"))
        except OSError as error:
            raise UserError(f"{self.output}: {error.strerror}") from None
        index = self._index()
        planned = self._planned()
        if not there and not index and not planned:
            raise UserError(f"{self.output}: there are no tars; run convert_parquet_to_wds.py")
        for name in there:
            if name not in planned and name not in index:
                self.found.add("foreign", f"{self.output}/{name}", "neither plan nor index has it")
        for name in others(self.output, {"": WORK["tars"]}):
            if name not in there:
                why = "convert_parquet_to_wds.py writes no such file; the manifest would list it"
                self.found.add("foreign", f"{self.output}/{name}", why)
        ours = [name for name in planned or sorted(index) if name in there]
        self.seen.names = ours
        for number, (name, shard) in enumerate(self._shards(ours)):
            self._add(number, name, shard, index)
        for name in sorted(index.keys() - set(there)):
            self._wrong("index_without_shard", name, "index.json lists it, and it is not there")
            self.seen.lost += index[name]["nsamples"]
        self.progress.close()
        return self.seen

    def _add(self, number: int, name: str, shard: TarFacts, index: dict[str, Any]) -> None:
        self.found.merge(shard.found)
        self.evidence.add_members(
            (*member, number, place) for place, member in enumerate(shard.members)
        )
        count = len(shard.members)
        if shard.known:
            self.seen.known[name] = shard.known
        self.seen.samples += count
        self.progress.add(count, shard.bytes)
        stated = index.get(name)
        if shard.fault:
            self._wrong("unreadable_shard", name, shard.fault)
            self.seen.damaged.add(name)
            self.seen.lost += max(0, (stated["nsamples"] if stated else count) - count)
        elif stated is None:
            self._wrong("index_without_shard", name, "index.json does not list it")
        elif (stated["nsamples"], stated["filesize"]) != (count, shard.bytes):
            why = f"index.json states {stated['nsamples']:,} samples, there are {count:,}"
            self._wrong("index_without_shard", name, why)

    def _wrong(self, kind: str, name: str, why: str) -> None:
        self.found.add(kind, f"{self.output}/{name}", why, mend=f"shard {name}")

    def _index(self) -> dict[str, Any]:
        """{shard: its entry} of index.json."""
        try:
            listed = shard_plan.load_index(self.output)["shardlist"]
            return {entry["url"]: entry for entry in listed}
        except FileNotFoundError:
            self._wrong("index_without_shard", "index.json", "there is none")
        except ValueError as error:
            self._wrong("index_without_shard", "index.json", f"cannot be read: {error}")
        return {}

    def _planned(self) -> list[str]:
        try:
            plan = shard_plan.load_plan(self.output)
        except UserError as error:
            self.found.add("torn", shard_plan.plan_path(self.output), str(error))
            return []
        if plan is None:
            return []
        self.seen.options = plan["options"]
        if plan["options"].get("where"):
            self.seen.taken = int(plan["kept"][0])
        self.seen.shuffled = bool(plan["options"]["split"]) or (
            plan["options"]["shuffle_seed"] is not None
        )
        return [shard["name"] for shard in plan["shards"]]

    def _shards(self, names: list[str]) -> Iterator[tuple[str, TarFacts]]:
        """The facts of each shard, in order: kept ones, or read by worker processes."""
        planned = bool(self.seen.options)
        places = {name: kept_path(self.kept, name) for name in names} if self.kept else {}
        unread = {name for name in names if not os.path.exists(places.get(name, ""))}
        workers = min(WORKERS, len(os.sched_getaffinity(0)), len(unread))
        with ExitStack() as stack:
            pool = stack.enter_context(forked(workers)) if len(unread) > INLINE else None
            waiting: deque[Future[TarFacts]] = deque()
            rest = iter([name for name in names if pool and name in unread])
            for name in names:
                while pool and len(waiting) < 2 * workers and (next_one := next(rest, "")):
                    path = os.path.join(self.output, next_one)
                    waiting.append(start(pool, read_facts, path, planned))
                if pool and name in unread:
                    yield name, waiting.popleft().result()
                else:
                    tar = os.path.join(self.output, name)
                    facts = None if name in unread else load_facts(places[name], tar)
                    yield name, facts or read_facts(tar, planned)
