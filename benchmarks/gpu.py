"""Images a second on a card: this project's presets against a bare diffusers loop, in one run.

    python benchmarks/gpu.py                          # SD3-medium at its real size, random weights
    python benchmarks/gpu.py --model Z-Image-Turbo    # of real_configs.py; a hub id: the real one
    python benchmarks/gpu.py --model all              # each of real_configs.py, one after the other
    python benchmarks/gpu.py --model tiny --batches 2 # on a CPU: that it runs

It needs a CUDA card, no hub and no weights: SD3-medium without T5 (5.4 GiB, in a temporary folder)
and the models of real_configs.py (1.3 to 60 GiB) are built at random, which take as long as real
ones. It has not been run on a card by this project. Measured are, one after the other, a bare
loop (the pipeline of diffusers in the same precision, a batch at a time, each image saved as a JPEG
before the next batch) and, for each preset of --speed, the code of the client: batches through
ImageGenerator; checked, encoded, hashed and published by threads behind the device. Printed are
images/s, their ratio to the bare loop, TFLOP/s and the share of the card's peak, the share of the
time in which the device was busy, recompiles since the warm-up, seconds to load and for the first
batch, peak memory. A preset or a model that cannot be had says why in its row.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import torch

from benchmarks.real_configs import REAL_MODELS
from benchmarks.real_sizes import build, build_sd3
from common.command_line import UserError, run_script
from common.console import first_line
from generate.dataset.samples import Place, publish_sample
from generate.image_models.model_recipes import folder_of
from generate.launch.speed import PRESETS
from generate.pipelines.card_share import peak_of, tflop_per_image
from generate.pipelines.diffusers_pipeline import this_card
from generate.pipelines.image import problem_with
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import GeneratorSettings

TEXT = "a photo of a small bird on a branch, morning light, number"
SD3 = "stable-diffusion-3-medium-diffusers"  # by its name it is known
PUBLISHERS = 4  # threads, as the client has


def main() -> int:
    args = options()
    card = this_card()
    found = []
    for name in REAL_MODELS if args.model == "all" else args.model.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            rows = measure(args, name, Path(temporary))
        report(name, rows, card.name if card else "CPU")
        found.append({"model": name, "rows": rows})
    if args.json:
        document = {"card": card.name if card else None, "models": found}
        Path(args.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


def measure(args: argparse.Namespace, name: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of a model: bare diffusers, and each preset."""
    model = name
    if name == SD3:
        model = str(build_sd3(folder / SD3))
    elif name in REAL_MODELS:
        model = str(build(name, folder / name))
    try:
        rows = [measure_bare(args, model)]
    except (UserError, torch.OutOfMemoryError) as error:
        rows = [{"preset": "bare diffusers", "note": first_line(error)}]
    for preset in args.presets.split(","):
        gc.collect()  # of the one before
        torch.cuda.empty_cache()
        rows.append(measure_preset(args, model, preset, folder))
    return rows


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model",
        default=SD3,
        help="hub ids, folders, tiny, several with commas; with random weights "
        f"{', '.join(REAL_MODELS)}, or all of these (default: SD3-medium with random weights)",
    )
    parser.add_argument("--size", type=int, help="pixels (default: the model's)")
    parser.add_argument("--batch_size", type=int, help="default: by the memory plan")
    parser.add_argument("--batches", type=int, default=6, help="measured of each kind")
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--json", help="a file for the figures")
    return parser.parse_args()


def settings_of(args: argparse.Namespace, model: str, preset: str) -> GeneratorSettings:
    chosen = dict(PRESETS[preset])
    quantize_args = json.loads(str(chosen.pop("quantize_args", "{}")))
    return GeneratorSettings(
        model,
        height=args.size,
        width=args.size,
        batch_size=args.batch_size,
        quantize_args=quantize_args,
        **chosen,  # type: ignore[arg-type]
    )


def measure_bare(args: argparse.Namespace, model: str) -> dict[str, Any]:
    """The loop that one would write by hand; the batch size is this project's."""
    generator = ImageGenerator(settings_of(args, model, "exact"))
    generator.load()
    batch, dtype = generator.batch_size, getattr(torch, generator.pipeline.dtype)
    recipe = generator.recipe
    work = tflop_per_image(generator)
    del generator
    began = time.monotonic()
    where = str(folder_of(model) or model)
    pipe = diffusers.DiffusionPipeline.from_pretrained(where, dtype=dtype)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pipe.set_progress_bar_config(disable=True)
    loaded = time.monotonic() - began
    arguments = recipe.arguments(pipe.__call__)
    if recipe.negative_prompt is not None:  # without one Qwen-Image leaves guidance out
        arguments["negative_prompt"] = [recipe.negative_prompt] * batch
    folder = Path(tempfile.mkdtemp())

    def one(number: int) -> None:
        texts = [f"{TEXT} {number * batch + k}" for k in range(batch)]
        generators = [torch.Generator("cpu").manual_seed(k) for k in range(batch)]
        drawn = pipe(prompt=texts, generator=generators, **arguments)
        images = getattr(drawn, recipe.family.output)
        for k, image in enumerate(images):
            image.save(folder / f"{number}_{k}.jpg", quality=95)

    row = {"preset": "bare diffusers", "batch": batch, "load_s": loaded, "note": ""}
    return row | timed(one, batch, args.batches) | {"tflop_per_image": work}


def measure_preset(args: argparse.Namespace, model: str, preset: str, root: Path) -> dict[str, Any]:
    """The client's own code, from texts to published samples."""
    generator = ImageGenerator(settings_of(args, model, preset))
    began = time.monotonic()
    try:
        generator.load()
        loaded = time.monotonic() - began
        generator.warm_up()
    except UserError as error:
        return {"preset": preset, "note": str(error)}
    batch, recipe, facts = generator.batch_size, generator.recipe, generator.pipeline.facts
    folder = root / f"published_{preset}"
    (folder / "000000").mkdir(parents=True)
    waiting: list[Any] = []
    busy: list[float] = []

    def publish(image: Any, number: int) -> None:
        problem = problem_with(image, recipe.height, recipe.width)
        metadata = {
            "prompt_index": number,
            "augmentation_idx": 0,
            "image_path": f"000000/{number}_0.jpg",
            "problem": problem,
        }
        publish_sample(folder, image.pixels, metadata, Place("1-1", "here", None, None), 95)

    with ThreadPoolExecutor(PUBLISHERS) as publishers:

        def one(number: int) -> None:
            texts = [f"{TEXT} {number * batch + k}" for k in range(batch)]
            began = time.monotonic()
            images = generator.generate(texts, list(range(batch)))
            busy.append(time.monotonic() - began)
            for k, image in enumerate(images):
                waiting.append(publishers.submit(publish, image, (number + 1) * batch + k))
            while len(waiting) > 2 * batch:
                waiting.pop(0).result()

        measured = timed(one, batch, args.batches)
        for each in waiting:
            each.result()
    measured["busy"] = sum(busy[1:]) / measured.pop("seconds")
    measured["recompiles"] = generator.recompiles
    did = [name for name in ("compiled", "quantize") if facts.get(name)]
    note = ", ".join([*did, f"attention {facts.get('attention_backend')}"])
    return {"preset": preset, "batch": batch, "load_s": loaded, "note": note} | measured


def timed(one: Callable[[int], None], batch: int, batches: int) -> dict[str, Any]:
    """Images a second over some batches, after one that is not counted."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    one(-1)
    first = time.monotonic() - began
    began = time.monotonic()
    for number in range(batches):
        one(number)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.monotonic() - began
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    rate = batches * batch / seconds
    return {"images_per_s": rate, "first_batch_s": first, "peak_gib": peak, "seconds": seconds}


def report(name: str, rows: list[dict[str, Any]], card: str) -> None:
    """A table in Markdown."""
    bare, work = rows[0].get("images_per_s"), rows[0].get("tflop_per_image")
    peak = peak_of(card)
    weights = ", random weights" * (name == SD3 or name in REAL_MODELS)
    counted = f"; {work:.4g} TFLOP an image" if work else ""
    print(f"{name}{weights} on {card}; ", end="")
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}{counted}\n")
    print(
        "| preset | images/s | of bare | TFLOP/s | of peak | busy | recompiles | load s "
        "| first batch s | GiB | |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        if "images_per_s" not in row:
            print(f"| {row['preset']} | | | | | | | | | | {row['note']} |")
            continue
        rate = row["images_per_s"]
        ratio = f"{rate / bare:.2f}" if bare else ""
        speed = f"{rate * work:.3g}" if work else ""
        share = f"{rate * work / peak:.2f}" if work and peak else ""
        memory = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        busy = f"{row['busy']:.2f}" if "busy" in row else ""
        print(
            f"| {row['preset']} | {rate:.3g} | {ratio} | {speed} | {share} | "
            f"{busy} | {row.get('recompiles', '')} | {row['load_s']:.1f} | "
            f"{row['first_batch_s']:.1f} | {memory} | {row['note']} |"
        )
    print()


if __name__ == "__main__":
    run_script(main)
