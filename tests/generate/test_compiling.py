"""--compile: what is compiled, how often, and what happens where it cannot be.

torch's "eager" backend stands for the inductor, which takes minutes: the very tracing, guards and
recompiles, without code generation. With the inductor: a soak. torch is imported in the functions:
it takes 2 s, which the workers without these tests are spared.
"""

import dataclasses

import numpy
import pytest

from generate.pipelines.card_share import share_line, tflop_per_image
from tests.tiny_generators import GUIDED, TinyGenerators

TEXTS = ["a red circle on a green background", "two cats"]


@pytest.fixture
def tiny(tmp_path):
    import torch

    yield TinyGenerators(tmp_path)
    torch._dynamo.reset()


@pytest.fixture
def eager(monkeypatch):
    """How many graphs torch has made."""
    import torch
    from torch._dynamo.utils import counters

    from generate.pipelines import compiling

    real = compiling.compile_parts
    monkeypatch.setattr(compiling, "compile_parts", lambda pipe: real(pipe, "eager"))
    torch._dynamo.reset()
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


def apart(one, other):
    return int(numpy.abs(one.pixels.astype(int) - other.pixels.astype(int)).max())


QUICK = ("z-image", "qwen-image")  # the others are soaks


# sd3: no names of blocks in diffusers, one list; klein: two kinds; sd15: a UNet's; z-image,
# qwen-image and lumina2 pad to the longest text; qwen-image: a VAE of 3D convolutions
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.soak) for name in GUIDED],
)
def test_blocks_are_compiled_and_pixels_stay(tiny, eager, name, caplog):
    """After the warm-up nothing is compiled for texts of other lengths, alike or not in a batch."""
    from generate.pipelines.compiling import compiled_modules

    caplog.set_level("INFO")
    generator = tiny(name, compile=True)
    pipe = generator.pipeline.pipe
    count = compiled_modules(pipe)
    assert count >= 2 and generator.pipeline.facts["compiled"] is True
    assert f"{count - ('VAE decoder' in caplog.text)} blocks of" in caplog.text
    assert ("VAE decoder" in caplog.text) == (name != "qwen-image")
    generator.warm_up()
    assert generator.pipeline.facts["compiled"] is True, caplog.text
    assert eager() >= 2
    images = generator.generate(TEXTS, [1, 2])
    for stars in (1, 3, 7):
        longer = TEXTS[0] + " and a star" * stars
        generator.generate([longer, TEXTS[1]], [1, 2])
        generator.generate([longer, longer], [1, 2])
    assert generator.recompiles == 0
    assert max(map(apart, images, tiny(name).generate(TEXTS, [1, 2]))) <= 1


def test_in_another_size_it_stays_compiled(tiny, eager, caplog):
    """Which takes more graphs of a block than the 8 that torch allows."""
    generator = tiny("qwen-image", compile=True)
    generator.warm_up()
    recipe = dataclasses.replace(generator.recipe, height=96)
    generator.generate(TEXTS, [1, 2], [recipe] * 2)
    generator.generate(TEXTS[:1], [1], [recipe])
    assert generator.pipeline.facts["compiled"] is True, caplog.text
    assert eager() > 8


def test_code_is_kept_under_all_that_it_depends_on(tiny, eager, tmp_path):
    """An empty file here: the eager backend generates none."""
    import torch

    (tmp_path / ".server").mkdir(mode=0o700)
    beside = tmp_path / ".server"
    for other in ({}, {"width": 32}, {"batch_size": 2}, {"quantize_args": {"a": 1}}):
        tiny("sd3", compile=True, beside=beside, **other).warm_up()
        torch._dynamo.reset()
    tiny("sd3", beside=beside).warm_up()
    assert len(list(beside.glob("compiled/*.artifacts"))) == 4


def test_where_it_cannot_be_compiled_it_is_generated_without(tiny, monkeypatch, caplog):
    """One line, and the JSONs say so; the text is not blamed."""
    import torch

    from generate.pipelines import compiling

    def fails(graph, inputs):
        raise RuntimeError("no such compiler (fake)")

    real = compiling.compile_parts
    monkeypatch.setattr(compiling, "compile_parts", lambda pipe: real(pipe, fails))
    torch._dynamo.reset()
    generator = tiny("sd3", compile=True)
    generator.warm_up()
    assert caplog.text.count("torch.compile cannot do it") == 1
    assert generator.pipeline.facts["compiled"] is False
    assert compiling.compiled_modules(generator.pipeline.pipe) == 0
    images = generator.generate(TEXTS, [1, 2])
    assert max(map(apart, images, tiny("sd3").generate(TEXTS, [1, 2]))) <= 1


def test_an_attention_backend_is_used_and_recorded_and_given_up_where_it_cannot(
    tiny, monkeypatch, caplog
):
    """cuDNN's attention knows no CPU: one line, and the JSONs say what was used. SD3 takes none."""
    plain = tiny("klein").generate(TEXTS, [1, 2])
    exact = tiny("klein", attention="_native_math")
    assert exact.pipeline.facts["attention_backend"] == "_native_math"
    assert max(map(apart, plain, exact.generate(TEXTS, [1, 2]))) <= 1
    generator = tiny("klein", attention="_native_cudnn")
    assert generator.pipeline.facts["attention_backend"] == "_native_cudnn"
    generator.warm_up()
    assert caplog.text.count("the attention backend _native_cudnn cannot do it") == 1
    assert generator.pipeline.facts["attention_backend"] == "native"
    assert max(map(apart, plain, generator.generate(TEXTS, [1, 2]))) == 0
    assert tiny("sd3", attention="_native_math").pipeline.facts["attention_backend"] == "native"
    assert "SD3Transformer2DModel takes no attention backend" in caplog.text
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "_native_math")
    assert tiny("klein").pipeline.facts["attention_backend"] == "_native_math"
    assert tiny("sd3").pipeline.facts["attention_backend"] == "native"


@pytest.mark.soak
def test_with_the_real_compiler(tiny, caplog):
    caplog.set_level("INFO")
    generator = tiny("sd3", compile=True)
    generator.warm_up()
    assert generator.pipeline.facts["compiled"] is True, caplog.text
    images = generator.generate(TEXTS, [1, 2])
    assert max(map(apart, images, tiny("sd3").generate(TEXTS, [1, 2]))) <= 2


def test_the_share_of_a_cards_peak_is_counted_however_it_is_compiled(tiny, eager):
    """By a Fake H100: as many FLOPs eager and compiled, in a batch of any size; a CPU has none."""
    from torch.utils.flop_counter import FlopCounterMode

    shares = set()
    for settings in ({}, {"compile": True, "batch_size": 1}):
        generator = tiny("sd3", **settings)
        generator.warm_up()
        assert share_line(generator, 5.0) is None
        generator.pipeline.gpu_name = "Fake NVIDIA H100 80GB HBM3"
        shares.add(share_line(generator, 1e6))
        work = tflop_per_image(generator)
        generator.pipeline.gpu_name = None
        assert generator.generate(TEXTS, [1, 2]), "it goes on as before"
    assert shares == {f"{1e6 * work / 989:.2f} of the card's 989 TFLOP/s ({work:.3g} an image)"}
    with FlopCounterMode(display=False) as counter:
        twice = tiny("sd3", steps=4, batch_size=1)
        twice.generate(TEXTS[:1], [1])
    assert work * 1e12 < counter.get_total_flops() < 2 * work * 1e12, "steps, and text and decoding"
