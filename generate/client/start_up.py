"""From the options to a pipeline that has generated its first batch; or whose fault it is not."""

import logging
import random
import time
from argparse import Namespace
from pathlib import Path

from common.command_line import UserError
from generate.client.faults import DEVICE, PASSING, CannotStart
from generate.client.generation import generator_settings
from generate.client.image_generator import ImageGenerator
from generate.client.job_client import JobClient
from generate.client.pipeline import share_compiled_code
from generate.client.restart import start_again
from generate.dataset.definition import Definition

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 5.0  # before a hub or disk is tried again; doubled each time
LONGEST_PAUSE_S = 300.0


def load_generator(
    args: Namespace, definition: Definition, output_root: Path, job: JobClient
) -> ImageGenerator:
    """The pipeline, loaded and tried.

    UserError if no worker can do what the command asks: the job server then refuses the run's other
    tasks before they load anything. A fault of this worker alone waits and tries again in a new
    process: exiting would let it eat the array.
    """
    if args.compile:
        share_compiled_code()
    generator = ImageGenerator(generator_settings(args, definition, output_root))
    try:
        _try_patiently(generator)
    except CannotStart as error:
        if why := job.cannot_start(error.fault, str(error)):
            raise UserError(why) from None
        what = "the device is not fit" if error.fault == DEVICE else "this worker cannot start"
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


def _try_patiently(generator: ImageGenerator) -> None:
    """Load and try; a hub or a disk that fails for the moment is waited for, and said once."""
    pause = FIRST_PAUSE_S
    said = ""
    while True:
        try:
            generator.load()
            generator.warm_up()
            return
        except CannotStart as error:
            if error.fault != PASSING:
                raise
            if str(error) != said:
                said = str(error)
                log.warning("%s; trying again until it goes", error)
        # Spread, or all tasks of an array would ask the hub at the same moment again.
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, LONGEST_PAUSE_S)
