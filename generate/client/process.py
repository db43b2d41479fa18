"""One client process: it leases, generates, publishes, and leaves; how it starts again and which GPU it has."""

import os
import signal
import sys
import threading
import time

from common import slurm
from generate.client import image_generator as diffusion
from generate.client import job_client
from generate.dataset import samples
from generate.dataset.layout import folder_name, stem
from generate.dataset.links import probe_folder
from generate.llms.prompter import prompter_of
from generate.protocol.connection import Refused, ServerAway

CHILD = "GENERATE_IMAGES_CLIENT"  # number of a client process, in its environment
RESTARTS = "GENERATE_IMAGES_RESTARTS"  # how often a client process has started itself again
REQUEUE = (
    75  # exit status of one of several clients of a SLURM task that wants it requeued (EX_TEMPFAIL)
)
LONGEST_PAUSE_S = 600
SIGNALS = {signal.SIGTERM: "preempted", signal.SIGUSR1: "walltime", signal.SIGINT: "released"}


def run_client(args, items, definition, root):
    """Options are checked; server reached → anything left? → model loaded, device tested → the loop → leave. The exit status."""
    from generate.client.client import Client

    leaving = Leaving()
    who = slurm.identity()
    worker = {name: who[name] for name in ("host", "array_job", "task", "restart")}
    worker |= {"gpu": gpu_uuid(), "log": log_name()}
    job = job_client.JobClient(
        root, definition, worker, who["slurm_job_id"], args.server_timeout * 3600
    )
    left_s = slurm.time_left_s()
    deadline = None if left_s is None else time.monotonic() + left_s
    if nothing_left(job):
        return 0
    dataset_dir = root / "generated_images" / definition["name"]
    probe_folder(dataset_dir)
    client = None
    job.start_beating(
        lambda: (
            client.report()
            if client
            else {"leases": [], "state": "loading", "drawing": [], "images": 0}
        )
    )
    drawer = load_drawer(args, definition, root)
    asks = definition["images_per_prompt"] > 1 and not all("variations" in item for item in items)
    prompter = prompter_of(args, seed=args.seed) if asks else None
    place = {
        "hostname": who["host"],
        "gpu_name": drawer.gpu_name,
        "slurm_job_id": who["slurm_job_id"],
    }
    client = leaving.client = Client(
        job,
        prompter,
        items,
        definition,
        dataset_dir,
        describe(args, definition, drawer),
        place,
        chunk_size(args, len(items)),
        args.jpeg_quality,
        args.max_leases,
        args.max_idle,
        deadline,
    )
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
    seeds = [
        diffusion.seed_of(run_seed, sample.index.number, sample.aug, sample.attempt)
        for sample in batch
    ]
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
        start_again(f"the device failed: {broken}", job.quarantined_until_s)
    if client.error:
        if isinstance(client.error, ServerAway):
            requeue("the job server is away")
        raise SystemExit(f"generate_images: {client.error}")
    if client.stopped == "walltime":
        requeue("time limit")
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
        start_again(f"the device is not fit: {error}")
    where, size = drawer.gpu_name or "the CPU", f"{drawer.height}x{drawer.width}"
    print(
        f"{args.model} on {where}: {size}, {drawer.batch_size} images a batch, {drawer.dtype}",
        flush=True,
    )
    return drawer


def make_drawer(args, definition, root):
    return diffusion.Drawer(
        args.model,
        definition["height"],
        definition["width"],
        args.num_inference_steps,
        args.guidance_scale,
        args.batch_size,
        args.dtype,
        args.revision,
        args.compile,
        args.offload,
        args.quantize,
        args.quantize_args,
        args.pipeline,
        root / ".server" / "batch_sizes.jsonl",
    )


def describe(args, definition, drawer):
    """A function that gives the metadata of a sample's image: all its JSON's fields but the place."""

    def metadata(sample, image):
        index, aug = sample.index, sample.aug
        return {
            "prompt_index": index.number,
            "augmentation_idx": aug,
            "original_prompt": index.record["original_prompt"],
            "augmented_prompt": sample.text,
            "is_augmented": aug > 0,
            "model_name": args.model,
            "llm_model_name": index.record["texts"][aug]["llm_model_name"],
            "height": drawer.height,
            "width": drawer.width,
            "input_file": definition["prompts_file"],
            "image_path": f"{folder_name(index.number)}/{stem(index.number, aug)}.jpg",
            "generation_timestamp": samples.utc_now(),
            "source": index.record["source"],
            "seed": diffusion.seed_of(args.seed, index.number, aug, sample.attempt),
            "num_inference_steps": drawer.steps,
            "guidance_scale": drawer.guidance,
            "dtype": drawer.dtype,
            "batch_size": image.batch_size,
            "library_versions": drawer.versions,
        }

    return metadata


def chunk_size(args, total):
    return args.chunk_size or max(1, min(total // args.num_workers, args.max_chunk_size))


def is_child():
    return CHILD in os.environ


def log_name():
    """The log of this process, a bare name in the output root, or None (a SLURM task's follows from its ids)."""
    return os.environ.get(CHILD, "").partition(" ")[2] or None


def gpus():
    """The GPUs this process may use, each as CUDA_VISIBLE_DEVICES wants it; [] without any. Imports no torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() and gpu.strip() != "-1"]
    return [line.split(",")[0].strip() for line in _nvidia_smi("index")]


def gpu_uuid():
    """The UUID of this client's GPU (its number where nvidia-smi does not tell), "cpu" without one."""
    mine = gpus()
    if not mine:
        return "cpu"
    uuids = dict(line.split(", ") for line in _nvidia_smi("index,uuid") if ", " in line)
    return uuids.get(mine[0], mine[0])


def _nvidia_smi(fields):
    done = slurm.run("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    return done.stdout.splitlines() if done.returncode == 0 else []


def nothing_left(job):
    """Reach the server and ask whether anything is left, before a model is loaded: AllDone, or None; SystemExit when it is away or refuses."""
    try:
        while True:
            answer = job.look()
            if isinstance(answer, job_client.AllDone):
                print(f"{job.definition['name']}: {answer.message}", flush=True)
                return answer
            if not isinstance(answer, job_client.Wait):
                return None
            time.sleep(min(answer.retry_after_s, 5))
    except ServerAway as error:
        requeue("the job server is away")
        raise SystemExit(f"generate_images: {error}") from None
    except Refused as error:
        raise SystemExit(f"generate_images: {error}") from None


def requeue(reason):
    """Have this task requeued. SLURM then ends all of the task at once: one of its several clients only exits, and their parent asks for it
    when the last of them has published."""
    if is_child() and slurm.task_name():
        print(
            f"{reason}: this task is to be requeued when its other clients have left too",
            flush=True,
        )
        raise SystemExit(REQUEUE)
    slurm.requeue_self(reason)


def start_again(why, pause_s=None):
    """Replace this process by a fresh one after a pause: a device that raised an error is only trusted in a new process."""
    count = int(os.environ.get(RESTARTS, 0)) + 1
    pause = pause_s or min(LONGEST_PAUSE_S, 2.5 * 2**count)
    print(f"{why}; starting again in {pause:.0f} s", flush=True)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # nothing is held: a signal may end the pause
    time.sleep(pause)
    os.environ[RESTARTS] = str(count)
    os.execv(sys.executable, [sys.executable, *sys.argv])
