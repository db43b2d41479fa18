"""Do what the options of generate_images.py ask for.

That is an array, processes here, one client, or a look at a run.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from common import slurm
from common.command_line import DONE, UserError
from common.console import start_log
from common.open_files import need_open_files
from common.version import version
from generate.client.generation import quantize_args
from generate.client.judge import acceptance_of
from generate.client.process import OPEN_FILES, follow_extension, run_client
from generate.client.worker import gpus, is_child
from generate.dataset import definition as definitions
from generate.dataset.mapped_prompts import open_prompts, prompts_sha256
from generate.dataset.prompts_file import Item
from generate.dataset.screened import refused_line, screen_of, screened
from generate.image_models import model_recipes
from generate.launch import (
    array,
    local,
    preflight,
    preview,
    redo,
    rule_change,
    server_job,
    status,
    submit,
)
from generate.launch.pinned import pinned
from generate.launch.plan import plan
from generate.launch.progress import report, unless_lost
from generate.launch.sizes import check_batch_size, check_items, sizes_of
from generate.pipelines.pipeline import family_for
from generate.pipelines.provenance import as_text
from generate.pipelines.text_lengths import KEEP
from generate.protocol.output_root import dataset_folder, dataset_name, server_folder

SHUFFLE_SEED = 42  # as published


def start(args: Namespace) -> int:
    """Do what the options ask for; the exit status."""
    root = Path(os.path.abspath(args.output_root))
    name = dataset_name(args.data_path)
    if args.status:
        return status.show(root, name)
    if args.cancel:
        return array.cancel(root, name)
    if args.tail_log and not args.use_slurm:
        return array.tail_log(root, name)
    if args.redo:
        return redo.redo(args, dataset_folder(root, name), args.redo)
    if args.is_slurm_task or not args.use_slurm:
        need_open_files(OPEN_FILES, OPEN_FILES, "a client")
    items = open_prompts(args.data_path, server_folder(root) / "prompts")
    screen = screen_of(args.data_path)
    definition = define(args, items, root)
    if not args.is_slurm_task and (line := refused_line(args.data_path, items, screen)):
        print(line, flush=True)
    if args.preview:
        allowed = (item for item in items if not screened(screen, item).refusal)
        shown = list(islice(allowed, args.preview))
        if not shown:
            raise UserError(f"{args.data_path}: no prompt of it may be generated")
        return preview.contact_sheet(args, shown, definition, root)
    if not args.is_slurm_task:
        rule_change.change(args, definition, root)
    if args.is_slurm_task:
        start_log("generate_images")
        definition = follow_extension(items, definition, root)
    if args.is_slurm_task and (is_child() or len(gpus()) < 2):
        looked_after = args.start_server and slurm.task_name()
        look_after = server_job.look_after if looked_after else None
        return run_client(args, items, definition, root, look_after)
    if args.use_slurm and not args.is_slurm_task:
        return submit.submit(args, definition, root, items, sys.argv[1:])
    if args.dry_run:
        preflight.check_definition(root, definition)
        for line in plan(args, definition, items, root):
            report(line)
        return unless_lost(DONE)
    if args.is_slurm_task:
        show_notice(args.model)
        return local.run(args, definition, root, [])
    return unless_lost(local.run(args, definition, root, plan(args, definition, items, root)))


def define(args: Namespace, items: Sequence[Item], root: Path) -> dict[str, Any]:
    """The data set's definition, as the job server compares it with dataset.yaml."""
    family = family_for(args.model, args.pipeline)
    name = dataset_name(args.data_path)
    (height, width), mix = sizes_of(args, family)
    check_items(args, family, items)
    negative = family.negative_prompt if args.negative_prompt is None else args.negative_prompt
    if args.negative_prompt and family.negative_prompt is None and not args.pipeline:
        raise UserError(f"--negative_prompt: {args.model} takes none ({family.pipeline})")
    check_batch_size(args, family)
    definition = {
        "name": name,
        "prompts_file": Path(args.data_path).name,
        "prompts_sha256": prompts_sha256(items),
        "total": len(items),
        "images_per_prompt": images_per_prompt(args),
        "images_per_text": None if args.images_per_text == 1 else args.images_per_text,
        "order_seed": order_seed(args, dataset_folder(root, name)),
        "run_seed": args.seed,
        "model": args.model,
        "revision": args.revision,
        "height": height,
        "width": width,
        "sizes": mix.text() if mix else None,
        "negative_prompt": negative,
        "truncated": None if args.truncated == KEEP else args.truncated,
        "jpeg_quality": args.jpeg_quality,
        "dtype": None if args.pipeline else args.dtype or family.dtype,
        "without_t5": not args.t5,
        "quantize": args.quantize,
        "quantize_args": as_text(quantize_args(args.quantize_args)),
        "attention": args.attention,
        "compiled": args.compile,
        "num_inference_steps": args.num_inference_steps or family.steps,
        "guidance_scale": family.guidance if args.guidance_scale is None else args.guidance_scale,
        "augment_prompts": args.augment_prompts,
        "version": version(),
        **acceptance_of(args),
        **pinned(args, stored_or_none(dataset_folder(root, name))),
    }
    if not args.extend:
        return definition
    stored = definitions.stored_definition(dataset_folder(root, name))
    if not stored:
        raise UserError(f"--extend: there is no data set {name} in {root} yet; leave --extend out")
    prefix = min(stored["total"], len(items))
    return definition | {
        "extend": True,
        "prefix_total": prefix,
        "prefix_sha256": prompts_sha256(items, prefix),
    }


def images_per_prompt(args: Namespace) -> int:
    """--expected_samples_per_index. UserError if --images_per_text does not divide it."""
    if not args.augment_prompts:
        return int(args.images_per_text)
    images, of_text = args.expected_samples_per_index, args.images_per_text
    if images % of_text:
        raise UserError(
            f"--expected_samples_per_index {images} is no multiple of --images_per_text {of_text}"
        )
    return int(images)


def order_seed(args: Namespace, folder: Path) -> int | None:
    """The seed of the order in which prompts are handed out; None: the file's own order.

    A data set keeps the order it was begun with, unless --shuffle or --shuffle_seed say otherwise:
    those begun before shuffling became the default have none.
    """
    if args.shuffle is None and args.shuffle_seed is None:
        stored = stored_or_none(folder)
        return stored.get("order_seed") if stored else SHUFFLE_SEED
    if args.shuffle is False:
        return None
    return SHUFFLE_SEED if args.shuffle_seed is None else args.shuffle_seed


def stored_or_none(folder: Path) -> dict[str, Any] | None:
    """The definition in a data set folder; None without one, or where it is damaged."""
    try:
        return definitions.stored_definition(folder)
    except (ValueError, OSError):  # for the server to judge
        return None


def show_notice(model: str) -> None:
    """Print what the model's licence asks of those who train on its images."""
    notice = model_recipes.family_of(model).notice
    if notice:
        print(f"note on {model}: {notice}")
