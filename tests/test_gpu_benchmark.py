"""benchmarks/gpu.py: one command, here on a CPU; and its random SD3, small, through the loader."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_it_measures_presets_against_a_bare_loop(tmp_path):
    """A model that cannot be had, here an empty folder, takes no other one with it."""
    (tmp_path / "empty").mkdir()
    models = f"--model={tmp_path}/empty,tiny"
    words = [models, "--batches=1", "--batch_size=2", "--presets=exact,faster"]
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks/gpu.py", *words, f"--json={tmp_path}/gpu.json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    empty, tiny = json.loads((tmp_path / "gpu.json").read_text())["models"]
    assert all("cannot load the model" in row["note"] for row in empty["rows"])
    rows = tiny["rows"]
    assert [row["preset"] for row in rows] == ["bare diffusers", "exact", "faster"]
    assert rows[0]["tflop_per_image"] > 0 and rows[1]["images_per_s"] > 0
    assert 0 < rows[1]["busy"] <= 1 and rows[1]["recompiles"] == 0
    lines = [line for line in ended.stdout.splitlines() if line.startswith("| exact")]
    ratio = float(lines[-1].split("|")[3])
    assert ratio == pytest.approx(rows[1]["images_per_s"] / rows[0]["images_per_s"], abs=0.01)
    assert "torchao" in rows[2]["note"], "a preset that cannot be had says why"


@pytest.mark.soak
def test_the_random_sd3_is_loaded_as_sd3(tmp_path):
    from benchmarks.real_sizes import REAL, build_sd3
    from generate.pipelines.image_generator import ImageGenerator
    from generate.pipelines.pipeline import GeneratorSettings

    small = {
        "transformer": REAL["transformer"]
        | {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
        | {"joint_attention_dim": 64, "caption_projection_dim": 32, "pooled_projection_dim": 64},
        "vae": {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1},
        "clip": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        "clip_2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    }
    folder = build_sd3(tmp_path / "sd3", small)
    settings = GeneratorSettings(str(folder), height=64, width=64, steps=1, batch_size=2)
    generator = ImageGenerator(settings)
    generator.load()
    assert generator.recipe.family.pipeline == "StableDiffusion3Pipeline"
    assert len(generator.generate(["a star", "two cats"], [1, 2])) == 2


def test_denoisers_have_the_published_numbers_of_parameters():
    """In what is saved: SD 3.5 saves its positions. On the device meta: nothing is allocated."""
    import diffusers
    import torch

    from benchmarks.real_configs import REAL_MODELS

    different = {str((real.denoiser, real.arguments)): name for name, real in REAL_MODELS.items()}
    for name in different.values():
        real = REAL_MODELS[name]
        with torch.device("meta"):
            model = getattr(diffusers, real.denoiser)(**real.arguments)
        billions = sum(weights.numel() for weights in model.state_dict().values()) / 1e9
        half_of_the_last_digit = 0.5 / 10 ** len(real.billions.partition(".")[2])
        allowed = max(half_of_the_last_digit, 0.02 * billions)
        assert abs(billions - float(real.billions)) < allowed, (name, billions)


def test_vaes_have_the_published_numbers_of_parameters():
    """Millions: of Stable Diffusion, FLUX.1 and 2 as published, SANA's by dc-ae-f32c32-sana."""
    import torch

    from benchmarks import real_configs

    published = {"sd_vae": 84, "kl_vae": 84, "sana_vae": 312}
    for name, millions in published.items():
        with torch.device("meta"):
            model = getattr(real_configs, name)()
        assert sum(each.numel() for each in model.parameters()) / 1e6 == pytest.approx(
            millions, abs=0.5
        ), name


def test_each_recipe_can_be_built():
    from benchmarks.real_configs import REAL_MODELS
    from generate.image_models.model_recipes import row_by_name
    from generate.image_models.model_table import FAMILIES

    rows = {name: row_by_name(name) for name in REAL_MODELS}
    assert None not in rows.values(), rows
    built = {row.name for row in rows.values()} | {"sd3", "tiny"}  # these have their own builders
    assert built == {row.name for row in FAMILIES}
    assert f"one of {len(rows) - 1} others" in (ROOT / "docs/models.md").read_text()


@pytest.mark.soak
def test_denoisers_fit_the_tiny_text_encoders():
    """On the device meta; and a model's row is of its pipeline's class."""
    import diffusers
    import torch

    from benchmarks.real_configs import REAL_MODELS
    from benchmarks.real_sizes import fitted
    from generate.image_models.model_recipes import row_by_name

    for name, real in REAL_MODELS.items():
        tiny, arguments = fitted(name)
        with torch.device("meta"):
            getattr(diffusers, real.denoiser)(**arguments)
        assert row_by_name(name).pipeline == type(tiny).__name__, name


@pytest.mark.soak
def test_the_bare_loop_reads_the_images_where_the_pipeline_has_them(tmp_path, monkeypatch):
    """Kandinsky 5 calls them `image`. One step, as it is never smaller than 1024 pixels."""
    from argparse import Namespace
    from dataclasses import replace

    from benchmarks import gpu
    from tests.make_tiny_large import kandinsky5

    usual = gpu.settings_of
    monkeypatch.setattr(gpu, "settings_of", lambda *words: replace(usual(*words), steps=1))

    folder = tmp_path / "Kandinsky-5.0-T2I-Lite-sft-Diffusers"
    kandinsky5().save_pretrained(folder)
    row = gpu.measure_bare(Namespace(size=None, batch_size=1, batches=1), str(folder))
    assert row["images_per_s"] > 0


@pytest.mark.soak
def test_a_random_denoiser_made_small_goes_through_the_loader(tmp_path):
    from benchmarks.real_sizes import build
    from generate.pipelines.image_generator import ImageGenerator
    from generate.pipelines.pipeline import GeneratorSettings

    small = {"dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    small |= {"axes_dims": [8, 4, 4], "axes_lens": [2048, 32, 32]}
    folder = build("Z-Image-Turbo", tmp_path / "Z-Image-Turbo", small)
    settings = GeneratorSettings(str(folder), height=64, width=64, steps=1, batch_size=2)
    generator = ImageGenerator(settings)
    generator.load()
    assert generator.recipe.family.name == "z-image-turbo"
    assert len(generator.generate(["a star", "two cats"], [1, 2])) == 2
