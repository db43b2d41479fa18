"""Tiny pipelines of the real classes and the trained tiny model; and the tables."""

import dataclasses
import json
from pathlib import Path

import numpy
import pytest

from common.command_line import UserError
from generate.client.recipes import seed_of
from generate.image_models import model_recipes
from generate.image_models.model_check import check_model
from generate.image_models.model_recipes import batch_size_for, dtype_for, family_of, profile_of
from generate.pipelines.faults import CannotStart
from generate.pipelines.image import Image, problem_with
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import CannotGenerate, DeviceBroken, GeneratorSettings

TEXTS = ["a red circle on a green background", "two cats in the park", "a star", "青い鳥 " * 200]
SEEDS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """tiny(name) -> folder of a tiny random pipeline of that family."""
    from tests import make_tiny

    folder, built = tmp_path_factory.mktemp("tiny"), {}

    def get(name):
        if name not in built:
            make_tiny.build(name, folder / name)
            built[name] = folder / name
        return str(built[name])

    return get


def loaded(model, **kwargs):
    settings = {"height": 64, "width": 64, "steps": 2, "batch_size": 4} | kwargs
    generator = ImageGenerator(GeneratorSettings(str(model), **settings))
    generator.load()
    return generator


def test_guidance_and_steps_reach_the_pipeline(tiny):
    (base,) = loaded(tiny("sd3")).generate(TEXTS[:1], [1])
    for change in ({"steps": 3}, {"guidance": 1.5}):
        assert not numpy.array_equal(
            loaded(tiny("sd3"), **change).generate(TEXTS[:1], [1])[0].pixels, base.pixels
        )
    assert not numpy.array_equal(
        loaded(tiny("sd3")).generate(TEXTS[:1], [2])[0].pixels, base.pixels
    )


def test_a_transformer_of_its_own(tiny, tmp_path, monkeypatch):
    """PixArt-Sigma as published: the transformer from one place, everything else from another."""
    whole = Path(tiny("pixart-sigma"))
    alone = tmp_path / "PixArt-Sigma-XL-2-512-MS"
    alone.mkdir()
    (alone / "transformer").symlink_to(whole / "transformer")
    row = family_of(str(alone))
    assert row.base and family_of(str(whole)).base is None
    monkeypatch.setattr(
        model_recipes,
        "FAMILIES",
        [dataclasses.replace(row, base=str(whole)), *model_recipes.FAMILIES],
    )
    assert numpy.array_equal(
        loaded(alone).generate(TEXTS, SEEDS)[0].pixels,
        loaded(whole).generate(TEXTS, SEEDS)[0].pixels,
    )
    check_model(str(alone))


def test_the_warm_up_batch_has_two_steps(tiny, monkeypatch):
    generator = loaded(tiny("sd3"), steps=9)
    asked = []
    real = generator._call
    monkeypatch.setattr(
        generator, "_call", lambda *words: asked.append(words[2].steps) or real(*words)
    )
    generator.warm_up()
    generator.generate(TEXTS, SEEDS)
    assert asked == [2, 9]


def test_nan_images_do_not_count(tiny, tmp_path):
    """NaN weights, and the tiny Lumina, whose images are NaN, are found by the check.

    The warm-up batch refuses such a device.
    """
    import torch

    from tests import make_tiny

    pipe = make_tiny.build("pixart-sigma", tmp_path)
    with torch.no_grad():
        pipe.transformer.proj_out.weight.fill_(torch.nan)
    pipe.save_pretrained(tmp_path)
    for generator in (loaded(tmp_path), loaded(tiny("lumina"))):
        images = generator.generate(TEXTS, SEEDS)
        assert {problem_with(image, 64, 64) for image in images} == {"NaN or infinite pixels"}
        with pytest.raises(CannotStart, match="NaN"):
            generator.warm_up()


def test_a_batch_that_does_not_fit_is_halved_and_remembered(tiny, tmp_path, monkeypatch, caplog):
    import torch

    generator = loaded(tiny("sdxl"), beside=tmp_path)
    expected = loaded(tiny("sdxl"), batch_size=1).generate(TEXTS, SEEDS)
    real = type(generator.pipeline.pipe).__call__

    def small_card(pipe, prompt, generator, **kwargs):
        for g in generator:
            g.manual_seed(999)  # a try that failed has used its generators
        if len(prompt) > 1:
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9999 bytes"
            )
        return real(
            pipe,
            prompt=prompt,
            generator=[torch.Generator().manual_seed(g) for g in seeds.pop(0)],
            **kwargs,
        )

    seeds = [[s] for s in SEEDS]
    monkeypatch.setattr(type(generator.pipeline.pipe), "__call__", small_card)
    images = generator.generate(TEXTS, SEEDS)
    assert [image.batch_size for image in images] == [1] * 4
    assert all(numpy.array_equal(a.pixels, b.pixels) for a, b in zip(images, expected, strict=True))
    assert "1 images at a time" in caplog.text
    again = loaded(tiny("sdxl"), beside=tmp_path)
    assert (
        again.batch_size == 1
        and loaded(tiny("sdxl"), height=128, width=128, beside=tmp_path).batch_size == 4
    )
    monkeypatch.setattr(
        type(generator.pipeline.pipe),
        "__call__",
        lambda *a, **k: (_ for _ in ()).throw(RuntimeError("CUDA out of memory")),
    )
    with pytest.raises(DeviceBroken, match="not even one image"):
        generator.generate(TEXTS, SEEDS)


def test_whose_fault(tiny, monkeypatch):
    generator = loaded(tiny("sdxl"))
    for error, raised in [
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceBroken),
        (ValueError("bad text"), CannotGenerate),
    ]:
        monkeypatch.setattr(
            type(generator.pipeline.pipe),
            "__call__",
            lambda *a, error=error, **k: (_ for _ in ()).throw(error),
        )
        with pytest.raises(raised):
            generator.generate(TEXTS, SEEDS)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"offload": "model"}, "needs a GPU"),
        ({"quantize": "no_such_backend"}, "cannot load the model"),
    ],
)
def test_settings_that_cannot_work_are_one_line(tiny, settings, says):
    with pytest.raises(UserError, match=says):
        loaded(tiny("sd3"), **settings)


def test_the_trained_tiny_model_draws_what_it_is_told():
    generator = ImageGenerator(GeneratorSettings("tiny"))
    generator.load()
    assert (
        generator.recipe.height,
        generator.recipe.steps,
        generator.recipe.guidance,
        generator.arguments["max_sequence_length"],
    ) == (64, 12, 4.0, 16)
    red, blue = generator.generate(
        ["a large red circle on a white background", "a small blue square on a yellow background"],
        [1, 2],
    )
    for image, thing, ground in (
        (red, (220, 40, 40), (245, 245, 245)),
        (blue, (45, 75, 225), (245, 215, 50)),
    ):
        assert numpy.abs(image.pixels[30:34, 30:34].mean((0, 1)) - thing).max() < 40
        assert numpy.abs(image.pixels[:4].mean((0, 1)) - ground).max() < 40


# ---------------------------------------------------------------- without torch


def image(values):
    return Image(numpy.asarray(values, numpy.float32), 1)


def test_check():
    noise = numpy.random.default_rng(0).random((3, 64, 64))
    assert problem_with(image(noise), 64, 64) is None
    assert "64x64" in problem_with(image(noise), 128, 128)
    assert "black" in problem_with(image(noise * 0), 64, 64)
    assert "one colour" in problem_with(image(noise * 0 + 0.8), 64, 64)
    red = numpy.zeros((64, 64, 3), numpy.uint8) + numpy.array([220, 40, 40], numpy.uint8)
    assert "one colour" in problem_with(Image(red, 1), 64, 64)
    red[10, 10] = (212, 40, 40)  # a single pixel, between those of the quick look
    assert problem_with(Image(red, 1), 64, 64) is None
    for value in (numpy.nan, numpy.inf):
        noise[1, 2, 3] = value
        assert "NaN" in problem_with(image(noise), 64, 64)


def test_seeds():
    """63 bits, different for every image, the same on every machine."""
    assert seed_of(0, 12345, 3) == 4995414376022346774
    seeds = {
        seed_of(run, index, aug, attempt)
        for run in range(2)
        for index in range(50)
        for aug in range(20)
        for attempt in range(2)
    }
    assert len(seeds) == 4000 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "model, family",
    [
        ("stabilityai/stable-diffusion-3-medium-diffusers", "sd3"),
        ("stabilityai/stable-diffusion-3.5-large", "sd3.5-large"),
        ("tiny", "tiny"),
        ("PixArt-alpha/PixArt-XL-2-1024-MS", "pixart-alpha"),
        ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "pixart-sigma"),
        ("PixArt-alpha/PixArt-Sigma-XL-2-512-MS", "pixart-sigma-512 (transformer)"),
        ("Alpha-VLLM/Lumina-Next-SFT-diffusers", "lumina"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
        ("black-forest-labs/FLUX.1-schnell", "flux-schnell"),
        ("black-forest-labs/FLUX.1-dev", "flux"),
        ("Qwen/Qwen-Image", "qwen-image"),
        ("nobody/a-model", "untested"),
    ],
)
def test_family_of_a_hub_id(model, family):
    assert family_of(model).name == family


def test_profiles():
    batch = lambda gib, size: batch_size_for(profile_of(gib), size, size)  # noqa: E731
    assert batch(80, 1024) > batch(24, 1024) >= batch(11, 1024) >= 1 and batch(24, 512) > batch(
        24, 1024
    )
    assert profile_of(16).without_t5 and not profile_of(24).without_t5
    assert dtype_for(family_of("black-forest-labs/FLUX.1-dev"), (7, 5)) == "float16"
    assert dtype_for(family_of("black-forest-labs/FLUX.1-dev"), (8, 0)) == "bfloat16"
    assert dtype_for(family_of("tiny"), None) == "float32"


def test_check_model(tmp_path):
    check_model("tiny")
    whole = tmp_path / "SDXL-Lightning"  # on the hub that is an adapter without its pipeline
    whole.mkdir()
    with pytest.raises(UserError, match="holds no sdxl_lightning_4step_lora"):
        check_model(str(whole))
    (whole / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    check_model(str(whole))
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"model_index\.json"):
        check_model(str(tmp_path / "model"))
    with pytest.raises(UserError, match="nobody/no-such-model"):
        check_model("nobody/no-such-model")


def test_licence_notice():
    from generate import generate_images

    assert "train a foundation model" in family_of(generate_images.MODEL).notice
    assert family_of("black-forest-labs/FLUX.1-schnell").notice is None
    assert (
        json.loads((model_recipes.TINY / "model_index.json").read_text())["_class_name"]
        == "StableDiffusion3Pipeline"
    )
