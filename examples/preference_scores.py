"""Scores of others, as FILE.py:CLASS: PickScore, ImageReward, HPSv3, VQAScore.

    --preview 16 --scores examples/preference_scores.py:PickScore

Each needs its own package and gigabytes of weights from the hub, which are loaded when the score is
made, not when its name is looked up. Their packages pin old libraries: give each a virtual
environment, and score a finished data set with score_images.py there. Of these, the tests run
PickScore alone, with a tiny model in its place.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

Pixels = numpy.ndarray[Any, numpy.dtype[Any]]


class PickScore:
    """Cosine of image and text by a CLIP-H that was trained on Pick-a-Pic's choices.

    Kirstain et al., "Pick-a-Pic" (2023). Needs transformers alone.
    """

    name = "pickscore"
    version = "yuvalkirstain/PickScore_v1"
    licence = "none stated on the model's card"
    processor = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

    def __init__(self) -> None:
        import torch
        import transformers

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = transformers.AutoModel.from_pretrained(self.version)
        self.model = model.to(self.device).eval()
        self.prepare: Any = transformers.AutoProcessor.from_pretrained(self.processor)

    def score(self, images: list[Pixels], texts: list[str]) -> list[float]:
        import torch

        inputs = self.prepare(
            text=texts,
            images=[Image.fromarray(image) for image in images],
            padding="max_length",
            truncation=True,
            max_length=77,
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            found = self.model(**inputs)
        pairs = torch.nn.functional.cosine_similarity(found.image_embeds, found.text_embeds)
        return [float(value) for value in pairs.cpu()]


class ImageReward:
    """A reward by BLIP, trained on 137,000 comparisons; no bounds.

    Xu et al. (2023). pip install image-reward; it takes files, one at a time.
    """

    name = "imagereward"
    version = "ImageReward-v1.0"
    licence = "Apache-2.0"

    def __init__(self) -> None:
        import ImageReward as package

        self.model: Any = package.load(self.version)

    def score(self, images: list[Pixels], texts: list[str]) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            paths = files(images, folder)
            pairs = zip(texts, paths, strict=True)
            return [float(self.model.score(text, path)) for text, path in pairs]


class HPSv3:
    """Human preference by Qwen2-VL-7B, on any style; no bounds. Needs a GPU.

    Ma et al. (ICCV 2025). pip install hpsv3; its reward has a mean and a spread: the mean is taken.
    """

    name = "hpsv3"
    version = "MizzenAI/HPSv3, package 1.0.0"
    licence = "Apache-2.0"

    def __init__(self) -> None:
        import hpsv3

        self.model: Any = hpsv3.HPSv3RewardInferencer(device="cuda")

    def score(self, images: list[Pixels], texts: list[str]) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            rewards = self.model.reward(prompts=texts, image_paths=files(images, folder))
        return [float(reward[0]) for reward in rewards]


class VQAScore:
    """How likely "Does this figure show …?" is answered with yes, 0 to 1; good at composition.

    Lin et al. (ECCV 2024). pip install t2v-metrics. Needs a GPU.
    """

    name = "vqascore"
    version = "clip-flant5-xl"
    licence = "Apache-2.0 (package and weights: see their cards)"

    def __init__(self) -> None:
        import t2v_metrics

        self.model: Any = t2v_metrics.VQAScore(model=self.version)

    def score(self, images: list[Pixels], texts: list[str]) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            pairs = zip(files(images, folder), texts, strict=True)
            return [float(self.model(images=[path], texts=[text])) for path, text in pairs]


def files(images: list[Pixels], folder: str) -> list[str]:
    """The images as PNG files."""
    paths = [str(Path(folder, f"{number}.png")) for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths
