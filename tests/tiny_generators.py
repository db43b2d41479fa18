"""Loaded generators of tiny random pipelines, by the names of the builders in make_tiny*.py.

tiny = TinyGenerators(tmp_path)
tiny("sd3", guidance=9.0).generate(["a star"], [1])      # 64 x 64 pixels, few steps
"""

from generate.image_models.model_recipes import family_of
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import GeneratorSettings

# (guidance changes pixels, a negative prompt arrives)
GUIDED = {
    "sd3": (True, True),
    "sd3-no-t5": (True, True),
    "pixart-sigma": (True, True),
    "pixart-alpha": (True, True),
    "sdxl": (True, True),
    "sd15": (True, True),
    "flux": (True, False),
    "flux2": (True, False),
    "klein": (False, False),
    "lumina": (True, True),
    "lumina2": (True, True),
    "z-image": (True, True),
    "qwen-image": (True, True),
    "chroma": (True, True),
    "sana": (True, True),
    "sana-sprint": (True, False),
    "auraflow": (True, True),
    "cogview4": (True, True),
    "kandinsky5": (True, True),
    "hidream": (True, True),
    "hunyuanimage": (True, True),
    "hunyuanimage-distilled": (True, False),
}
STEPS = {"lumina2": 4}  # it guides in the first quarter of its steps; others: 2


class TinyGenerators:
    """folder: of the pipelines; each is built when it is first asked for."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name, **settings):
        """A generator of the pipeline `name`; settings: of GeneratorSettings."""
        path = self.folder / name
        if not path.exists():
            build(name, path)
        given = {"height": 64, "width": 64, "steps": STEPS.get(name, 2), "batch_size": 3}
        if name == "lumina":
            given["negative_prompt"] = "x"  # see make_tiny.py
        if family_of(str(path)).one_by_one:
            given["batch_size"] = 1
        generator = ImageGenerator(GeneratorSettings(str(path), **(given | settings)))
        generator.load()
        pipe = generator.pipeline.pipe
        if name == "kandinsky5":
            pipe.resolutions = [(64, 64), (32, 128)]
        if name == "hidream":
            pipe.default_sample_size = 8  # what is asked for is scaled to its square
        return generator


def build(name, path):
    """Save the pipeline. Loads torch, transformers, diffusers: 6 s that collecting tests spares."""
    import torch

    from tests import make_tiny, make_tiny_large, make_tiny_more

    builders = make_tiny.BUILDERS | make_tiny_more.BUILDERS | make_tiny_large.BUILDERS
    torch.manual_seed(0)
    builders[name]().save_pretrained(path)
