"""The loop of a client: a batch from the client, images from the generator, and back.

generator = ImageGenerator(generator_settings(args, definition, output_root))
broken = generate_until_done(client, generator)
"""

import logging
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.json_text import parse_json
from common.version import version
from generate.client.client import Client
from generate.client.publisher import Describe
from generate.client.recipes import Recipes
from generate.client.work import Sample
from generate.dataset.definition import Definition
from generate.dataset.layout import folder_name, stem
from generate.dataset.samples import Metadata, utc_now
from generate.dataset.sizes import Mix
from generate.image_models.model_commit import COMMIT
from generate.pipelines.image import Image
from generate.pipelines.image_generator import ImageGenerator, Interrupted
from generate.pipelines.pipeline import CannotGenerate, DeviceBroken, GeneratorSettings, Recipe
from generate.pipelines.text_lengths import Lengths, truncated
from generate.protocol.output_root import server_folder

log = logging.getLogger(__name__)

CANARY = -1  # in place of an augmentation, for the seed of a canary prompt


def generator_settings(
    args: Namespace, definition: Definition, output_root: Path
) -> GeneratorSettings:
    """What the options say of the generator."""
    return GeneratorSettings(
        model=args.model,
        height=definition["height"],
        width=definition["width"],
        steps=args.num_inference_steps,
        guidance=args.guidance_scale,
        negative_prompt=args.negative_prompt,
        batch_size=args.batch_size,
        dtype=args.dtype,
        beside=server_folder(output_root),
        **(common_settings(args) | _pinned(definition)),
    )


def _pinned(definition: Definition) -> dict[str, Any]:
    """What the definition names more exactly than the options."""
    commit = definition.get("model_commit") or ""
    revision = {"revision": commit} if COMMIT.fullmatch(commit) else {}
    return {"lora": definition.get("lora"), **revision}


def common_settings(args: Namespace) -> dict[str, Any]:
    """The settings that hold for a stored image's second generation, too."""
    return {
        "revision": args.revision,
        "compile": args.compile,
        "offload": args.offload,
        "lora": args.lora,
        "attention": args.attention,
        "quantize": args.quantize,
        "quantize_args": quantize_args(args.quantize_args),
        "pipeline": args.pipeline,
        "without_t5": None if args.t5 else True,
    }


def quantize_args(text: str | None) -> dict[str, Any]:
    """What --quantize_args says. UserError: it is no JSON object."""
    try:
        given = parse_json(text or "{}")
    except ValueError as error:
        raise UserError(f"--quantize_args {text}: not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UserError(f"--quantize_args {text}: expected a JSON object")
    return given


def recipes_of(recipe: Recipe, definition: Definition) -> Recipes:
    """What is asked of each image of a run; recipe: where neither mix nor item say otherwise."""
    mix = Mix.from_text(definition["sizes"]) if definition.get("sizes") else None
    return Recipes(recipe, definition["run_seed"], mix)


def generate_until_done(client: Client, generator: ImageGenerator) -> DeviceBroken | None:
    """The loop; returns the error of a device that is of no use any more, or None.

    Leases and captions come from a thread ahead of it, files and reports go to threads behind it.
    """
    client.start(generator.batch_size)
    generator.on_step = client.stepped
    while (batch := client.next_batch(generator.batch_size_of)) is not None:  # lease, ask
        began = time.monotonic()
        try:
            images = generate(client, generator, batch)
        except Interrupted:
            log.info("the batch on the device is given up: SIGKILL may follow soon")
            continue  # the client leaves, and what it holds is released
        except DeviceBroken as error:
            for sample in batch:
                client.work.fail(sample, "gpu", str(error), at_once=True)
            client.work.stop("released")
            return error
        client.batch_took(time.monotonic() - began, generator.recompiles)
        for sample, image in zip(batch, images, strict=True):
            if image is not None:
                client.put(sample, image)  # check, publish, report
    return None


def generate(client: Client, generator: ImageGenerator, batch: list[Sample]) -> list[Image | None]:
    """The images of a batch; None for a text at which the pipeline raised an error.

    Which text that was is found by generating the batch one by one.
    """
    recipes = client.settings.recipes
    seeds = [
        recipes.seed(
            sample.index.number,
            CANARY if sample.aug is None else sample.aug,
            sample.index.item,
            sample.attempt,
        )
        for sample in batch
    ]
    texts = [sample.text for sample in batch]
    try:
        return [*generator.generate(texts, seeds, [sample.recipe for sample in batch])]
    except CannotGenerate as error:
        if len(batch) > 1:
            one_by_one = [generate(client, generator, [sample]) for sample in batch]
            return [image for images in one_by_one for image in images]
        client.work.retry_or_fail(batch[0], "prompt", str(error), retry=False)
        return [None]


def describer(
    args: Namespace,
    definition: Definition,
    generator: ImageGenerator,
    count: Callable[[str], Lengths],
) -> Describe:
    """A function that gives the metadata of a sample's image: its JSON's fields but the place.

    count: tokens of a text, as TextLengths.
    """
    recipes = recipes_of(generator.recipe, definition)
    pipeline = generator.pipeline
    project = version()
    images_per_text = definition.get("images_per_text") or 1

    def metadata(sample: Sample, image: Image) -> Metadata:
        index = sample.index
        aug, record = sample.aug, index.record
        recipe = sample.recipe
        lengths = count(sample.text)
        assert aug is not None and record is not None, "captions stand before their images"
        return {
            "prompt_index": index.number,
            "augmentation_idx": aug,
            "original_prompt": record["original_prompt"],
            "augmented_prompt": sample.text,
            "is_augmented": aug >= images_per_text,
            "model_name": args.model,
            "llm_model_name": record["texts"][aug].get("llm_model_name"),
            "height": recipe.height,
            "width": recipe.width,
            "input_file": definition["prompts_file"],
            "image_path": f"{folder_name(index.number)}/{stem(index.number, aug)}.jpg",
            "generation_timestamp": utc_now(),
            "source": record["source"],
            "seed": recipes.seed(index.number, aug, index.item, sample.attempt),
            "num_inference_steps": recipe.steps,
            "guidance_scale": recipe.guidance,
            "dtype": pipeline.dtype,
            "batch_size": image.batch_size,
            "library_versions": pipeline.versions,
            "version": project,
            "negative_prompt": recipe.negative_prompt,
            "jpeg_quality": args.jpeg_quality,
            "text_tokens": [f"{name} {n} of {most}" for name, (n, most) in lengths.items()],
            "truncated": truncated(lengths),
            **pipeline.facts,
        }

    return metadata
