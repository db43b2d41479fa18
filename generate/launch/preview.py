"""A look before the run, and a second look at an image of it. Neither touches the run.

python generate/generate_images.py HPDv2.json --preview 8        the first prompts into preview_HPDv2.jpg, and images an hour
python generate/generate_images.py HPDv2.json --redo 12345_3     draws the image again from its JSON and compares; 12345: all of a prompt
"""

import io
import json
import time
from pathlib import Path

from generate.client import image_generator as diffusion
from generate.dataset.layout import folder_name, stem
from generate.launch import submit
from generate.llms.options import prompter_of
from generate.llms.prompter import AllOff

SHOWN = 6  # images of a prompt on the contact sheet, the original's included
CELL, CAPTION = 256, 44  # pixels


def contact_sheet(args, items, definition, drawer, root):
    """Draw the first prompts and their variations into a contact sheet; note the images an hour for estimates. The exit status."""
    items = items[: args.preview]
    rows = [
        [item["prompt"], *texts]
        for item, texts in zip(
            items, variations(args, items, min(SHOWN, definition["images_per_prompt"]) - 1)
        )
    ]
    drawer.load()
    try:
        drawer.warm_up()
    except (diffusion.DeviceBroken, diffusion.CannotDraw) as error:
        raise SystemExit(f"generate_images: the device is not fit: {error}") from None
    todo = [(index, aug, text) for index, row in enumerate(rows) for aug, text in enumerate(row)]
    images, began = {}, time.monotonic()
    for start in range(0, len(todo), drawer.batch_size):
        batch = todo[start : start + drawer.batch_size]
        seeds = [diffusion.seed_of(args.seed, index, aug) for index, aug, _ in batch]
        try:
            drawn = drawer.draw([text for _, _, text in batch], seeds)
        except (diffusion.DeviceBroken, diffusion.CannotDraw) as error:
            raise SystemExit(f"generate_images: the pipeline failed: {error}") from None
        images |= {(index, aug): image for (index, aug, _), image in zip(batch, drawn)}
    # padding is drawn too: whole batches count
    an_hour = round(
        -(-len(todo) // drawer.batch_size) * drawer.batch_size / (time.monotonic() - began) * 3600
    )
    path = Path(f"preview_{definition['name']}.jpg").absolute()
    draw_sheet(rows, images).save(path, "JPEG", quality=90)
    bad = [
        f"{stem(*key)}: {why}"
        for key, image in images.items()
        if (why := diffusion.problem_with(image, drawer.height, drawer.width))
    ]
    print(
        "\n".join(["images that would not count:", *bad])
        if bad
        else f"{len(images)} images, all of them would count"
    )
    print(
        f"{path}\n{an_hour:,} images an hour ({drawer.batch_size} a batch, {drawer.gpu_name or 'CPU'})"
    )
    with open(submit.make_server_folder(root) / "measured.jsonl", "a") as file:
        file.write(
            json.dumps(
                {
                    "model": args.model,
                    "height": drawer.height,
                    "width": drawer.width,
                    "num_inference_steps": drawer.steps,
                    "images_per_hour": an_hour,
                    "gpu_name": drawer.gpu_name,
                }
            )
            + "\n"
        )
    return 3 if bad else 0


def variations(args, items, count):
    """Texts for each item: from the prompts file, else from the LLMs (on accounts of its own: the run's budget is not touched)."""
    if count < 1:
        return [[] for _ in items]
    if all("variations" in item for item in items):
        return [item["variations"][:count] for item in items]
    prompter = prompter_of(args, accounts=":memory:", seed=args.seed)
    try:
        futures = [prompter.submit(item["prompt"], count) for item in items]
        return [[text["text"] for text in future.result().texts] for future in futures]
    except AllOff as error:
        raise SystemExit(f"generate_images: {error}") from None
    finally:
        prompter.close()


def draw_sheet(rows, images):
    """One row a prompt: its images, each over its text."""
    from PIL import Image, ImageDraw

    sheet = Image.new(
        "RGB", (max(map(len, rows)) * (CELL + 8), len(rows) * (CELL + CAPTION)), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for (row, column), image in images.items():
        x, y = column * (CELL + 8), row * (CELL + CAPTION)
        sheet.paste(Image.fromarray(image.pixels).resize((CELL, CELL)), (x, y))
        text = rows[row][column]
        pen.text(
            (x, y + CELL + 2),
            "\n".join(text[start : start + 42] for start in (0, 42, 84)),
            fill="black",
        )
    return sheet


def redo(args, dataset_dir, which):
    """Draw samples again from their JSON and compare with what is stored; 0 if all pixels are the same, else 1 and the difference."""
    index, _, aug = which.partition("_")
    if not index.isdigit() or (aug and not aug.isdigit()):
        raise SystemExit(
            f"generate_images: --redo {which}: expected an index (12345) or a sample (12345_3)"
        )
    pattern = f"{int(index)}_{aug or '*'}.json"
    paths = sorted(
        (dataset_dir / folder_name(int(index))).glob(pattern),
        key=lambda path: int(path.stem.split("_")[1]),
    )
    if not paths:
        raise SystemExit(
            f"generate_images: --redo {which}: no {folder_name(int(index))}/{pattern} in {dataset_dir}"
        )
    drawer, loaded, differ = None, None, 0
    for path in paths:
        record = json.loads(path.read_text())
        settings = {
            "height": record["height"],
            "width": record["width"],
            "steps": record["num_inference_steps"],
            "guidance": record["guidance_scale"],
            "batch_size": record["batch_size"],
            "dtype": record["dtype"],
        }
        if settings != loaded:
            drawer = diffusion.Drawer(
                record["model_name"],
                **settings,
                revision=args.revision,
                compile=args.compile,
                offload=args.offload,
                quantize=args.quantize,
                quantize_args=args.quantize_args,
                pipeline=args.pipeline,
            )
            drawer.load()
            loaded = settings
        try:
            image = drawer.draw([record["augmented_prompt"]], [record["seed"]])[0]
        except (diffusion.DeviceBroken, diffusion.CannotDraw) as error:
            raise SystemExit(f"generate_images: the pipeline failed: {error}") from None
        differ += compare(path, image, record, drawer)
    return 1 if differ else 0


def compare(path, image, record, drawer):
    """Print how a fresh image differs from the stored one, once it has been through the same JPEG tables; whether it does."""
    import numpy
    from PIL import Image, JpegImagePlugin

    stored = Image.open(path.with_suffix(".jpg"))
    file = io.BytesIO()
    Image.fromarray(image.pixels).save(
        file, "JPEG", qtables=stored.quantization, subsampling=JpegImagePlugin.get_sampling(stored)
    )
    difference = numpy.abs(
        numpy.asarray(stored.convert("RGB"), int) - numpy.asarray(Image.open(file), int)
    )
    if not difference.any():
        print(f"{path.stem}: identical")
        return False
    stack = (
        ""
        if record["library_versions"] == drawer.versions
        else f"; drawn with {record['library_versions']}, here {drawer.versions}"
    )
    card = (
        ""
        if record["gpu_name"] == drawer.gpu_name
        else f"; drawn on {record['gpu_name'] or 'a CPU'}, here {drawer.gpu_name or 'a CPU'}"
    )
    print(
        f"{path.stem}: {(difference > 0).any(2).mean():.1%} of the pixels differ, by {difference.mean():.2f} of 255 on average, "
        f"at most {difference.max()}{stack}{card}"
    )
    return True
