"""GiB of a model's weights by the headers of its files, against what is loaded of them."""

import json
import shutil

import pytest

from generate.image_models import weights
from generate.image_models.model_recipes import TINY, family_of
from generate.image_models.weights import stored_gib
from generate.pipelines.memory_plan import GIB, Card, plan_for
from generate.pipelines.pipeline import GeneratorSettings


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny model, of a name that the table does not know."""
    shutil.copytree(TINY, tmp_path / "mine")
    return tmp_path / "mine"


def test_the_headers_say_what_will_be_loaded(folder):
    from generate.pipelines.diffusers_pipeline import counted_gib
    from generate.pipelines.image_generator import ImageGenerator

    generator = ImageGenerator(GeneratorSettings(str(folder), height=64, width=64))
    generator.load()
    counted = counted_gib(generator.pipeline.pipe)
    found = stored_gib(str(folder), None, "float32")
    assert found is not None
    # a module has buffers besides, which are made anew
    assert found == pytest.approx(counted, rel=0.02) and found[0] <= counted[0]
    assert stored_gib(str(folder), None, "bfloat16")[0] == pytest.approx(found[0] / 2)
    assert stored_gib(str(folder), None, "float32", ["text_encoder_3"])[0] < found[0] * 0.99
    (folder / "transformer" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not read")
    assert stored_gib(str(folder), None, "float32") == found, "a variant is not loaded"


def shards(part):
    """One of two."""
    whole = part / "diffusion_pytorch_model.safetensors"
    whole.rename(part / "diffusion_pytorch_model-00001-of-00002.safetensors")


def pickled(part):
    whole = part / "diffusion_pytorch_model.safetensors"
    whole.rename(part / "diffusion_pytorch_model.bin")


def torn(part):
    whole = part / "diffusion_pytorch_model.safetensors"
    whole.write_bytes(whole.read_bytes()[:100])


def header_of(words):
    def write(part):
        text = json.dumps(words).encode()
        size = len(text).to_bytes(8, "little")
        (part / "diffusion_pytorch_model.safetensors").write_bytes(size + text)

    return write


@pytest.mark.parametrize(
    "damage",
    [shards, pickled, torn, shutil.rmtree, header_of([]), header_of({"a": {"shape": "x"}})],
)
def test_files_that_do_not_tell_are_no_answer(folder, damage):
    damage(folder / "transformer")
    assert stored_gib(str(folder), None, "float32") is None


def test_a_hub_model_is_counted_once_it_was_fetched_whole(folder, monkeypatch, tmp_path):
    from huggingface_hub import constants

    commit = "1" * 40
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--someone--mine" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    assert stored_gib("someone/mine", commit, "bfloat16") is None
    monkeypatch.setattr(weights, "is_fetched", lambda *_: True)
    found = stored_gib("someone/mine", commit, "bfloat16")
    assert found == stored_gib(str(folder), None, "bfloat16")


def test_a_small_model_of_a_large_ones_class_is_planned_by_its_files(folder):
    """By its class it would be a Stable Diffusion 3.5 with 15 GiB."""
    row = family_of(str(folder))
    assert row.pipeline == "StableDiffusion3Pipeline" and row.weights_gib is None
    settings = GeneratorSettings(str(folder), height=1024, width=1024)
    card = Card("Fake card", 8.0, 7.5, (9, 0))
    stored = stored_gib(str(folder), None, "bfloat16")
    planned = plan_for(settings.resolved(), settings, card, False, stored)
    assert planned.offload == "none" and planned.line.startswith("0.0 GiB of weights")
    assert stored[0] * GIB < 10 << 20
