"""Load the pipeline and generate a first batch; if that fails, find out whose fault it is."""

import logging
import random
import time
from argparse import Namespace
from pathlib import Path

from common.command_line import UserError
from generate.client.generation import generator_settings
from generate.client.job_client import JobClient
from generate.client.restart import start_again
from generate.client.start_calls import cannot_start, loaded, may_load
from generate.dataset.definition import Definition
from generate.pipelines.faults import DEVICE, PASSING, CannotStart
from generate.pipelines.image_generator import ImageGenerator

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 5.0  # before a hub or disk is tried again; doubled each time
LONGEST_PAUSE_S = 300.0
PLACE_S = 2.0  # until a client that waits for a place to load asks again


def load_generator(
    args: Namespace, definition: Definition, output_root: Path, job: JobClient
) -> ImageGenerator:
    """The pipeline, loaded and tried.

    UserError if no worker can do what the command asks: the job server then refuses the run's other
    tasks before they load anything. If the fault is this worker's, it waits and tries again in a
    new process: if it exited, it would use up one task of the array after another.
    """
    generator = ImageGenerator(generator_settings(args, definition, output_root))
    try:
        _try_patiently(generator, job, args.parallel_loads)
    except CannotStart as error:
        if why := cannot_start(job, error.fault, str(error)):
            raise UserError(why) from None
        what = "the device does not work" if error.fault == DEVICE else "this worker cannot start"
        start_again(f"{what}: {error}")
    pipeline = generator.pipeline
    log.info(
        "%s on %s: %dx%d, %d images a batch, %s",
        args.model,
        pipeline.gpu_name or "the CPU",
        generator.recipe.height,
        generator.recipe.width,
        generator.batch_size,
        pipeline.dtype,
    )
    return generator


def _try_patiently(generator: ImageGenerator, job: JobClient, parallel: int) -> None:
    """Load and try; a hub or a disk that fails for the moment is waited for, and said once."""
    pause = FIRST_PAUSE_S
    said = ""
    while True:
        _wait_for_a_place(job, parallel)
        try:
            try:
                generator.load()
            finally:
                loaded(job)
            generator.warm_up()
            return
        except CannotStart as error:
            if error.fault != PASSING:
                raise
            if str(error) != said:
                said = str(error)
                log.warning("%s; trying again until it works", error)
        # Spread at random, or all tasks of an array would ask the hub together again.
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, LONGEST_PAUSE_S)


def _wait_for_a_place(job: JobClient, parallel: int) -> None:
    """Until no more than `parallel` clients of the run load their models."""
    said = False
    while ahead := may_load(job, parallel):
        if not said:
            said = True
            log.info("%d clients load their models: waiting for a place (--parallel_loads)", ahead)
        time.sleep(PLACE_S * random.uniform(0.5, 1.5))
