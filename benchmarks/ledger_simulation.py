"""A run of weeks, simulated in minutes: the real ledger (in memory), virtual time, dying workers.

    python benchmarks/ledger_simulation.py         # 1,000,000 prompts, 1,000 workers, mean life 2 h
    python benchmarks/ledger_simulation.py --quick

Each worker: a minute to load the model, then leases of up to --chunk_size prompts, a heartbeat
every --beat_s, a completion for each prompt. It dies without a report after an exponentially
distributed time; squeue shows half of the deaths. A new worker starts a minute later. A death costs
the prompt that is being generated (here one sample of --prompt_s seconds; of a prompt with many
images only the one being generated). Reference: the same work by workers that never die.
"""

import argparse
import heapq
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from generate.protocol.answers import ACCEPTED, AllDone, Grant
from generate.server.ledger.granting import WorkRequest
from generate.server.ledger.ledger import open_ledger
from generate.server.ledger.live_leases import Heartbeat, LeaseLimits

LOAD_S = 60
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass
class SimulatedWorker:
    client: str
    slot: int
    job: tuple[str, int]
    since: float  # when the prompt in hand was begun
    lease: str = ""
    todo: list[int] = field(default_factory=list)
    images: int = 0
    dead: bool = False

    @property
    def identity(self) -> dict[str, object]:
        return {"host": f"node{self.slot // 8}", "gpu": f"GPU-{self.slot % 8}", "task": self.slot}


class Simulation:
    def __init__(self, folder: str, options: argparse.Namespace) -> None:
        self.options = options
        self.random = random.Random(0)
        self.beat_s = options.beat_s
        limits = LeaseLimits(ttl_s=8 * self.beat_s, heartbeat_s=self.beat_s)
        self.ledger = open_ledger(Path(folder) / "ledger.sqlite", 1, 0.0, limits)
        # the disk is not what is measured here
        self.ledger.store.connection.execute("PRAGMA synchronous = OFF")
        self.ledger.define(
            0.0, {"name": "d", "total": options.prompts, "images_per_prompt": 1, "order_seed": 1}
        )
        self.check()
        self.requests: Counter[str] = Counter()
        self.lost_s = 0.0
        self.generated_s = 0.0
        self.deaths = 0
        self.finished = False
        self.jobs: dict[tuple[str, int], str] = {}  # what squeue shows
        self.done_at = 0.0
        self.left = options.prompts
        self.born = 0
        self.number = 0  # of events; also makes request ids
        self.events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        for slot in range(options.workers):
            self.at(slot * 0.1, self.start, slot)
        self.at(1.0, self.sweep)
        self.at(30.0, self.squeue)

    def at(self, when: float, function: Callable[..., None], *args: object) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, function, args))

    def run(self) -> float:
        """Seconds of virtual time until the last prompt was done."""
        while self.events and not self.finished:
            now, _, function, args = heapq.heappop(self.events)
            function(now, *args)
        return self.done_at

    def check(self) -> None:
        """The folder holds what the ledger says."""
        comparison = self.ledger.comparison
        while work := comparison.next_check():
            found = {idx: (1, 0) for idx in self.ledger.store.done_in(*work)}
            comparison.folder_checked(*work, found)

    def prompt_s(self) -> float:
        return self.options.prompt_s * self.random.uniform(0.8, 1.2)

    def start(self, now: float, slot: int) -> None:
        self.born += 1
        worker = SimulatedWorker(f"c{self.born}", slot, (str(self.born), 0), now)
        if self.random.random() < 0.5:
            self.jobs[worker.job] = "RUNNING"
        self.at(now + self.random.expovariate(1 / self.options.mean_life_s), self.die, worker)
        self.at(now + LOAD_S, self.ask, worker)
        self.at(now + self.beat_s, self.heartbeat, worker)

    def die(self, now: float, worker: SimulatedWorker) -> None:
        worker.dead = True
        self.deaths += 1
        if worker.todo:
            self.lost_s += now - worker.since
        self.jobs.pop(worker.job, None)
        self.at(now + 60, self.start, worker.slot)

    def ask(self, now: float, worker: SimulatedWorker) -> None:
        if worker.dead:
            return
        self.requests["get_indices"] += 1
        size = self.options.chunk_size
        answer = self.ledger.lease(
            now,
            WorkRequest("d", worker.client, f"r{self.number}", worker.identity, size, worker.job),
        )
        if isinstance(answer, Grant):
            worker.lease = answer.lease
            worker.todo = list(answer.indices)
            worker.since = now
            self.at(now + self.prompt_s(), self.complete, worker)
        elif isinstance(answer, AllDone):
            self.finished = True
        else:
            self.check()
            self.at(now + answer.retry_after_s, self.ask, worker)

    def complete(self, now: float, worker: SimulatedWorker) -> None:
        if worker.dead:
            return
        self.requests["complete"] += 1
        idx = worker.todo.pop(0)
        results = [{"index": idx, "images": 1}]
        verdicts = self.ledger.complete(
            now, worker.client, f"r{self.number}", worker.lease, results, {idx: True}
        )
        assert verdicts[idx] == ACCEPTED, "a living worker lost its lease"
        worker.images += 1
        self.generated_s += now - worker.since
        worker.since = now
        self.left -= 1
        if not self.left:
            self.done_at = now
        if worker.todo:
            self.at(now + self.prompt_s(), self.complete, worker)
        else:
            self.ask(now, worker)

    def heartbeat(self, now: float, worker: SimulatedWorker) -> None:
        if worker.dead:
            return
        self.requests["heartbeat"] += 1
        leases = [worker.lease] if worker.todo else []
        state = "drawing" if leases else "loading"
        self.ledger.heartbeat(
            now,
            Heartbeat(
                worker.client, leases, state, worker.todo[:1], worker.images, worker.identity, "d"
            ),
        )
        self.at(now + self.beat_s * self.random.uniform(0.8, 1.2), self.heartbeat, worker)

    def sweep(self, now: float) -> None:
        self.ledger.sweep(now)
        self.at(now + 1.0, self.sweep)

    def squeue(self, now: float) -> None:
        self.ledger.slurm_seen(now, self.jobs)
        self.at(now + 30.0, self.squeue)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--mean_life_s", type=float, default=7200)
    parser.add_argument(
        "--prompt_s", type=float, default=20, help="seconds that a worker needs for one prompt"
    )
    parser.add_argument("--chunk_size", type=int, default=10)
    parser.add_argument(
        "--beat_s", type=float, default=15, help="between heartbeats; a lease lives 8 times as long"
    )
    parser.add_argument(
        "--quick", action="store_true", help="10,000 prompts, 100 workers, mean life 10 minutes"
    )
    options = parser.parse_args()
    if options.quick:
        options.prompts = 10_000
        options.workers = 100
        options.mean_life_s = 600
    return options


def report(run: Simulation, end: float, cpu_s: float) -> None:
    options = run.options
    counts = run.ledger.queries.counts("d")
    assert counts["done"] + counts["set_aside"] == counts["total"]
    assert counts["waiting"] == counts["leased"] == 0
    ideal = LOAD_S + options.prompts * options.prompt_s / options.workers
    lost = run.lost_s / (run.lost_s + run.generated_s)
    total = run.requests.total()
    print(
        f"{options.prompts:,} prompts of {options.prompt_s:g} s, {options.workers:,} workers with "
        f"a mean life of {options.mean_life_s:g} s, leases of {options.chunk_size}, a heartbeat "
        f"every {options.beat_s:g} s\n"
        f"took {end / 3600:.2f} h; without deaths {ideal / 3600:.2f} h: {end / ideal:.3f} times "
        f"that (loading after each of {run.deaths:,} deaths included)\n"
        f"work lost to deaths {100 * lost:.2f} % of all; "
        f"released by ended leases {counts['given_back']}; failed {counts['set_aside']}"
    )
    for what, number in [*sorted(run.requests.items()), ("all", total)]:
        each = number / end
        print(
            f"  {what:12s} {each:9.1f} a second   "
            f"for 10,000 workers {each * 10_000 / options.workers:9.0f}"
        )
    print(
        f"the ledger alone: {1e6 * cpu_s / total:.0f} us of CPU a request, "
        "the simulation's own and its sweeps included"
    )


def main() -> None:
    options = options_of()
    began = time.process_time()
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        run = Simulation(folder, options)
        end = run.run()
        report(run, end, time.process_time() - began)


if __name__ == "__main__":
    main()
