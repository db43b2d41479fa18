"""Checks before an array is submitted: what would otherwise fail in every task."""

import shutil
import subprocess
from argparse import Namespace
from pathlib import Path
from typing import Any

from common import slurm
from common.command_line import UserError
from generate.dataset import definition as definitions
from generate.dataset.layout import has_samples
from generate.image_models.model_check import check_model, check_quantization
from generate.protocol.output_root import dataset_folder, make_server_folder


def check_slurm() -> None:
    """UserError where there is no SLURM to submit to."""
    if not shutil.which("sbatch"):
        raise UserError(
            "sbatch was not found: submit from a machine of the cluster, or leave out --use_slurm "
            "to generate here"
        )


def check(args: Namespace, definition: dict[str, Any], output_root: Path, script: str) -> Path:
    """Everything that can be known without running; returns the server's folder, which it makes.

    UserError, with one line. script: the text that sbatch would get.
    """
    check_setup(args.setup)
    slurm.sbatch(["--test-only"], stdin=script)
    check_time(args)
    check_definition(output_root, definition)
    check_quantization(args.quantize)
    check_the_model(args)
    return make_server_folder(output_root)


def check_the_model(args: Namespace) -> None:
    """UserError if the model cannot be had: before a data set is defined by its name."""
    if not args.pipeline:
        check_model(args.model, args.revision)


def check_setup(setup: str) -> None:
    """UserError if the lines of --setup are no shell: no task would start, on any node."""
    done = subprocess.run(["bash", "-n"], input=setup, text=True, capture_output=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or ["bash does not take it"]
        raise UserError(f"--setup {setup!r} is no valid shell: {why[0]}")


def check_time(args: Namespace) -> None:
    """UserError if --time is more than the partition allows: such a job would wait for ever.

    A QOS may allow more than the partition.
    """
    longest = slurm.partition_limit_s(args.partition)
    wanted = slurm.seconds(args.time)
    if longest and args.time and not args.qos and (wanted is None or wanted > longest):
        minutes = longest // 60
        raise UserError(
            f"--time {args.time} is more than partition {args.partition} allows ({minutes} "
            f"minutes): no task would start; give --time {minutes}"
        )


def check_definition(output_root: Path, definition: dict[str, Any]) -> None:
    """UserError if this data set was begun with another definition: the server would refuse it."""
    folder = dataset_folder(output_root, definition["name"])
    if definition.get("extend") or not has_samples(folder):
        return
    try:
        stored = definitions.stored_definition(folder)
        newest = definitions.newest_file(folder)[1]
        if stored and newest:
            definitions.compare(stored, definition, newest.name)
    except ValueError as error:
        raise UserError(f"{error}; {definitions.REMEDY}") from None
    except definitions.Differs as error:
        changed = error.field in ("prompts_sha256", "total")
        raise UserError(f"{'the prompts file has changed: ' * changed}{error}") from None
