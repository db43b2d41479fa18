"""Samples as many workers leave them, each file its own; the two converters' commands.

make_samples(folder, 0, 20_000, pictures(1000), ours=True)
"""

import hashlib
import io
import json
import os
import random
import statistics
import sys
from pathlib import Path

import numpy
from PIL import Image

from common.jpeg import carried

SCRIPTS = Path(__file__).resolve().parent.parent / "postprocess_dataset"
TO_PARQUET, TO_TARS = (
    [sys.executable, SCRIPTS / f"{name}.py"]
    for name in ("convert_json_to_parquet", "convert_parquet_to_wds")
)
ELSEWHERE = ("hostname", "gpu_name", "image_path")  # what no image carries
WORDS = ("portrait", "cat", "castle", "neon", "rain", "oil painting", "digital art", "lighting")
WORDS += ("cinematic", "misty", "forest", "dragon", "vintage", "café", "“quoted”", "sunset")


def make_samples(folder, start, stop, images, ours, per_prompt=20):
    """Samples start … stop, each file its own, in the order in which many workers make them:
    published form, or `ours`.
    """
    chance = random.Random(start)
    order = list(range(start, stop))
    made = set()
    chance.shuffle(order)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(22, 38))) for _ in range(5000)]
    for sample in order:
        prompt, augmentation = divmod(sample, per_prompt)
        place = (
            f"{folder}/{prompt // 1000:06d}/{prompt}_{augmentation}"
            if ours
            else f"{folder}/{prompt}_{augmentation}"
        )
        original = f"{texts[prompt % 4999][:80]}, no. {prompt}"
        record = {
            "prompt_index": prompt,
            "augmentation_idx": augmentation,
            "original_prompt": original,
            "augmented_prompt": f"{texts[sample % 4999]}, take {sample}"
            if augmentation
            else original,
            "is_augmented": augmentation > 0,
            "model_name": "black-forest-labs/FLUX.1-dev",
            "llm_model_name": chance.choice(["gemma2", "gpt-4o-mini"]) if augmentation else None,
            "height": 512,
            "width": 512,
            "input_file": "HPDv2.json",
            "hostname": f"node-{chance.randrange(40)}",
            "image_path": f"{place}.jpg",
            "gpu_name": "NVIDIA A100-SXM4-80GB",
            "generation_timestamp": timestamp(chance),
        }
        if ours:
            if prompt // 1000 not in made:
                made.add(prompt // 1000)
                os.makedirs(os.path.dirname(place), exist_ok=True)
            record |= {
                "source": ["hpd"],
                "seed": chance.getrandbits(60),
                "num_inference_steps": 28,
                "guidance_scale": 7.0,
                "dtype": "bfloat16",
                "batch_size": 10,
                "library_versions": "torch 2.13.0, diffusers 0.38.0",
            }
        comment = {name: value for name, value in record.items() if name not in ELSEWHERE}
        image = with_comment(images[sample % len(images)], carried(comment))
        if ours:
            sha256 = hashlib.sha256(image).hexdigest()
            record |= {"image_sha256": sha256, "slurm_job_id": "4711", "lease": "3-127"}
        for suffix, content in ((".jpg", image), (".json", json.dumps(record).encode() + b"\n")):
            fd = os.open(place + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(fd, content)
            os.close(fd)


def with_comment(image, comment):
    """A JPEG with its metadata, so that no two images are the same."""
    return image[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + image[2:]


def collect(folder):
    """Give each prompt its .samples: the JSONs that lie there."""
    for inside in sorted(folder.iterdir()):
        prompts = {}
        for name in os.listdir(inside):
            stem, _, suffix = name.partition(".")
            if suffix == "json":
                prompt, _, augmentation = stem.partition("_")
                prompts.setdefault(prompt, []).append(int(augmentation))
        for prompt, augmentations in prompts.items():
            names = [f"{prompt}_{augmentation}.json" for augmentation in sorted(augmentations)]
            content = b"".join((inside / name).read_bytes() for name in names)
            (inside / f"{prompt}.samples").write_bytes(content)


def pictures(size):
    """50 JPEGs of about `size` bytes."""
    chance = numpy.random.default_rng(3)
    made = []
    for _ in range(50):
        rough = numpy.asarray(
            Image.fromarray(chance.integers(0, 256, (12, 12, 3), numpy.uint8)).resize(
                (512, 512), Image.BICUBIC
            ),
            numpy.float32,
        )
        side = 512 if size > 10_000 else 16
        noisy = Image.fromarray(
            numpy.clip(rough + chance.normal(0, 9.3, (512, 512, 1)), 0, 255).astype(numpy.uint8)
        ).resize((side, side))
        data = io.BytesIO()
        noisy.save(data, "JPEG", quality=75)
        made.append(data.getvalue())
    print(f"images of {statistics.mean(map(len, made)) / 1000:.1f} KB")
    return made


def timestamp(chance):
    """A moment in September 2026."""
    day = chance.randrange(1, 30)
    return f"2026-09-{day:02d}T08:09:36.{chance.randrange(10**6):06d}+00:00"
