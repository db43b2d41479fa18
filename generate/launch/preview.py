"""--preview: the first prompts on a contact sheet, and how fast they are generated.

python generate/generate_images.py HPDv2.json --preview 8      # writes preview_HPDv2.jpg
"""

import io
import json
import textwrap
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.command_line import DONE, LEFT_OUT, UserError
from common.files import named, open_plain, write_whole
from common.scores.interface import DHASH, Values
from generate.client.generation import generator_settings, recipes_of
from generate.client.judge import Judge, judge_of
from generate.client.recipes import Recipes
from generate.dataset.layout import stem
from generate.dataset.prompts_file import Item
from generate.dataset.samples import decoded, encode_alone
from generate.dataset.screened import screen_of, screened
from generate.image_models.model_check import check_model, check_quantization
from generate.launch.acceptance import preview_lines
from generate.launch.plan import again, can_ask
from generate.llms.failures import NoBackendLeft
from generate.llms.prompter import prompter_of
from generate.pipelines.card_share import share_line
from generate.pipelines.image import problem_with
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import CannotGenerate, DeviceBroken
from generate.protocol.output_root import make_server_folder

SHOWN = 6  # images of a prompt on the contact sheet, the original's included
CELL = 256  # pixels of an image
CAPTION = 44  # pixels of its text
LINE = 42  # characters
LINES = 3

REJECTED = "not accepted"
Key = tuple[int, int]  # prompt and variation
Images = dict[Key, Any]


def contact_sheet(
    args: Namespace, items: list[Item], definition: dict[str, Any], root: Path
) -> int:
    """Generate the first prompts and their variations; touches nothing of the run.

    The exit status: 3 if there are images that would not count. Images an hour are kept for the
    estimate of a submission. UserError if the model cannot be loaded or the device is not fit.
    """
    if not args.pipeline:
        check_model(args.model, args.revision)
        check_quantization(args.quantize)
    generator = ImageGenerator(generator_settings(args, definition, root))
    items = items[: args.preview]
    shown = min(SHOWN, definition["images_per_prompt"])
    each = definition.get("images_per_text") or 1
    texts = _variations(args, items, -(-shown // each) - 1)
    rows = [
        [text for text in (item["prompt"], *more) for _ in range(each)][:shown]
        for item, more in zip(items, texts, strict=True)
    ]
    # a minute and more where cores are shared: torch and diffusers alone are 5 s of CPU
    print(f"loading {args.pipeline or args.model}, then drawing {len(items)} prompts", flush=True)
    try:
        generator.load()
        generator.warm_up()
        began = time.monotonic()
        recipes = recipes_of(generator.recipe, definition)
        images, made = _generate(generator, rows, items, recipes)
    except (DeviceBroken, CannotGenerate) as error:
        raise UserError(f"the device or the pipeline failed: {error}") from None
    seconds = time.monotonic() - began
    images_per_hour = round(made / seconds * 3600)
    path = Path(f"preview_{definition['name']}.jpg").absolute()
    judge = judge_of(args, definition)
    values = _values(judge, rows, images, args.jpeg_quality)
    notes = {key: _note(judge, each) for key, each in values.items()} if judge else {}
    sheet = io.BytesIO()
    draw_sheet(rows, images, notes).save(sheet, "JPEG", quality=90)
    write_whole(path, sheet.getvalue())
    recipe = generator.recipe
    problems = {}
    for (index, aug), image in images.items():
        asked = recipes.of(index, aug, items[index])
        problems[index, aug] = problem_with(image, asked.height, asked.width)
    bad = [f"{stem(*key)}: {problem}" for key, problem in problems.items() if problem]
    if bad:
        print("\n".join(["images that would not count:", *bad]))
    else:
        print(f"{len(images)} images, all of them would count")
    share = None
    if judge:
        print("\n".join(preview_lines(judge, list(values.values()))))
        share = sum(judge.accepts(each) for each in values.values()) / len(values)
    gpu_name = generator.pipeline.gpu_name
    print(
        f"{path}\n{images_per_hour:,} images an hour on the {gpu_name or 'CPU'}, in batches of "
        f"{generator.batch_size}; a run is slower: it asks LLMs and writes files, too"
    )
    of_one_kind = all(recipes.of(*key, items[key[0]]).alike == recipe.alike for key in images)
    if of_one_kind and (used := share_line(generator, made / seconds)):
        print(used)
    measured = {
        "model": args.model,
        "height": recipe.height,
        "width": recipe.width,
        "num_inference_steps": recipe.steps,
        "images_per_hour": images_per_hour,
        "gpu_name": gpu_name,
        "accept": definition.get("accept"),
        "scores": definition.get("scores"),
        "accepted_share": share,
    }
    speeds = make_server_folder(root) / "measured.jsonl"
    with named(speeds), open(speeds, "a", opener=open_plain) as file:
        file.write(json.dumps(measured) + "\n")
    return LEFT_OUT if bad else DONE


def _generate(
    generator: ImageGenerator, rows: list[list[str]], items: list[Item], recipes: Recipes
) -> tuple[Images, int]:
    """(images, how many were made: all batches are filled up)."""
    todo = [(index, aug) for index, row in enumerate(rows) for aug in range(len(row))]
    asked = {(index, aug): recipes.of(index, aug, items[index]) for index, aug in todo}
    images: Images = {}
    made = 0
    while todo:
        first = asked[todo[0]]
        alike = [key for key in todo if asked[key].alike == first.alike]
        batch = alike[: generator.batch_size_of(first)]
        seeds = [recipes.seed(index, aug, items[index]) for index, aug in batch]
        texts = [rows[index][aug] for index, aug in batch]
        found = generator.generate(texts, seeds, [asked[key] for key in batch])
        images |= dict(zip(batch, found, strict=True))
        todo = [key for key in todo if key not in images]
        made += found[0].batch_size
    return images, made


def _values(
    judge: Judge | None, rows: list[list[str]], images: Images, quality: int
) -> dict[Key, Values]:
    """The scores of each image, as its JPEG would show it; {} without --scores.

    dhash: to those of the same prompt and lower number that are accepted here.
    """
    if judge is None:
        return {}
    pixels = [decoded(encode_alone(image.pixels, quality)) for image in images.values()]
    texts = [rows[index][aug] for index, aug in images]
    values = dict(zip(images, judge.score(pixels, texts), strict=True))
    if judge.compares:
        from common.scores.dhash import fingerprint, nearest  # with numpy, which others do without

        prints = dict(zip(images, map(fingerprint, pixels), strict=True))
        kept: dict[int, list[int]] = {}
        for key in sorted(images):
            others = kept.setdefault(key[0], [])
            values[key][DHASH] = nearest(prints[key], others)
            if judge.accepts(values[key]):
                others.append(prints[key])
    return values


def _note(judge: Judge, values: Values) -> str:
    """What the contact sheet says over a caption."""
    verdict = "accepted" if judge.accepts(values) else REJECTED
    said = [f"{name} {'-' if value is None else f'{value:.3g}'}" for name, value in values.items()]
    return f"{verdict if judge.accept else 'scores'}: {', '.join(said)}"


def _variations(args: Namespace, items: list[Item], count: int) -> list[list[str]]:
    """Texts for each item: from the prompts file, else from the LLMs.

    The LLMs are asked on accounts of their own: the run's budget is not touched.
    """
    if count < 1:
        return [[] for _ in items]
    if all("variations" in item for item in items):
        screen = screen_of(args.data_path)
        return [screened(screen, item).variations[:count] for item in items]
    if not can_ask(args):
        raise UserError(
            "no LLM can be asked for the variations: `python generate/llm_prompting.py --check` "
            f"says why. The prompts alone: {again('--augment_prompts=False')}"
        )
    prompter = prompter_of(args, accounts=":memory:", seed=args.seed)
    try:
        futures = [prompter.submit(item["prompt"], count) for item in items]
        return [[text["text"] for text in future.result().texts] for future in futures]
    except NoBackendLeft as error:
        raise UserError(str(error)) from None
    finally:
        prompter.close()


def draw_sheet(rows: list[list[str]], images: Images, notes: Mapping[Key, str]) -> Any:
    """One row a prompt: its images, each over its note and its text. A PIL image.

    An image that is not accepted has a red frame.
    """
    from PIL import Image, ImageDraw, ImageOps  # not loaded by those who submit

    size = (max(map(len, rows)) * (CELL + 8), len(rows) * (CELL + CAPTION))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for (row, column), image in images.items():
        x = column * (CELL + 8)
        y = row * (CELL + CAPTION)
        sheet.paste(ImageOps.contain(Image.fromarray(image.pixels), (CELL, CELL)), (x, y))
        text = rows[row][column]
        note = notes.get((row, column), "")
        if note.startswith(REJECTED):
            pen.rectangle((x, y, x + CELL - 1, y + CELL - 1), outline="red", width=4)
        lines = textwrap.wrap(text, LINE, max_lines=LINES, placeholder=" …")
        lines = [note[:LINE], *lines[: LINES - 1]] if note else lines
        pen.text((x, y + CELL + 2), "\n".join(lines), fill="black")
    return sheet
