"""One client process: it reaches the server, loads a model, generates, publishes, and leaves."""

import contextlib
import logging
import os
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from common import slurm
from common.command_line import DONE, LEFT_OUT, UserError
from common.console import start_log
from generate.client.client import Client
from generate.client.feeder import ASK_AHEAD
from generate.client.generation import describer, generate_until_done, recipes_of
from generate.client.job_client import JobClient
from generate.client.judge import judge_of
from generate.client.publisher import THREADS
from generate.client.restart import replace_process, requeue, start_again
from generate.client.start_up import load_generator
from generate.client.work import DISK_PAUSE_S, LONGEST_DISK_PAUSE_S, ClientSettings
from generate.client.worker import this_worker
from generate.dataset.definition import Definition, in_words
from generate.dataset.disk import ABSENT, disk_error, probe_folder
from generate.dataset.extension import newer_definition, standing
from generate.dataset.mapped_prompts import without_variations
from generate.dataset.prompts_file import Item
from generate.dataset.samples import Place
from generate.dataset.screened import screen_of
from generate.llms.prompter import Prompter, prompter_of
from generate.pipelines.pipeline import DeviceBroken, Pipeline
from generate.pipelines.provenance import check
from generate.pipelines.text_lengths import TextLengths
from generate.protocol.answers import AllDone, Json, Wait
from generate.protocol.connection import Refused, ServerAway
from generate.protocol.output_root import dataset_folder

log = logging.getLogger(__name__)

SIGNALS = {signal.SIGTERM: "preempted", signal.SIGUSR1: "walltime", signal.SIGINT: "released"}
LOADING: Json = {"leases": [], "state": "loading", "drawing": [], "images": 0}
# To the job server; of threads that publish; to LLMs; of libraries and the device.
OPEN_FILES = 8 + 2 * THREADS + ASK_AHEAD + 64
LONGEST_ABSENCE_S = 40  # the last pause for a folder that is not there: 75 s in all


def run_client(
    args: Namespace,
    items: Sequence[Item],
    definition: Definition,
    output_root: Path,
    look_after_server: Callable[[JobClient], None] | None = None,
) -> int:
    """The options are checked; the exit status.

    Server reached, anything left? → model loaded, device tested → the loop → leave.
    look_after_server: called once, before the server is asked for the first time.
    """
    start_log("generate_images")
    leaving = Leaving()
    worker = this_worker()
    job = JobClient(output_root, definition, worker, args.server_timeout * 3600)
    job.min_accepted = args.min_accepted
    if look_after_server:
        look_after_server(job)
    left_s = slurm.time_left_s()
    deadline = None if left_s is None else time.monotonic() + left_s
    if nothing_left(job):
        return DONE
    dataset_dir = dataset_folder(output_root, definition["name"])
    wait_for_disk(dataset_dir)
    job.start_heartbeats(leaving.report)
    judge = judge_of(args, standing(dataset_dir, definition))
    generator = load_generator(args, definition, output_root, job)
    check(definition, generator.pipeline, args.allow_mixed)
    lengths = TextLengths(generator.pipeline.pipe, generator.arguments)
    settings = ClientSettings(
        dataset_dir=dataset_dir,
        images_per_prompt=definition["images_per_prompt"],
        recipes=recipes_of(generator.recipe, definition),
        images_per_text=definition.get("images_per_text") or 1,
        chunk_size=chunk_size(args, len(items)),
        jpeg_quality=args.jpeg_quality,
        max_leases=args.max_leases,
        max_idle_s=args.max_idle,
        deadline=deadline,
        screen=screen_of(args.data_path),
        lengths=lengths,
        truncated=args.truncated,
        judge=judge,
    )
    gpu_name = generator.pipeline.gpu_name
    client = Client(
        job,
        prompter_for(args, items, definition),
        items,
        describer(args, definition, generator, lengths),
        Place("", worker.host, gpu_name, worker.slurm_job_id),
        settings,
    )
    leaving.watch(client)
    broken = generate_until_done(client, generator)
    return leave(client, job, broken, generator.pipeline)


def follow_extension(
    items: Sequence[Item], definition: Definition, output_root: Path
) -> Definition:
    """The definition that stands: a data set may have been extended since this task was submitted.

    UserError where that needs another prompts file than the one given.
    """
    newer = newer_definition(dataset_folder(output_root, definition["name"]), definition)
    if newer is None:
        return definition
    size = in_words(newer)
    if newer["total"] != len(items):
        raise UserError(
            f"the data set {definition['name']} was extended to {size}, and the prompts file has "
            f"{len(items):,} prompts: start again with the file that it was extended with"
        )
    log.info("the data set was extended: %s", size)
    return newer


def prompter_for(args: Namespace, items: Sequence[Item], definition: Definition) -> Prompter | None:
    """The LLMs, unless the prompts file holds all captions or one image a prompt is wanted."""
    texts = definition["images_per_prompt"] // (definition.get("images_per_text") or 1)
    if texts == 1 or not without_variations(items):
        return None
    return prompter_of(args, seed=args.seed)


def leave(client: Client, job: JobClient, broken: DeviceBroken | None, pipeline: Pipeline) -> int:
    """Publish, report, release; then say how it ended. The exit status: 3 with failed prompts."""
    released = client.leave()
    pipeline.keep_code()
    work = client.work
    log.info(client.line())
    log.info(
        "leaving: %d prompts released, %d failed, %d variations and %d images fewer than asked for",
        released,
        work.failed,
        work.missing_captions,
        work.missing_images,
    )
    if broken:
        start_again(f"the device failed: {broken}", job.quarantined_s)
    if work.extended and not work.stop_reason and not work.error:
        replace_process("the data set was extended")
    if work.error:
        if isinstance(work.error, ServerAway):
            requeue("the job server is away")
        raise UserError(str(work.error))
    if work.stop_reason == "walltime":
        requeue("time limit")
    return LEFT_OUT if work.failed else DONE


class Leaving:
    """SIGTERM, SIGUSR1, SIGINT: the first lets the client leave in order, the second at once.

    Before there is a client nothing is held, and the first signal ends the process.
    """

    def __init__(self) -> None:
        self.client: Client | None = None
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.heard)

    def watch(self, client: Client) -> None:
        self.client = client

    def report(self) -> Json:
        """What a heartbeat says."""
        return self.client.report() if self.client else LOADING

    def heard(self, number: int, frame: FrameType | None) -> None:
        if self.client is None or self.client.signalled:
            os._exit(128 + number)
        self.client.signal(SIGNALS[signal.Signals(number)])


def chunk_size(args: Namespace, total: int) -> int:
    """Prompts a lease."""
    size: int = args.chunk_size or max(1, min(total // args.num_workers, args.max_chunk_size))
    return size


def wait_for_disk(dataset_dir: Path) -> None:
    """Return when the folder takes files; UserError if its file system cannot publish samples.

    A full disk is no reason to fail the task: the next one would meet it, too.
    """
    pause = DISK_PAUSE_S
    while True:
        try:
            probe_folder(dataset_dir)
            return
        except OSError as error:
            absent = error.errno in ABSENT
            if absent and pause > LONGEST_ABSENCE_S:
                raise UserError(
                    f"{dataset_dir} is not there, and the job server has just looked at it: is the "
                    "output root the same file system on both nodes?"
                ) from None
            what = f"{dataset_dir} is not there" if absent else disk_error(error)
            log.warning("%s; trying again in %d s", what, pause)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_DISK_PAUSE_S)


def nothing_left(job: JobClient) -> AllDone | None:
    """Reach the server and ask whether anything is left, before a model is loaded.

    UserError when the server is away or refuses.
    """
    try:
        while True:
            answer = job.look()
            slurm.report_start()
            if isinstance(answer, AllDone):
                # A full disk under the output costs the line, not the task.
                with contextlib.suppress(OSError):
                    print(f"{job.definition['name']}: {answer.message}", flush=True)
                return answer
            if not isinstance(answer, Wait):
                return None
            time.sleep(min(answer.retry_after_s, 5))
    except ServerAway as error:
        requeue("the job server is away")
        raise UserError(str(error)) from None
    except Refused as error:
        slurm.report_start()  # the node is well
        raise UserError(str(error)) from None
