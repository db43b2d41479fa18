"""Loaded generators of tiny random pipelines, by the names of the builders in make_tiny*.py.

tiny = TinyGenerators(tmp_path)
tiny("sd3", guidance=9.0).generate(["a star"], [1])      # 64 x 64 pixels, few steps
"""

import torch

from generate.client.image_generator import ImageGenerator
from generate.client.model_recipes import family_of
from generate.client.pipeline import GeneratorSettings
from tests import make_tiny, make_tiny_large, make_tiny_more

BUILDERS = make_tiny.BUILDERS | make_tiny_more.BUILDERS | make_tiny_large.BUILDERS
STEPS = {"lumina2": 4}  # it guides in the first quarter of its steps; others: 2


class TinyGenerators:
    """folder: of the pipelines; each is built when it is first asked for."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name, **settings):
        """A generator of the pipeline `name`; settings: of GeneratorSettings."""
        path = self.folder / name
        if not path.exists():
            torch.manual_seed(0)
            BUILDERS[name]().save_pretrained(path)
        given = {"height": 64, "width": 64, "steps": STEPS.get(name, 2), "batch_size": 3}
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
