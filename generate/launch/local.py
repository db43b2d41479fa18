"""Several client processes on one machine: the local mode of generate_images.py, and a SLURM task that was given several GPUs.

    python generate/generate_images.py examples/shapes.json --model tiny --llm embedded --num_workers=2

Each client is a process of its own with a GPU of its own. Without SLURM a job server is started for the run if none answers. A client that
a signal killed is started again, as SLURM's requeue would.
"""

import os
import random
import signal
import subprocess
import sys
import time

from common import slurm
from common.files import CHECKOUT
from generate.client import image_generator as diffusion
from generate.client import job_client
from generate.client.process import CHILD, REQUEUE, gpus, nothing_left
from generate.launch import status as run_status
from generate.protocol.connection import ServerAway

SERVER = CHECKOUT / "generate" / "image_server.py"
MOST_DEATHS = (
    20  # of one client by signals: a text that crashes the process is set aside after a few
)
SERVER_START_S = 60


# ---------------------------------------------------------------- the run


def run(args, definition, root):
    """Run the clients to their end; the exit status: 0 when the server says that all is done, 3 with prompts set aside, 1 otherwise."""
    try:
        (root / "generated_images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(
            f"generate_images: cannot write to the output root {root}: {error.strerror}; choose another with --output_root"
        ) from None
    job = job_client.JobClient(
        root, definition, {"host": slurm.identity()["host"], "gpu": None}, server_timeout_s=30
    )
    server = None if args.is_slurm_task else start_server(job, root)
    try:
        if ended := nothing_left(job):
            return 3 if ended.set_aside else 0
        if not args.pipeline:
            diffusion.check_model(args.model, args.revision)
        return supervise(args, definition, root)
    finally:
        if server:
            server.send_signal(signal.SIGTERM)
            server.wait()


def start_server(job, root):
    """Start a job server for this run if none answers; its process, or None."""
    try:
        job.check()
        return None
    except ServerAway:
        pass
    log = root / "image_server.out"
    with open(log, "ab") as out:
        start = out.tell()
        # Short leases: on one machine a beat is late only when its process is dead. A session of its own: Ctrl-C ends the clients first.
        words = [
            "--output_root",
            str(root),
            "--host",
            "127.0.0.1",
            "--ttl_s",
            "30",
            "--beat_s",
            "5",
            "--stop_when_done",
        ]
        server = subprocess.Popen(
            [sys.executable, "-u", str(SERVER), *words],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    print(f"job server: process {server.pid}, log {log}", flush=True)
    end = time.monotonic() + SERVER_START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            job.check()
            return server
        except ServerAway:
            time.sleep(0.1)
    server.kill()
    said = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
    raise SystemExit(
        f"generate_images: the job server did not start: {said[-1] if said else 'no word from it'}; its log is {log}"
    )


class Child:
    """One client process."""

    def __init__(self, number, gpu, root):
        self.number, self.gpu, self.root, self.deaths = number, gpu, root, 0
        self.start()

    def start(self):
        who = slurm.task_name() or f"local_{os.uname().nodename}_{os.getpid()}"
        self.log = self.root / f"{who}_{self.number}.out"
        environment = os.environ | {CHILD: f"{self.number} {self.log.name}"}
        environment |= {"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {}
        words = [word for word in sys.argv if not word.startswith("--is_slurm_task")]
        with open(self.log, "ab") as out:
            self.said_from = out.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-u", *words, "--is_slurm_task"],
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        print(f"client {self.number}: process {self.process.pid}, log {self.log}", flush=True)

    def ended(self, leaving):
        """Whether it has ended for good. Says how, if not well; starts it again if a signal killed it."""
        status = self.process.poll()
        if status is None:
            return False
        if status < 0 and not leaving and self.deaths < MOST_DEATHS:
            self.deaths += 1
            killed = (
                f"client {self.number} (process {self.process.pid}) was killed by signal {-status}"
            )
            print(f"{killed}; its indices go back when its lease ends", flush=True)
            time.sleep(random.uniform(0.5, 1))
            self.start()
            return False
        if status not in (0, 3, REQUEUE) and not leaving:
            said = (
                self.log.read_bytes()[self.said_from :]
                .decode(errors="replace")
                .strip()
                .splitlines()
            )
            print(
                said[-1]
                if said
                else f"client {self.number} ended with status {status}, log {self.log}",
                file=sys.stderr,
                flush=True,
            )
        return True


def supervise(args, definition, root):
    """Start the clients, show their progress, pass signals on."""
    mine = gpus()
    count = len(mine) if args.is_slurm_task else max(args.num_workers, len(mine))
    heard = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, lambda number, frame: heard.append(number))
    children = [Child(n, mine[n % len(mine)] if mine else None, root) for n in range(count)]
    progress, passed_on = Progress(definition, root), 0
    while not all([child.ended(heard) for child in children]):
        for number in heard[passed_on:]:
            passed_on += 1
            for child in children:
                if child.process.poll() is None:
                    child.process.send_signal(number)
        progress.show()
        time.sleep(0.2)
    statuses = {child.process.returncode for child in children}
    counts = progress.show(last=True)
    if REQUEUE in statuses:
        slurm.requeue_self("a client of this task ran out of time or of a job server")
        statuses = statuses - {REQUEUE} | {0}
    if heard:
        return 0 if statuses <= {0, 3} else 1
    if counts is None:
        return 1 if statuses - {0, 3} else max(statuses)
    left = counts["total"] - counts["done"] - counts["set_aside"]
    if counts["set_aside"]:
        server = f"python {SERVER} --output_root {root}"
        print(
            f"{counts['set_aside']:,} prompts were set aside. With a job server running (`{server}`), `{server} --status` names them, and\n"
            f"`{server} --retry_failed`, then this command again, tries them once more"
        )
    return 1 if left and statuses - {0, 3} else 3 if counts["set_aside"] else 0


class Progress:
    """A bar on a terminal, a line a minute in a log; figures from the job server."""

    def __init__(self, definition, root):
        self.definition, self.root, self.next, self.bar = (
            definition,
            root,
            time.monotonic() + 2,
            None,
        )

    def show(self, last=False):
        if not last and time.monotonic() < self.next:
            return None
        terminal = sys.stdout.isatty()
        self.next = time.monotonic() + (2 if terminal else 60)
        document = run_status.fetch(self.root).document
        if (
            last and document
        ):  # the server looks every two seconds: wait for the look after the clients' last words
            before, end = document["time"], time.monotonic() + 10
            while document and document["time"] == before and time.monotonic() < end:
                time.sleep(0.2)
                document = run_status.fetch(self.root).document
        counts = (
            next((d for d in document["datasets"] if d["name"] == self.definition["name"]), None)
            if document
            else None
        )
        if counts and terminal:
            from tqdm import tqdm

            self.bar = self.bar or tqdm(
                total=counts["total"], unit=" prompts", initial=counts["done"]
            )
            self.bar.n = counts["done"]
            self.bar.set_postfix_str(f"{counts['images']:,} images")
            self.bar.refresh()
            if last:
                self.bar.close()  # ends its line: what follows starts a line of its own
        if counts and (last or not terminal):
            short = (
                f", {counts['short']:,} of them short ({counts['short_images']:,} images fewer than asked for)"
                if counts["short"]
                else ""
            )
            print(
                f"{self.definition['name']}: {counts['done']:,} of {counts['total']:,} prompts done{short}, {counts['images']:,} images",
                flush=True,
            )
        return counts
