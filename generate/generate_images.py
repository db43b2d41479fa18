"""Draws a data set: leases prompts from the job server, asks LLMs for variations, draws them, publishes image + JSON, reports.

    python generate/generate_images.py HPDv2.json --expected_samples_per_index=200 --num_workers=2        here; starts a server if none runs
    python generate/generate_images.py HPDv2.json --expected_samples_per_index=200 --num_workers=128 --num_chunks=1000 --use_slurm
    python generate/generate_images.py examples/shapes.json --model tiny --llm embedded --expected_samples_per_index=10

Any number of these may run at once and may be killed at any moment: what is published stays, the rest is drawn by whoever comes next.
Other uses: --preview 8 (a contact sheet, without touching the run), --redo 12345_3 (draw again and compare), --status, --cancel, --dry_run.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import diffusion
import job_client
import llm_prompting
import local_run
import model_families
import prompts_file
import samples
import slurm
from options import Options

MODEL = "stabilityai/stable-diffusion-3-medium-diffusers"
SIGNALS = {signal.SIGTERM: "preempted", signal.SIGUSR1: "walltime", signal.SIGINT: "released"}


def main():
    args = options()
    root, stem = Path(os.path.abspath(args.output_root)), Path(args.data_path).stem
    if args.status:
        import run_status

        return run_status.show(root, stem)
    if args.cancel:
        return slurm.cancel(root, stem)
    if args.tail_log and not args.use_slurm:
        return slurm.tail_log(root, stem)
    if args.redo:
        import preview

        return preview.redo(args, root / "generated_images" / stem, args.redo)
    items = prompts_file.read_prompts(args.data_path)
    definition = define(args, items, root)
    if args.preview:
        import preview

        if not args.pipeline:
            diffusion.check_model(args.model, args.revision)
        return preview.contact_sheet(args, items, definition, make_drawer(args, definition, root), root)
    if args.is_slurm_task and (local_run.is_child() or len(local_run.gpus()) < 2):
        return run_client(args, items, definition, root)
    if args.use_slurm and not args.is_slurm_task:
        return slurm.submit(args, definition, root, items)
    show_notice(args.model)
    return local_run.run(args, definition, root)  # processes of this program, one a GPU, each with --is_slurm_task


# ---------------------------------------------------------------- one client


def run_client(args, items, definition, root):
    """Options are checked; server reached → anything left? → model loaded, device tested → the loop → leave. The exit status."""
    from client import Client

    leaving = Leaving()
    who = slurm.identity()
    worker = {name: who[name] for name in ("host", "array_job", "task", "restart")}
    worker |= {"gpu": local_run.gpu_uuid(), "log": local_run.log_name()}
    job = job_client.JobClient(root, definition, worker, who["slurm_job_id"], args.server_timeout * 3600)
    left_s = slurm.time_left_s()
    deadline = None if left_s is None else time.monotonic() + left_s
    if local_run.nothing_left(job):
        return 0
    dataset_dir = root / "generated_images" / definition["name"]
    samples.probe_folder(dataset_dir)
    client = None
    job.start_beating(lambda: client.report() if client else {"leases": [], "state": "loading", "drawing": [], "images": 0})
    drawer = load_drawer(args, definition, root)
    asks = definition["images_per_prompt"] > 1 and not all("variations" in item for item in items)
    prompter = llm_prompting.prompter_of(args, seed=args.seed) if asks else None
    place = {"hostname": who["host"], "gpu_name": drawer.gpu_name, "slurm_job_id": who["slurm_job_id"]}
    client = leaving.client = Client(
        job, prompter, items, definition, dataset_dir, describe(args, definition, drawer), place,
        chunk_size(args, len(items)), args.jpeg_quality, args.max_leases, args.max_idle, deadline,
    )  # fmt: skip
    broken = draw_until_done(client, drawer, args.seed)
    return leave(client, job, broken)


def draw_until_done(client, drawer, run_seed):
    """The loop. Leases and texts come from a thread ahead of it, files and reports go to threads behind it.
    Returns a DeviceBroken, or None."""
    client.start(drawer.batch_size)
    while (batch := client.next_batch(drawer.batch_size)) is not None:  # lease, ask
        began = time.monotonic()
        try:
            images = draw(client, drawer, batch, run_seed)
        except diffusion.DeviceBroken as error:
            for sample in batch:
                client.fail(sample.index, sample.aug, "gpu", str(error), at_once=True)
            client.stop("released")
            return error
        client.drew(time.monotonic() - began)
        for sample, image in zip(batch, images):
            if image is not None:
                client.publisher.put(sample, image)  # check, publish, report
    return None


def draw(client, drawer, batch, run_seed):
    """The images of a batch; None for a text at which the pipeline raised an error (found by drawing the batch one by one)."""
    seeds = [diffusion.seed_of(run_seed, sample.index.number, sample.aug, sample.attempt) for sample in batch]
    try:
        return drawer.draw([sample.text for sample in batch], seeds)
    except diffusion.CannotDraw as error:
        if len(batch) > 1:
            return [image for sample in batch for image in draw(client, drawer, [sample], run_seed)]
        client.bad(batch[0], "prompt", str(error), again=False)
        return [None]


def leave(client, job, broken):
    """Publish, report, give back; then say how it ended. The exit status: 0 well, 1 not, 3 when prompts were set aside."""
    given_back = client.leave()
    print(client.line())
    counts = f"{given_back} prompts given back, {client.set_aside} set aside, {client.short} variations fewer than asked for"
    print(f"leaving: {counts}", flush=True)
    if broken:
        local_run.start_again(f"the device failed: {broken}", job.quarantined_until_s)
    if client.error:
        if isinstance(client.error, job_client.ServerAway):
            local_run.requeue("the job server is away")
        raise SystemExit(f"generate_images: {client.error}")
    if client.stopped == "walltime":
        local_run.requeue("time limit")
    return 3 if client.set_aside else 0


class Leaving:
    """SIGTERM, SIGUSR1, SIGINT: the first lets the client leave in order, the second leaves at once. Before there is a client nothing is
    held."""

    def __init__(self):
        self.client = None
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.heard)

    def heard(self, number, frame):
        # sets one attribute only: a handler that took a lock could wait for the very thread it interrupts
        if self.client is None or self.client.signalled:
            os._exit(128 + number)
        self.client.signalled = SIGNALS[number]


# ---------------------------------------------------------------- what it draws with, and what it says of an image


def load_drawer(args, definition, root):
    """The pipeline, loaded and tried. A device that cannot even draw a warm-up batch waits and tries again: exiting would let it eat the
    array."""
    if args.compile:
        diffusion.share_compiled_code()
    drawer = make_drawer(args, definition, root)
    drawer.load()
    try:
        drawer.warm_up()
    except (diffusion.DeviceBroken, diffusion.CannotDraw) as error:
        local_run.start_again(f"the device is not fit: {error}")
    where, size = drawer.gpu_name or "the CPU", f"{drawer.height}x{drawer.width}"
    print(f"{args.model} on {where}: {size}, {drawer.batch_size} images a batch, {drawer.dtype}", flush=True)
    return drawer


def make_drawer(args, definition, root):
    return diffusion.Drawer(
        args.model, definition["height"], definition["width"], args.num_inference_steps, args.guidance_scale, args.batch_size,
        args.dtype, args.revision, args.compile, args.offload, args.quantize, args.quantize_args, args.pipeline,
        root / ".server" / "batch_sizes.jsonl",
    )  # fmt: skip


def describe(args, definition, drawer):
    """A function that gives the metadata of a sample's image: all its JSON's fields but the place."""

    def metadata(sample, image):
        index, aug = sample.index, sample.aug
        return {
            "prompt_index": index.number, "augmentation_idx": aug, "original_prompt": index.record["original_prompt"],
            "augmented_prompt": sample.text, "is_augmented": aug > 0, "model_name": args.model,
            "llm_model_name": index.record["texts"][aug]["llm_model_name"], "height": drawer.height, "width": drawer.width,
            "input_file": definition["prompts_file"],
            "image_path": f"{samples.folder_name(index.number)}/{samples.stem(index.number, aug)}.jpg",
            "generation_timestamp": samples.utc_now(), "source": index.record["source"],
            "seed": diffusion.seed_of(args.seed, index.number, aug, sample.attempt), "num_inference_steps": drawer.steps,
            "guidance_scale": drawer.guidance, "dtype": drawer.dtype, "batch_size": image.batch_size, "library_versions": drawer.versions,
        }  # fmt: skip

    return metadata


# ---------------------------------------------------------------- what was asked for


def define(args, items, root):
    """The data set's definition, as the job server compares it with dataset.yaml."""
    family = model_families.family_of(args.model)
    definition = {
        "name": Path(args.data_path).stem, "prompts_file": Path(args.data_path).name,
        "prompts_sha256": prompts_file.list_sha256(items), "total": len(items),
        "images_per_prompt": args.expected_samples_per_index if args.augment_prompts else 1,
        "order_seed": args.shuffle_seed if args.shuffle else None, "run_seed": args.seed,
        "model": args.model, "revision": args.revision,
        "height": args.resolution or family.size, "width": args.resolution or family.size,
        "num_inference_steps": args.num_inference_steps or family.steps,
        "guidance_scale": family.guidance if args.guidance_scale is None else args.guidance_scale,
        "augment_prompts": args.augment_prompts,
    }  # fmt: skip
    if not args.extend:
        return definition
    import definitions

    stored = definitions.stored_definition(root / "generated_images" / definition["name"])
    if not stored:
        raise SystemExit(f"generate_images: --extend: there is no data set {definition['name']} in {root} yet; leave --extend out")
    prefix = min(stored["total"], len(items))
    return definition | {"extend": True, "prefix_total": prefix, "prefix_sha256": prompts_file.list_sha256(items[:prefix])}


def chunk_size(args, total):
    return args.chunk_size or max(1, min(total // args.num_workers, args.max_chunk_size))


def show_notice(model):
    notice = model_families.family_of(model).notice
    if notice:
        print(f"note on {model}: {notice}")


def options():
    parser = Options(__doc__)
    parser.add_argument("data_path", help="prompts JSON or .txt, looked for as given, then in prompts/")
    parser.add_argument(
        "--output_root", default=job_client.default_output_root(), help="where logs and data sets lie (default: %(default)s)"
    )
    parser.add_argument(
        "--expected_samples_per_index", type=int, default=100, help="images of a prompt, the original's included (default: 100)"
    )
    parser.flag("--augment_prompts", "ask LLMs for variations; else one image a prompt", default=True)
    parser.flag("--extend", "take appended prompts or more images a prompt into a data set that was begun")
    parser.flag("--shuffle", "hand out prompts in a random order")
    parser.add_argument("--shuffle_seed", type=int, default=0, help="of that order (default: 0)")
    parser.add_argument(
        "--seed", type=int, default=0, help="run seed: each image's seed comes from it, the prompt's index and the variation's (default: 0)"
    )
    parser.add_argument("--model", help=f"hub id, folder, or tiny (default: {MODEL})")
    parser.add_argument("--revision", help="of a hub model")
    parser.add_argument("--resolution", type=int, help="pixels, height and width (default: the model family's, see model_families.py)")
    parser.add_argument("--num_inference_steps", type=int, help="default: the model family's")
    parser.add_argument("--guidance_scale", type=float, help="default: the model family's")
    parser.add_argument("--batch_size", type=int, help="images a batch (default: by GPU, see model_families.py; halved if it does not fit)")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="default: by family and GPU")
    parser.flag("--compile", "torch.compile transformer and VAE decoder (max-autotune); minutes once for all jobs of a user")
    parser.add_argument(
        "--offload", choices=["none", "model", "sequential", "group"], help="keep parts of the model in CPU memory (default: by GPU)"
    )
    parser.add_argument("--quantize", metavar="BACKEND", help="of diffusers: bitsandbytes_4bit, bitsandbytes_8bit, torchao, quanto, …")
    parser.add_argument("--quantize_args", metavar="JSON", help="its arguments, and components_to_quantize (default: the transformer)")
    parser.add_argument("--pipeline", metavar="FILE.py:CLASS", help="a class of your own, called like a diffusers pipeline")
    parser.add_argument("--jpeg_quality", type=int, default=95, help="default: 95")
    parser.add_argument("--chunk_size", type=int, help="prompts a lease (default: max(1, min(total // num_workers, max_chunk_size)))")
    parser.add_argument("--max_chunk_size", type=int, default=512, help="default: 512")
    parser.add_argument(
        "--max_leases", type=int, help="leave after so many leases; 1 is what the published script does (default: no limit)"
    )
    parser.add_argument(
        "--max_idle", type=float, metavar="S", help="leave after so many seconds without anything to draw (default: wait for ever)"
    )
    parser.add_argument(
        "--server_timeout", type=float, default=6, metavar="HOURS", help="how long to wait for a server that is away (default: 6)"
    )
    parser.add_argument("--preview", type=int, metavar="N", help="draw the first N prompts into a contact sheet, without touching the run")
    parser.add_argument("--redo", metavar="INDEX[_AUG]", help="draw again from the stored JSON and compare; replaces nothing")
    for ignored in ("--invalidate_cache", "--slurm_task_index", "--slurm_task_datetme"):
        parser.add_argument(ignored, nargs="?", help="accepted and ignored")
    llm_prompting.add_llm_options(parser)
    slurm.add_options(parser)
    args = parser.parse_args()
    args.model = args.model or (args.pipeline.rpartition(":")[2] if args.pipeline else MODEL)
    least = {
        "expected_samples_per_index": 1, "num_workers": 1, "chunk_size": 1, "max_chunk_size": 1, "batch_size": 1, "resolution": 16,
        "max_leases": 1, "seed": 0, "shuffle_seed": 0, "num_inference_steps": 1, "preview": 1,
    }  # fmt: skip
    for name, value in least.items():
        if getattr(args, name) is not None and getattr(args, name) < value:
            parser.error(f"--{name} is at least {value}")
    if not 1 <= args.jpeg_quality <= 100:
        parser.error("--jpeg_quality is a number from 1 to 100")
    if args.resolution and args.resolution % 8:
        parser.error("--resolution is a multiple of 8")
    return args


if __name__ == "__main__":
    sys.exit(main())
