"""--redo: generate images of a run again from their JSONs and compare. Nothing is replaced.

python generate/generate_images.py HPDv2.json --redo 12345_3   # or 12345: all images of the prompt
"""

import io
import re
import sys
from argparse import Namespace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from common.command_line import DONE, FAILED, LEFT_OUT, UserError
from common.console import visible
from common.json_text import parse_json
from common.packed_folder import packed, read_file
from common.untrusted import IMAGE_BYTES, SAMPLE_BYTES, open_jpeg
from generate.client.generation import common_settings
from generate.dataset.layout import folder_name
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import CannotGenerate, DeviceBroken, GeneratorSettings, Pipeline

SAMPLE = re.compile(r"([0-9]{1,18})(?:_([0-9]{1,18}))?")
SETTINGS = {  # of the generator, and the field of the JSON that has it
    "height": "height",
    "width": "width",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "batch_size": "batch_size",
    "dtype": "dtype",
}
# Fields that JSONs have since 2.0: what they say goes before the options.
LATER = {
    "negative_prompt": "negative_prompt",
    "revision": "model_commit",
    "compile": "compiled",
    "attention": "attention_backend",
    "quantize": "quantize",
}


MOST = 100_000  # pixels of a side, steps, images of a batch
BOUNDS = {
    **dict.fromkeys(("height", "width", "num_inference_steps", "batch_size"), (1, MOST)),
    "seed": (-(2**63), 2**64 - 1),  # as torch takes them
}
NEEDED: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(BOUNDS, (int,)),
    "guidance_scale": (int, float, type(None)),
    **dict.fromkeys(("dtype", "model_name", "augmented_prompt"), (str,)),
}


def redo(args: Namespace, dataset_dir: Path, which: str) -> int:
    """Print for each sample how the new image differs; the exit status.

    1 if any does, else 3 if a JSON does not say how its image was drawn, or an image is damaged.
    """
    generator = None
    loaded: dict[str, Any] = {}
    differ = 0
    left_out = 0
    for path in _samples(dataset_dir, which):
        try:
            record = read_record(path)
            stored = read_image(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            print(f"{path}: cannot be drawn again: {visible(why)}", file=sys.stderr)
            left_out += 1
            continue
        settings = {name: record[field] for name, field in SETTINGS.items()} | _later(record)
        try:
            if generator is None or settings != loaded:
                generator = ImageGenerator(
                    GeneratorSettings(record["model_name"], **(common_settings(args) | settings))
                )
                generator.load()
                loaded = settings
            image = generator.generate([record["augmented_prompt"]], [record["seed"]])[0]
        except (DeviceBroken, CannotGenerate) as error:
            raise UserError(f"the pipeline failed: {error}") from None
        if stored.size != image.pixels.shape[1::-1]:
            height, width = image.pixels.shape[:2]
            here = f"{width} x {height}"
            print(f"{path.stem}: is {stored.width} x {stored.height} pixels, drawn again {here}")
            differ += 1
            continue
        differ += _compare(path.stem, (stored, image), record, generator.pipeline)
    return FAILED if differ else LEFT_OUT if left_out else DONE


def read_record(path: Path) -> dict[str, Any]:
    """A sample's JSON. OSError, ValueError: it does not say how its image was drawn."""
    record = parse_json(read_file(path, SAMPLE_BYTES))
    if not isinstance(record, dict):
        raise ValueError("its JSON is no object")
    for field, kinds in NEEDED.items():
        value: Any = record.get(field)
        low, high = BOUNDS.get(field, (0, 0))
        if type(value) not in kinds or (field in BOUNDS and not low <= value <= high):
            raise ValueError(f"its {field} is {value!r:.80}")
    for field in LATER.values():
        if not isinstance(record.get(field), str | bool | None):
            raise ValueError(f"its {field} is {record[field]!r:.80}")
    lora = record.get("lora") or []
    if not isinstance(lora, list) or not all(isinstance(each, str) for each in lora):
        raise ValueError(f"its lora is {lora!r:.80}")
    given = record.get("quantize_args")
    if not isinstance(given, str | None) or not isinstance(parse_json(given or "{}"), dict):
        raise ValueError(f"its quantize_args is {given!r:.80}")
    return record


def read_image(path: Path) -> Any:
    """The decoded image of a sample's JSON. OSError; ValueError: it is no JPEG, or damaged."""
    data = read_file(path.with_suffix(".jpg"), IMAGE_BYTES)
    try:
        stored = open_jpeg(data)
        stored.load()
    except Exception as error:  # Pillow raises anything at a damaged file
        raise ValueError(f"its image cannot be decoded: {error}") from None
    return stored


def _later(record: dict[str, Any]) -> dict[str, Any]:
    """The settings that newer JSONs hold, too."""
    settings = {name: record[field] for name, field in LATER.items() if field in record}
    if "left_out" in record:
        settings["without_t5"] = bool(record["left_out"])
    if "lora" in record:
        settings["lora"] = ",".join(record["lora"]) or None
    if "quantize_args" in record:
        settings["quantize_args"] = parse_json(record["quantize_args"] or "{}")
    return settings


def _samples(dataset_dir: Path, which: str) -> list[Path]:
    """The JSON files of a sample ("12345_3") or of all samples of a prompt ("12345")."""
    if not (found := SAMPLE.fullmatch(which)):
        raise UserError(f"--redo {which}: expected an index (12345) or a sample (12345_3)")
    index, aug = found.groups()
    folder = folder_name(int(index))
    pattern = f"{int(index)}_{aug or '*'}.json"
    loose = {path.name for path in (dataset_dir / folder).glob(pattern)}
    mark = packed(dataset_dir / folder)
    in_tars = mark.files_of(int(index)) if mark else {}
    names = loose | {name for name in in_tars if fnmatch(name, pattern)}
    paths = sorted(
        (dataset_dir / folder / name for name in names),
        key=lambda path: int(path.stem.split("_")[1]),
    )
    if not paths:
        raise UserError(f"--redo {which}: no {folder}/{pattern} in {dataset_dir}")
    return paths


def _compare(stem: str, images: tuple[Any, Any], record: dict[str, Any], here: Pipeline) -> bool:
    """Print how a new image differs from the stored one, of the same size; whether it does.

    images: stored and new. The new one goes through the JPEG tables of the stored one first.
    """
    import numpy  # not loaded by those who submit
    from PIL import Image, JpegImagePlugin

    stored, image = images
    file = io.BytesIO()
    Image.fromarray(image.pixels).save(
        file, "JPEG", qtables=stored.quantization, subsampling=JpegImagePlugin.get_sampling(stored)
    )
    new = numpy.asarray(Image.open(file), int)
    difference = numpy.abs(numpy.asarray(stored.convert("RGB"), int) - new)
    if not difference.any():
        print(f"{stem}: identical")
        return False
    versions, gpu = record.get("library_versions"), record.get("gpu_name")
    stack = f"; generated with {visible(versions)}, here {here.versions}"
    card = f"; generated on {visible(gpu or 'a CPU')}, here {here.gpu_name or 'a CPU'}"
    print(
        f"{stem}: {(difference > 0).any(2).mean():.1%} of the pixels differ, by "
        f"{difference.mean():.2f} of 255 on average, at most {difference.max()}"
        f"{stack if versions != here.versions else ''}"
        f"{card if gpu != here.gpu_name else ''}"
    )
    return True
