"""The newer families through the very code, each as a tiny random pipeline of its class."""

import dataclasses
import types

import numpy
import pytest

from common.command_line import UserError
from generate.pipelines.image import FLAGGED, problem_with
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.memory_plan import Plan
from generate.pipelines.pipeline import GeneratorSettings
from generate.pipelines.provenance import check
from generate.pipelines.text_lengths import TextLengths, truncated
from tests.tiny_generators import GUIDED, TinyGenerators

TEXTS = ["a red circle on a green background", "two cats", "a star"]
SEEDS = [1, 2, 3]
# one token a letter
BYTE_TOKENS = ("z-image", "klein", "qwen-image", "sana", "flux2", "cogview4", "kandinsky5")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return TinyGenerators(tmp_path_factory.mktemp("tiny"))


def apart(one, other):
    """The largest difference of two images, in levels of 255."""
    return int(numpy.abs(one.pixels.astype(int) - other.pixels.astype(int)).max())


@pytest.mark.parametrize("name", GUIDED)
def test_family(tiny, name):
    """As many transformer calls as steps, neighbours change nothing, text, guidance and negative
    prompt arrive where the model takes them, another size is made as asked.

    Qwen and Lumina2 pad to the longest text of a batch, so their attention sums in another order
    without it: one level of rounding (on processors with AVX-512), whatever this project does.
    """
    generator = tiny(name)
    family = generator.recipe.family
    assert family.pipeline == type(generator.pipeline.pipe).__name__ and family.tested
    pipe = generator.pipeline.pipe
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    times = []
    hook = denoiser.register_forward_hook(lambda *_: times.append(pipe.scheduler.step_index))
    images = generator.generate(TEXTS, SEEDS)
    hook.remove()
    assert len(set(times)) == generator.recipe.steps
    assert [problem_with(image, 64, 64) for image in images] == [None] * 3
    turned = generator.generate(TEXTS[::-1], SEEDS[::-1])[::-1]
    assert max(map(apart, images, turned)) <= 1
    alone = generator.generate(TEXTS[1:2], SEEDS[1:2])[0]
    assert apart(alone, images[1]) <= 1 and alone.batch_size == generator.batch_size
    assert apart(generator.generate(TEXTS[:1], SEEDS[1:2])[0], images[1]) > 0

    def asked(**changes):
        recipe = dataclasses.replace(generator.recipe, **changes)
        return generator.generate(TEXTS, SEEDS, [recipe] * 3)

    guidance, negative = GUIDED[name]
    assert (max(map(apart, images, asked(guidance=9.0))) > 0) == guidance
    assert (family.negative_prompt is not None) == negative
    if negative:
        assert max(map(apart, images, asked(negative_prompt="blue squares"))) > 0
    tall = asked(height=128, width=32)
    assert [problem_with(image, 128, 32) for image in tall] == [None] * 3


@pytest.mark.parametrize("name", ["cogview4", "kandinsky5"])
def test_what_reads_the_padding_goes_one_by_one(tiny, name):
    """In a batch their images would depend on their neighbours: else the row says too much."""
    together = tiny(name, batch_size=3)
    assert together.batch_size == 1
    together.pipeline.batch_size = 3
    together._batch_sizes.clear()
    images = together.generate(TEXTS, SEEDS)
    assert together.batch_size == 3
    assert apart(together.generate(TEXTS[1:2], SEEDS[1:2])[0], images[1]) > 1


@pytest.mark.parametrize("name", BYTE_TOKENS)
def test_what_is_said_to_be_cut_is_cut(tiny, name):
    """Two texts that differ in their last letter: other pixels as long as the count is within the
    limit, the same ones once it is far above."""
    generator = tiny(name, batch_size=1)
    pipe = generator.pipeline.pipe
    count = TextLengths(pipe, generator.arguments)
    empty, limit = count("")["text_encoder"]
    for length, cut in ((limit - empty, False), (limit + 60, True)):
        one, other = ("x" * (length - 1) + last for last in "yz")
        assert ("text_encoder" in truncated(count(one))) is cut
        if name == "qwen-image":
            # one of 512 tokens moves its pixels by less than a level: what the encoder says
            said = [pipe.encode_prompt([t], max_sequence_length=limit)[0] for t in (one, other)]
            same = bool((said[0] == said[1]).all())
        else:
            same = apart(*(generator.generate([text], [1])[0] for text in (one, other))) == 0
        assert same is cut


def test_long_texts_of_clip(tiny):
    generator = tiny("sd15")
    short, long = ("a star " * count for count in (3, 60))
    count = TextLengths(generator.pipeline.pipe, generator.arguments)
    assert truncated(count(short)) == [] and truncated(count(long)) == ["text_encoder"]
    assert count(long)["text_encoder"][1] == 77


def test_the_clips_of_hidream_read_longer_texts(tiny):
    """As its pipeline cuts them, at max_sequence_length; HunyuanImage's glyphs are not counted."""
    generator = tiny("hidream")
    count = TextLengths(generator.pipeline.pipe, generator.arguments)
    assert [limit for _, limit in count("a star").values()] == [128] * 4
    assert "text_encoder" not in truncated(count("a star " * 45))
    assert len(truncated(count("a star " * 80))) == 4
    generator = tiny("hunyuanimage")
    assert list(TextLengths(generator.pipeline.pipe, {})("a star")) == ["text_encoder"]


def tiny_checker():
    """A random safety checker of the real class that flags every image."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    part = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    vision = part | {"num_attention_heads": 2, "image_size": 30, "patch_size": 6}
    text = part | {"num_attention_heads": 2, "vocab_size": 10}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data -= 2  # a cosine is never below this threshold
    return checker.eval()


def test_flags_of_the_safety_checker_reach_the_image(tiny):
    from transformers import CLIPImageProcessorPil

    generator = tiny("sd15")
    assert not any(image.flagged for image in generator.generate(TEXTS, SEEDS))
    pipe = generator.pipeline.pipe
    pipe.safety_checker = tiny_checker()
    pipe.feature_extractor = CLIPImageProcessorPil(
        size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}
    )
    images = generator.generate(TEXTS[:2], SEEDS[:2])
    assert [problem_with(image, 64, 64) for image in images] == [FLAGGED] * 2
    assert all(image.pixels.max() == 0 for image in images)
    generator.warm_up()  # a flagged image says nothing against the device


def test_a_class_of_ones_own_says_what_it_computes_with(tmp_path):
    """Its precision, device and versions are recorded; a class that says nothing: float32, CPU."""
    path = tmp_path / "mine.py"
    path.write_text(
        "class Silent:\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, model):\n"
        "        return cls()\n"
        "    def __call__(self, prompt, **kwargs):\n"
        "        raise NotImplementedError\n"
        "class Mine(Silent):\n"
        "    dtype, device, versions = 'torch.bfloat16', 'xpu', 'mine 3'\n"
    )
    found = {}
    for name in ("Silent", "Mine"):
        generator = ImageGenerator(GeneratorSettings(name, pipeline=f"{path}:{name}"))
        generator.load()
        pipeline = generator.pipeline
        found[name] = (pipeline.dtype, pipeline.gpu_name, pipeline.versions)
    assert found["Silent"] == ("float32", None, "Silent of mine.py")
    assert found["Mine"] == ("bfloat16", "xpu", "mine 3")


def test_a_class_of_ones_own_goes_to_the_gpu(tmp_path, monkeypatch):
    """With a Fake card: a class that torch can move is moved, and gets the card's batch size; one
    that lies elsewhere, or cannot be moved, stays."""
    import torch

    (tmp_path / "mine.py").write_text(
        "class Movable:\n"
        "    device = 'cpu'\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, model):\n"
        "        return cls()\n"
        "    def to(self, device):\n"
        "        self.device = device + ':0'\n"
        "    def __call__(self, prompt, **kwargs):\n"
        "        raise NotImplementedError\n"
        "class Elsewhere(Movable):\n"
        "    device = 'xpu'\n"
        "class Fixed(Movable):\n"
        "    to = None\n"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Fake card {device}")
    card = types.SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    found = {}
    for name in ("Movable", "Elsewhere", "Fixed"):
        settings = GeneratorSettings(name, pipeline=f"{tmp_path}/mine.py:{name}")
        generator = ImageGenerator(settings)
        generator.load()
        found[name] = (generator.pipeline.gpu_name, generator.batch_size)
    assert found == {
        "Movable": ("Fake card cuda:0", 16),
        "Elsewhere": ("xpu", 1),
        "Fixed": (None, 1),
    }


def test_a_worker_that_generates_otherwise_refuses(tiny):
    """Another T5 setting, precision, scheduler, …; --allow_mixed lets it. What a definition of an
    older data set does not say is not compared."""
    pipeline = tiny("sd15").pipeline
    said = {
        "without_t5": False,
        "dtype": "bfloat16",
        "model_commit": None,
        "scheduler": "EulerDiscreteScheduler",
        "quantize": None,
        "quantize_args": "{}",
        "attention": "_native_cudnn",
    }
    check(said, pipeline, allow_mixed=False)  # on a CPU the precision is not compared
    others = {
        "without_t5": {"left_out": ["text_encoder_3"]},
        "scheduler": {"scheduler": "DDIMScheduler"},
        "quantize": {"quantize": "torchao"},
        "quantize_args": {"quantize_args": '{"bits": 4}'},
        "attention": {"attention_backend": "sage"},
    }
    changed = {
        field: dataclasses.replace(pipeline, facts=pipeline.facts | facts)
        for field, facts in others.items()
    }
    changed["dtype"] = dataclasses.replace(pipeline, gpu_name="Fake T4", dtype="float16")
    for field, other in changed.items():
        with pytest.raises(UserError, match=f"would generate with {field} "):
            check(said, other, allow_mixed=False)
        check(said, other, allow_mixed=True)
        check({name: said[name] for name in said if name != field}, other, allow_mixed=False)


def test_what_the_memory_plan_chose_stands_in_the_json(tiny, monkeypatch):
    """Decoding one by one moves no more than a rounding."""
    whole = tiny("sd15")
    assert (whole.pipeline.facts["vae_slicing"], whole.pipeline.facts["offload"]) == (False, "none")
    from generate.pipelines import diffusers_pipeline

    plan = Plan(3, vae_slicing=True)
    monkeypatch.setattr(diffusers_pipeline, "plan_for", lambda *_: plan)
    sliced = tiny("sd15")
    assert sliced.pipeline.facts["vae_slicing"] is True is sliced.pipeline.pipe.vae.use_slicing
    images = [generator.generate(TEXTS, SEEDS) for generator in (whole, sliced)]
    assert max(map(apart, *images)) <= 1
