"""A run of weeks in minutes: the real ledger (its file in memory) with a virtual clock and preemptible workers.

    python benchmarks/ledger_simulation.py            # 1,000,000 prompts, 1,000 workers with a mean life of 2 hours
    python benchmarks/ledger_simulation.py --quick

Each worker: a minute to load the model, then leases of up to --chunk_size prompts, a beat every 15 s, a completion per prompt. It dies
without a word after a time drawn from an exponential; half of the deaths are known to squeue. A new one starts a minute later. What its
death costs is the prompt in hand (a prompt is one sample of --prompt_s seconds here; of many images only the one in hand is lost).
Reference: the same work by workers that never die.
"""

import argparse
import heapq
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from generate.protocol.answers import AllDone, Grant
from generate.server.ledger import Ledger
from generate.server.live_leases import LeaseLimits

BEAT_S, LOAD_S = 15, 60


class Simulation:
    def __init__(self, folder, prompts, workers, mean_life_s, prompt_s, chunk_size, seed):
        self.draw, self.prompt_s, self.chunk_size, self.mean_life_s = (
            random.Random(seed),
            prompt_s,
            chunk_size,
            mean_life_s,
        )
        self.ledger = Ledger(Path(folder) / "ledger.sqlite", 1, 0.0, LeaseLimits())
        self.ledger.connection.execute(
            "PRAGMA synchronous = OFF"
        )  # the disk is not what is measured here
        self.ledger.define(
            0.0, {"name": "d", "total": prompts, "images_per_prompt": 1, "order_seed": 1}
        )
        while work := self.ledger.next_check():
            self.ledger.folder_checked(0.0, *work, {})
        self.requests, self.lost_s, self.drawn_s, self.deaths, self.finished, self.jobs = (
            {},
            0.0,
            0.0,
            0,
            False,
            {},
        )
        self.done_at = None
        self.events, self.number, self.born, self.left = [], 0, 0, prompts
        for n in range(workers):
            self.at(n * 0.1, self.start, n)
        self.at(1.0, self.sweep)
        self.at(30.0, self.squeue)

    def at(self, when, function, *args):
        self.number += 1
        heapq.heappush(self.events, (when, self.number, function, args))

    def count(self, what):
        self.requests[what] = self.requests.get(what, 0) + 1

    def run(self):
        while self.events and not self.finished:
            now, _, function, args = heapq.heappop(self.events)
            function(now, *args)
        return self.done_at

    def start(self, now, slot):
        self.born += 1
        worker = {
            "host": f"node{slot // 8}",
            "gpu": f"GPU-{slot % 8}",
            "array_job": 1,
            "task": slot,
            "restart": 0,
        }
        dies = now + self.draw.expovariate(1 / self.mean_life_s)
        state = {
            "client": f"c{self.born}",
            "worker": worker,
            "job": (str(self.born), 0),
            "dies": dies,
            "slot": slot,
            "lease": None,
            "todo": [],
            "images": 0,
            "since": now,
            "dead": False,
        }
        if self.draw.random() < 0.5:
            self.jobs[state["job"]] = "RUNNING"
        self.at(dies, self.die, state)
        self.at(now + LOAD_S, self.ask, state)
        self.at(now + BEAT_S, self.beat, state)

    def die(self, now, state):
        state["dead"] = True
        self.deaths += 1
        if state["todo"]:
            self.lost_s += now - state["since"]
        self.jobs.pop(state["job"], None)
        self.at(now + 60, self.start, state["slot"])

    def ask(self, now, state):
        if state["dead"]:
            return
        self.count("get_indices")
        answer = self.ledger.lease(
            now,
            "d",
            state["client"],
            f"r{self.number}",
            state["worker"],
            self.chunk_size,
            state["job"],
        )
        if isinstance(answer, Grant):
            state.update(lease=answer.lease, todo=list(answer.indices), since=now)
            self.at(now + self.prompt_s * self.draw.uniform(0.8, 1.2), self.complete, state)
        elif isinstance(answer, AllDone):
            self.finished = True
        else:
            while work := self.ledger.next_check():
                self.ledger.folder_checked(
                    now, *work, {idx: (1, 0) for idx in self.ledger.done_in(*work)}
                )
            self.at(now + answer.retry_after_s, self.ask, state)

    def complete(self, now, state):
        if state["dead"]:
            return
        self.count("complete")
        idx = state["todo"].pop(0)
        verdict = self.ledger.complete(
            now,
            state["client"],
            f"r{self.number}",
            state["lease"],
            [{"index": idx, "images": 1}],
            {idx: True},
        )[idx]
        assert verdict == "accepted", "a living worker lost its lease"
        state["images"] += 1
        self.drawn_s += now - state["since"]
        state["since"] = now
        self.left -= 1
        if not self.left:
            self.done_at = now
        if state["todo"]:
            self.at(now + self.prompt_s * self.draw.uniform(0.8, 1.2), self.complete, state)
        else:
            self.ask(now, state)

    def beat(self, now, state):
        if state["dead"]:
            return
        self.count("beat")
        leases = [state["lease"]] if state["todo"] else []
        self.ledger.beat(
            now,
            state["client"],
            leases,
            "drawing" if leases else "loading",
            state["todo"][:1],
            state["images"],
            state["worker"],
            "d",
        )
        self.at(now + BEAT_S * self.draw.uniform(0.8, 1.2), self.beat, state)

    def sweep(self, now):
        self.ledger.sweep(now)
        self.at(now + 1.0, self.sweep)

    def squeue(self, now):
        self.ledger.slurm_seen(now, self.jobs)
        self.at(now + 30.0, self.squeue)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--mean_life_s", type=float, default=7200)
    parser.add_argument(
        "--prompt_s", type=float, default=20, help="seconds that a worker draws one prompt"
    )
    parser.add_argument("--chunk_size", type=int, default=10)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="10,000 prompts, 100 workers with a mean life of 10 minutes",
    )
    args = parser.parse_args()
    if args.quick:
        args.prompts, args.workers, args.mean_life_s = 10_000, 100, 600
    began = time.process_time()
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        run = Simulation(
            folder,
            args.prompts,
            args.workers,
            args.mean_life_s,
            args.prompt_s,
            args.chunk_size,
            seed=0,
        )
        end = run.run()
        counts = run.ledger.counts("d")
    assert (
        counts["done"] + counts["set_aside"] == counts["total"]
        and counts["waiting"] == counts["leased"] == 0
    )
    ideal = LOAD_S + args.prompts * args.prompt_s / args.workers
    total = sum(run.requests.values())
    cpu = time.process_time() - began
    print(
        f"{args.prompts:,} prompts of {args.prompt_s:g} s, {args.workers:,} workers with a mean life of {args.mean_life_s:g} s,"
        f" leases of {args.chunk_size}"
    )
    print(
        f"took {end / 3600:.2f} h; without deaths {ideal / 3600:.2f} h: {end / ideal:.3f} times that"
        f" (loading after each of {run.deaths:,} deaths included)"
    )
    print(
        f"drawing lost to deaths {100 * run.lost_s / (run.lost_s + run.drawn_s):.2f} % of all drawing;"
        f" given back by ended leases {counts['given_back']}; set aside {counts['set_aside']}"
    )
    for what, number in sorted(run.requests.items()):
        print(
            f"  {what:12s} {number / end:9.1f} a second   for 10,000 workers {number / end * 10_000 / args.workers:9.0f}"
        )
    print(
        f"  all          {total / end:9.1f} a second   for 10,000 workers {total / end * 10_000 / args.workers:9.0f}"
    )
    print(
        f"the ledger alone: {1e6 * cpu / total:.0f} us of CPU a request, the simulation's own and its sweeps included"
    )


if __name__ == "__main__":
    main()
