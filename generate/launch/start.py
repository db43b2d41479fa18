"""From the options of generate_images.py to what they ask for: an array, clients here, one client, or a look at a run."""

import os
from pathlib import Path

from generate.client import image_generator as diffusion
from generate.client import model_recipes as model_families
from generate.client import process
from generate.dataset import definition as definitions
from generate.dataset import prompts_file
from generate.launch import local, preview, status, submit


def start(args):
    """Do what the options say; the exit status."""
    root, stem = Path(os.path.abspath(args.output_root)), Path(args.data_path).stem
    if args.status:
        return status.show(root, stem)
    if args.cancel:
        return submit.cancel(root, stem)
    if args.tail_log and not args.use_slurm:
        return submit.tail_log(root, stem)
    if args.redo:
        return preview.redo(args, root / "generated_images" / stem, args.redo)
    items = prompts_file.read_prompts(args.data_path)
    definition = define(args, items, root)
    if args.preview:
        if not args.pipeline:
            diffusion.check_model(args.model, args.revision)
        return preview.contact_sheet(
            args, items, definition, process.make_drawer(args, definition, root), root
        )
    if args.is_slurm_task and (process.is_child() or len(process.gpus()) < 2):
        return process.run_client(args, items, definition, root)
    if args.use_slurm and not args.is_slurm_task:
        return submit.submit(args, definition, root, items)
    show_notice(args.model)
    return local.run(
        args, definition, root
    )  # processes of this program, one a GPU, each with --is_slurm_task


def define(args, items, root):
    """The data set's definition, as the job server compares it with dataset.yaml."""
    family = model_families.family_of(args.model)
    definition = {
        "name": Path(args.data_path).stem,
        "prompts_file": Path(args.data_path).name,
        "prompts_sha256": prompts_file.list_sha256(items),
        "total": len(items),
        "images_per_prompt": args.expected_samples_per_index if args.augment_prompts else 1,
        "order_seed": args.shuffle_seed if args.shuffle else None,
        "run_seed": args.seed,
        "model": args.model,
        "revision": args.revision,
        "height": args.resolution or family.size,
        "width": args.resolution or family.size,
        "num_inference_steps": args.num_inference_steps or family.steps,
        "guidance_scale": family.guidance if args.guidance_scale is None else args.guidance_scale,
        "augment_prompts": args.augment_prompts,
    }
    if not args.extend:
        return definition
    stored = definitions.stored_definition(root / "generated_images" / definition["name"])
    if not stored:
        raise SystemExit(
            f"generate_images: --extend: there is no data set {definition['name']} in {root} yet; leave --extend out"
        )
    prefix = min(stored["total"], len(items))
    return definition | {
        "extend": True,
        "prefix_total": prefix,
        "prefix_sha256": prompts_file.list_sha256(items[:prefix]),
    }


def show_notice(model):
    notice = model_families.family_of(model).notice
    if notice:
        print(f"note on {model}: {notice}")
