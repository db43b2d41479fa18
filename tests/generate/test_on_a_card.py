"""What only a card can show; without one each is skipped by name. `-m gpu` runs these alone."""

import subprocess
import sys
from pathlib import Path

import numpy
import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a red circle on a white background", "a small blue square on a yellow background"]

pytestmark = pytest.mark.gpu


@pytest.fixture
def card():
    """Its name."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA card here")
    return torch.cuda.get_device_name()


def drawn(**settings):
    """(images by the tiny model, what their JSONs say)."""
    from generate.pipelines.image_generator import ImageGenerator
    from generate.pipelines.pipeline import GeneratorSettings

    generator = ImageGenerator(GeneratorSettings("tiny", batch_size=2, **settings))
    generator.load()
    generator.warm_up()
    images = [image.pixels.astype(int) for image in generator.generate(TEXTS, [1, 2])]
    return images, generator.pipeline.facts | {"gpu_name": generator.pipeline.gpu_name}


def test_the_tiny_model_draws_on_the_card_what_it_is_told(card):
    images, facts = drawn()
    assert facts["gpu_name"] == card
    for image, colour in zip(images, ((220, 40, 40), (45, 75, 225)), strict=True):
        assert numpy.abs(image[30:34, 30:34].mean((0, 1)) - colour).max() < 40


@pytest.mark.parametrize("settings", [{"compile": True}, {"offload": "model"}], ids=str)
def test_what_only_moves_the_rounding_moves_no_more(card, settings):
    exact, _ = drawn()
    other, facts = drawn(**settings)
    assert all(facts[name if name != "compile" else "compiled"] for name in settings)
    assert max(numpy.abs(a - b).mean() for a, b in zip(exact, other, strict=True)) < 2


def test_the_benchmark_of_a_card(card):
    words = ["--model=tiny", "--batches=2", "--presets=exact,fast"]
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks/gpu.py", *words],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"tiny on {card}" in ended.stdout and "| fast |" in ended.stdout
