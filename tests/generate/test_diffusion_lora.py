"""--lora: adapters made for tiny pipelines, through the very code."""

import json
import os

import numpy
import pytest

from common.command_line import UserError
from generate.image_models import lora
from generate.pipelines.faults import CannotStart
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import GeneratorSettings


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder with an adapter for the tiny model's transformer."""
    import diffusers
    import torch
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from generate.image_models.model_recipes import TINY

    torch.manual_seed(1)
    transformer = diffusers.SD3Transformer2DModel.from_pretrained(TINY / "transformer")
    where = ["to_q", "to_k"]
    transformer.add_adapter(LoraConfig(r=2, target_modules=where, init_lora_weights=False))
    folder = tmp_path_factory.mktemp("adapter")
    layers = get_peft_model_state_dict(transformer)
    diffusers.StableDiffusion3Pipeline.save_lora_weights(folder, transformer_lora_layers=layers)
    return folder


def drawn(adapters):
    """(pixels of an image by the tiny model, fields of its JSON)."""
    settings = GeneratorSettings("tiny", steps=3, batch_size=1, lora=adapters)
    generator = ImageGenerator(settings)
    generator.load()
    image = generator.generate(["a red circle on a white background"], [1])[0]
    return image.pixels.astype(int), generator.pipeline.facts["lora"]


def test_an_adapter_changes_images_by_its_weight(adapter):
    """And stands in the JSON with weight and sha256; weight 0 changes nothing."""
    without, said = drawn(None)
    assert said == []
    (checked,) = lora.check(lora.parse(f"{adapter}:0.5"))
    half, said = drawn(checked.text())
    assert said == [f"{adapter}@{checked.commit}:0.5"] and len(checked.commit) == 16
    whole, _ = drawn(str(adapter))
    apart = [numpy.abs(pixels - without).mean() for pixels in (half, whole)]
    assert 0 < apart[0] < apart[1]
    none, _ = drawn(f"{adapter}:0")
    assert numpy.array_equal(none, without)
    twice, _ = drawn(f"{adapter}:0.5,{adapter}/pytorch_lora_weights.safetensors:0.5")
    assert numpy.abs(twice - whole).max() <= 1  # sums are rounded in another order


def test_what_can_be_named(adapter, tmp_path):
    path = adapter / lora.DEFAULT_FILE
    by_folder, by_file = lora.parse(f"{adapter}:2,{path}")
    assert (by_folder.local, by_folder.weight) == (path, 2.0)
    assert (by_file.local, by_file.weight) == (path, 1.0)
    (hub,) = lora.parse("ByteDance/SDXL-Lightning/sdxl_lightning_8step_lora.safetensors@ab12:0.8")
    assert (hub.source, hub.commit, hub.weight) == ("ByteDance/SDXL-Lightning", "ab12", 0.8)
    assert hub.file == "sdxl_lightning_8step_lora.safetensors" and hub.local is None
    assert lora.parse(hub.text()) == [hub] and lora.parse("a/b")[0].file == lora.DEFAULT_FILE
    (changed,) = lora.parse(f"{adapter}@{'0' * 16}")
    for name in ("pipe", "device"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / lora.DEFAULT_FILE)
    (tmp_path / "device" / lora.DEFAULT_FILE).symlink_to("/dev/zero")
    for wrong, says in (
        ("nowhere", "neither a hub id"),
        ("a/b:inf", "no number"),
        ("a/b/c.bin", "safetensors"),
        (str(tmp_path), "name the file"),
        (changed.text(), "has changed"),
        (f"{tmp_path}/pipe", "it is a named pipe"),
        (f"{tmp_path}/device", "it is a device"),
    ):
        with pytest.raises(UserError, match=says):
            lora.check(lora.parse(wrong))


def test_a_model_that_takes_none(adapter, tmp_path):
    """A class without adapters, and an adapter of another model: one line each."""
    from tests import make_tiny

    make_tiny.build("pixart-sigma", tmp_path / "pixart")
    make_tiny.build("sdxl", tmp_path / "sdxl")
    for model, says in (("pixart", "PixArtSigmaPipeline takes none"), ("sdxl", "fits no part")):
        settings = GeneratorSettings(str(tmp_path / model), lora=str(adapter))
        with pytest.raises(CannotStart, match=says) as refused:
            ImageGenerator(settings).load()
        assert len(str(refused.value).splitlines()) == 1


def test_the_fields_can_be_read_back(adapter):
    """--redo takes the adapters from the JSON."""
    from generate.launch.redo import _later

    (checked,) = lora.check(lora.parse(str(adapter)))
    record = json.loads(json.dumps({"lora": [checked.text()]}))
    assert lora.check(lora.parse(_later(record)["lora"])) == [checked]
    assert _later({"lora": []})["lora"] is None
