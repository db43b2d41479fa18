"""The table of models against the installed diffusers: nobody here can run these models."""

import inspect

import pytest

from generate.image_models import model_recipes
from generate.image_models.model_recipes import family_of, numbers_of, own_defaults
from generate.image_models.model_table import FAMILIES
from generate.pipelines.pipeline import GeneratorSettings

OWN = """
class Base:
    def __call__(self, prompt, height=768, *, num_inference_steps=8, guidance_scale=2, **rest):
        raise NotImplementedError
class Mine(Base):
    device = "cpu"
class Silent:
    def __call__(self, prompt, num_inference_steps, **rest):
        raise NotImplementedError
"""
FEW_STEPS = {
    "stabilityai/stable-diffusion-3.5-large-turbo": (1024, 4, 0.0),
    "stabilityai/sdxl-turbo": (512, 1, 0.0),
    "ByteDance/SDXL-Lightning": (1024, 4, 0.0),
    "black-forest-labs/FLUX.1-schnell": (1024, 4, 0.0),
    "black-forest-labs/FLUX.2-klein-4B": (1024, 4, 1.0),
    "Tongyi-MAI/Z-Image-Turbo": (1024, 8, 0.0),
    "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers": (1024, 2, 4.5),
    "HiDream-ai/HiDream-I1-Fast": (1024, 16, 0.0),
    "hunyuanvideo-community/HunyuanImage-2.1-Distilled-Diffusers": (2048, 8, 3.25),
}


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.name)
def test_every_argument_of_a_row_is_one_of_its_pipeline(row):
    import diffusers

    known = inspect.signature(getattr(diffusers, row.pipeline).__call__).parameters
    wanted = {"height", "width", "num_inference_steps", *row.call}
    wanted |= {row.guidance_argument} - {"guider"}
    if row.negative_prompt is not None:
        wanted.add("negative_prompt")
    # SDXL and SD 1.5 cut at CLIP's 77 tokens and take no such argument
    if row.max_sequence_length:
        wanted.add("max_sequence_length")
    assert wanted <= known.keys()
    assert row.size % row.multiple == 0 and row.steps and row.guidance is not None
    assert row.weights_gib and row.licence


@pytest.mark.parametrize("model, numbers", FEW_STEPS.items())
def test_distilled_models_get_their_few_steps(model, numbers):
    recipe = GeneratorSettings(model).resolved()
    assert (recipe.height, recipe.steps, recipe.guidance) == numbers


def test_qwen_images_negative_prompts_are_those_of_their_cards():
    """Without one there is no guidance at all."""
    old, new = (GeneratorSettings(f"Qwen/Qwen-Image{x}").resolved() for x in ("", "-2512"))
    assert old.negative_prompt == " " and len(new.negative_prompt) == 61
    assert old.arguments(lambda true_cfg_scale: None) == {"true_cfg_scale": 4.0}


def test_the_default_model_draws_as_published():
    from generate import generate_images

    row = family_of(generate_images.MODEL)
    assert (row.size, row.dtype) == (512, "bfloat16")


def test_what_rewrites_a_prompt_is_off():
    import diffusers

    for name in (
        "SanaPipeline",
        "SanaSprintPipeline",
        "ErnieImagePipeline",
        "LongCatImagePipeline",
    ):
        call = getattr(diffusers, name).__call__
        arguments = GeneratorSettings("nobody/sana").resolved().arguments(call)
        named = {"complex_human_instruction", "use_pe", "enable_prompt_rewrite"} & arguments.keys()
        assert named and not any(arguments[argument] for argument in named)


def test_a_class_that_is_not_in_the_table_gives_numbers():
    row = own_defaults("LongCatImagePipeline", None)
    assert (row.size, row.steps, row.guidance) == (1024, 50, 4.5)


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.name)
def test_numbers_that_are_said_to_be_the_classs_own(row):
    """Those of rows with another source differ from it: else they would be called the class's."""
    import diffusers

    known = inspect.signature(getattr(diffusers, row.pipeline).__call__).parameters
    guidance = known.get(row.guidance_argument)
    own = (known["num_inference_steps"].default, guidance and guidance.default)
    assert (numbers_of(row) == "class") == (own == (row.steps, row.guidance) and row.name != "tiny")


def test_a_class_of_ones_own_gives_its_own_numbers(tmp_path):
    """By its text: nothing is imported. What it does not say is null, and not asked for."""
    path = tmp_path / "mine.py"
    path.write_text(f"raise SystemExit('imported')\n{OWN}")
    mine = GeneratorSettings("m", pipeline=f"{path}:Mine").resolved()
    assert (mine.height, mine.steps, mine.guidance) == (768, 8, 2.0)
    silent = GeneratorSettings("m", pipeline=f"{path}:Silent").resolved()
    assert (silent.height, silent.steps, silent.guidance) == (1024, None, None)
    given = GeneratorSettings("m", pipeline=f"{path}:Silent", steps=3).resolved()
    known = GeneratorSettings("Tongyi-MAI/Z-Image-Turbo", pipeline=f"{path}:Silent").resolved()
    assert (known.steps, known.guidance) == (8, 0.0)
    assert given.arguments(lambda prompt, **rest: None)["num_inference_steps"] == 3


def test_a_hub_id_of_unknown_name_is_looked_up(monkeypatch):
    """Its class and configuration, from the cache or the hub; without them 50 steps, guidance 5."""
    files = {
        "model_index.json": {"_class_name": "QwenImagePipeline"},
        "transformer/config.json": {"sample_size": 64},
        "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
    }
    monkeypatch.setattr(model_recipes, "hub_config", lambda model, name: files.get(name, {}))
    row = family_of("someone/painter")
    assert (row.name, row.steps, row.guidance_argument) == ("qwen-image", 50, "true_cfg_scale")
    assert row.size == 512
    files.clear()
    assert family_of("someone/painter").name == "untested"
