"""Images to score, and a tiny CLIP through the very code of transformers."""

from pathlib import Path

import numpy
import pytest
from PIL import Image, ImageDraw, ImageFont

SIDE = 512


def lettering(words: str) -> numpy.ndarray:
    image = Image.new("RGB", (SIDE, SIDE // 2), "white")
    font = ImageFont.load_default(48)
    ImageDraw.Draw(image).text((40, 90), words, fill="black", font=font)
    return numpy.asarray(image)


@pytest.fixture(scope="session")
def pictures() -> dict[str, numpy.ndarray]:
    """Named pictures: flat, flat with a strip, noise, a drawing and its blurred copy."""
    noise = numpy.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), numpy.uint8)
    flat = numpy.full((SIDE, SIDE, 3), 128, numpy.uint8)
    strip = flat.copy()
    strip[200:230] = 255
    drawing = Image.fromarray(noise).resize((24, 24)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    ImageDraw.Draw(drawing).ellipse((80, 120, 400, 380), fill=(200, 30, 30))
    blurred = drawing.resize((32, 32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    arrays = {"flat": flat, "strip": strip, "noise": noise}
    arrays |= {"drawing": numpy.asarray(drawing), "blurred": numpy.asarray(blurred)}
    return arrays


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of two layers, saved as the hub has them."""
    import torch
    import transformers

    from tests.make_tiny import clip_tokenizer

    folder = tmp_path_factory.mktemp("tiny_clip")
    tokenizer = clip_tokenizer()
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    text = small | {"vocab_size": len(tokenizer), "max_position_embeddings": 77}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config=small | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"shortest_edge": 32}
    images = transformers.CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder
