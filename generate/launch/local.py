"""Several client processes on one machine: a run without SLURM, and a SLURM task with several GPUs.

python generate/generate_images.py examples/shapes.json --model tiny --llm embedded --num_workers=2

Each client is a process of its own with a GPU of its own. Without SLURM a job server runs beside
them (local_server.py). A client that a signal killed is started again, as SLURM's requeue would.
"""

import contextlib
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import slurm
from common.command_line import DONE, FAILED, LEFT_OUT, UserError
from generate.client.job_client import JobClient
from generate.client.process import nothing_left
from generate.client.restart import REQUEUE
from generate.client.worker import gpus, this_host
from generate.dataset.definition import newest_file
from generate.image_models.model_check import check_quantization
from generate.launch import preflight
from generate.launch.client_process import ClientProcess
from generate.launch.finished import images_there, interrupted, what_next
from generate.launch.local_memory import check_embedded
from generate.launch.local_server import SERVER, LocalServer
from generate.launch.plan import again
from generate.launch.progress import Progress, report
from generate.launch.run_file import store
from generate.launch.status import page_link
from generate.protocol.output_root import dataset_folder, make_server_folder

LOOK_S = 0.2
# To leave in order; longer than a client needs to publish a batch and to release its leases.
LEAVE_S = 60
# SIGHUP: the terminal is gone; a client knows the other three
PASSED_ON = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,
}


def run(args: Namespace, definition: dict[str, Any], root: Path, plan: Sequence[str]) -> int:
    """Run the clients to their end; the exit status: 0 done, 3 with failed prompts, 1 otherwise.

    130 after a Ctrl-C (128 + any signal) that left something to do; a task of an array: 0.
    plan: lines that are shown first, if anything is left to do.
    """
    if newest_file(dataset_folder(root, definition["name"]))[1] is None:
        for line in plan:
            report(line)
        plan = []
        check_quantization(args.quantize)
        try:
            preflight.check_the_model(args)  # a wrong one defines no data set
        except UserError as error:
            hint = again("--model tiny")
            raise UserError(f"{error}; to try things out without it: {hint}") from None
    make_server_folder(root)
    if args.is_slurm_task:
        return _generate(args, definition, root, None, plan)
    with LocalServer(root) as server:
        return _generate(args, definition, root, server, plan)


def _generate(
    args: Namespace,
    definition: dict[str, Any],
    root: Path,
    server: LocalServer | None,
    plan: Sequence[str],
) -> int:
    if ended := nothing_left(JobClient(root, definition, this_host(), server_timeout_s=30)):
        if not args.is_slurm_task:
            report(what_next(root, definition))
        return LEFT_OUT if ended.failed else DONE
    # a task's clients find out by themselves, and whether it will pass
    there = 0 if args.is_slurm_task else _begin(args, definition, root, plan)
    mine: list[str | None] = [*gpus()] or [None]
    count = len(mine) if args.is_slurm_task else max(args.num_workers, len(mine))
    heard: list[int] = []
    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, lambda number, frame: heard.append(number))
    progress = Progress(definition["name"], root, there)
    with _started([ClientProcess(n, mine[n % len(mine)], root) for n in range(count)]) as clients:
        if server and sys.stdout.isatty():
            report(f"page: {page_link(root)}")
        _supervise(clients, heard, progress, server)
    statuses = {client.status for client in clients}
    counts = progress.show(last=True)
    status = _exit_status(statuses, bool(heard), counts, root)
    if args.is_slurm_task:
        return status
    if counts is not None and not _left(counts):
        report(what_next(root, definition))
        return status
    if heard and counts:
        report(interrupted(counts["done"], counts["total"], counts["images"]))
    may_leave = heard or args.max_leases or args.max_idle is not None
    if counts and not may_leave and status in (DONE, LEFT_OUT):
        report(
            f"all clients have ended, though {_left(counts):,} prompts are left: something in "
            f"their processes ended them (a score, a library), or a signal; logs: {root}"
        )
        return FAILED
    return 128 + heard[0] if heard else status  # whatever became of its clients


def _begin(args: Namespace, definition: dict[str, Any], root: Path, plan: Sequence[str]) -> int:
    """Check what no client could correct, print the plan, keep the options; the images there.

    UserError, with one line.
    """
    preflight.check_the_model(args)
    check_embedded(args, definition)
    for line in plan:
        report(line)
    there = images_there(root, definition["name"])
    if definition.get("extend") and there:
        per_prompt = definition["images_per_prompt"]
        report(f"the {there:,} images stay; a prompt is done again when it has {per_prompt}")
    store(args, definition, dataset_folder(root, definition["name"]))
    return there


def _left(counts: dict[str, Any]) -> int:
    """Prompts that are neither done nor failed."""
    return int(counts["total"] - counts["done"] - counts["set_aside"])


@contextlib.contextmanager
def _started(clients: list[ClientProcess]) -> Iterator[list[ClientProcess]]:
    """Start the clients; end them when the block ends, by any exception as well."""
    try:
        for client in clients:
            client.start()
        yield clients
    finally:
        for client in clients:
            client.send_signal(signal.SIGTERM)
        end = time.monotonic() + LEAVE_S
        for client in clients:
            client.end(max(0.0, end - time.monotonic()))


def _supervise(
    clients: list[ClientProcess],
    heard: list[int],
    progress: Progress,
    server: LocalServer | None,
) -> None:
    """Show progress, pass signals on and restart the server until all clients have ended."""
    passed_on = 0
    while not all([client.ended(bool(heard)) for client in clients]):
        for number in heard[passed_on:]:
            passed_on += 1
            if server and passed_on == 1:
                report("stopping: what is finished is published; Ctrl-C again ends it at once")
            for client in clients:
                client.send_signal(PASSED_ON[signal.Signals(number)])
        if server and not heard:
            server.look_after()
        progress.show()
        time.sleep(LOOK_S)


def _exit_status(
    statuses: set[int], leaving: bool, counts: dict[str, Any] | None, root: Path
) -> int:
    """From the clients' statuses and the server's last counts of the data set (None: unknown)."""
    if REQUEUE in statuses:
        slurm.requeue_self("a client of this task ran out of time or of a job server")
        statuses = statuses - {REQUEUE} | {DONE}
    well = statuses <= {DONE, LEFT_OUT}
    if leaving:  # a client that holds nothing yet ends by the signal
        ended = {status for number in PASSED_ON for status in (-number, 128 + number)}
        return DONE if statuses <= {DONE, LEFT_OUT} | ended else FAILED
    if counts is None:
        return max(statuses) if well else FAILED
    if failed := counts["set_aside"]:
        server = f"{sys.executable} {SERVER} --output_root {root}"
        report(
            f"{failed:,} prompts failed. With a job server running (`{server}`), "
            f"`{server} --status` names them, and\n"
            f"`{server} --retry_failed`, then this command again, tries them once more"
        )
    if _left(counts) and not well:
        return FAILED
    return LEFT_OUT if failed else DONE
