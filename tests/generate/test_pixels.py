"""Images become bytes on the device, and a client does not decode the JPEG that it has made."""

import json

import numpy
import pytest

from generate.dataset import samples
from generate.pipelines.image import Image, problem_with
from generate.pipelines.pixels import pixels_of


def values(dtype="float32"):
    """(2, 3, 4, 5) in [0, 1], with every kind of rounding."""
    import torch  # 2 s that the workers without these tests are spared

    numbers = torch.linspace(-0.1, 1.1, 120).reshape(2, 3, 4, 5)
    return numbers.to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_bytes_are_made_on_the_device(monkeypatch, dtype):
    """A quarter of what floats would take is copied, and the levels are those of numpy."""
    import torch

    copied = []
    real = torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda tensor: copied.append(tensor.dtype) or real(tensor)
    )
    images, finite = pixels_of(values(dtype))
    assert set(copied) == {torch.uint8, torch.bool} and finite == [True, True]
    floats = values(dtype).float().numpy().clip(0, 1)
    expected = (floats * 255).round().astype(numpy.uint8).transpose(0, 2, 3, 1)
    assert all(image.dtype == numpy.uint8 for image in images)
    assert numpy.array_equal(numpy.stack(images), expected)
    by_hand = [Image(array, 1).pixels for array in values(dtype).float().numpy()]
    assert numpy.array_equal(numpy.stack(by_hand), expected), "as of a class of one's own"


def test_what_is_not_finite_is_found_before_it_is_black():
    broken = values().clamp(0, 1)
    broken[1, 2, 3, 4] = numpy.nan
    images, finite = pixels_of(broken)
    assert finite == [True, False]
    said = [problem_with(Image(*each), 4, 5) for each in zip(images, (2, 2), finite, strict=True)]
    assert said == [None, "NaN or infinite pixels"]


def test_a_published_jpeg_is_not_decoded_again(tmp_path, monkeypatch):
    """Its comment is the one that it was given: reading it back would cost as much as encoding."""
    from PIL import Image as PillowImage

    def fails(*_, **__):
        raise AssertionError("a JPEG is decoded")

    monkeypatch.setattr(PillowImage, "open", fails)
    noise = numpy.random.default_rng(0).integers(0, 255, (64, 64, 3), numpy.uint8)
    metadata = {"prompt_index": 0, "augmentation_idx": 0, "augmented_prompt": "a bird"}
    assert samples.publish_sample(tmp_path, noise, metadata, samples.Place("1-1"))
    record = json.loads((tmp_path / "000000" / "0_0.json").read_text())
    assert record["augmented_prompt"] == "a bird" and record["lease"] == "1-1"
