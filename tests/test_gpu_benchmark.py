"""benchmarks/gpu.py: one command, here on a CPU; and its random SD3, small, through the loader."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_it_measures_presets_against_a_bare_loop(tmp_path):
    words = ["--model=tiny", "--batches=1", "--batch_size=2", "--presets=exact,faster"]
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks/gpu.py", *words, f"--json={tmp_path}/gpu.json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["preset"] for row in rows] == ["bare diffusers", "exact", "faster"]
    assert rows[0]["tflop_per_image"] > 0 and rows[1]["images_per_s"] > 0
    assert 0 < rows[1]["busy"] <= 1 and rows[1]["recompiles"] == 0
    lines = [line for line in ended.stdout.splitlines() if line.startswith("| exact")]
    ratio = float(lines[0].split("|")[3])
    assert ratio == pytest.approx(rows[1]["images_per_s"] / rows[0]["images_per_s"], abs=0.01)
    assert "torchao" in rows[2]["note"], "a preset that cannot be had says why"


@pytest.mark.soak
def test_the_random_sd3_is_loaded_as_sd3(tmp_path):
    from benchmarks.real_sizes import REAL, build_sd3
    from generate.client.image_generator import ImageGenerator
    from generate.client.pipeline import GeneratorSettings

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


@pytest.mark.soak
def test_random_denoisers_have_the_real_size_and_run(tmp_path):
    """Billions of parameters as published; and one, made small, through the loader."""
    import torch

    from benchmarks.real_sizes import DENOISERS, build
    from generate.client.image_generator import ImageGenerator
    from generate.client.pipeline import GeneratorSettings

    published = {
        "FLUX.1-schnell": 11.9,
        "Z-Image-Turbo": 6.15,
        "Qwen-Image": 20.4,
        "Chroma1-HD": 8.9,
        "Lumina-Image-2.0": 2.6,
    }
    for name, (_, denoiser, fitting) in DENOISERS.items():
        with torch.device("meta"):
            model = denoiser(**fitting)
        billions = sum(weights.numel() for weights in model.parameters()) / 1e9
        assert billions == pytest.approx(published[name], rel=0.03), name
    small = {"dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    small |= {"axes_dims": [8, 4, 4], "axes_lens": [2048, 32, 32]}
    folder = build("Z-Image-Turbo", tmp_path / "Z-Image-Turbo", small)
    settings = GeneratorSettings(str(folder), height=64, width=64, steps=1, batch_size=2)
    generator = ImageGenerator(settings)
    generator.load()
    assert generator.recipe.family.name == "z-image-turbo"
    assert len(generator.generate(["a star", "two cats"], [1, 2])) == 2
