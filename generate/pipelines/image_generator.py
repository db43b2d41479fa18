"""Generate batches of images with any text-to-image pipeline that diffusers can load.

generator = ImageGenerator(GeneratorSettings("tiny", height=64, width=64))
generator.load()
generator.warm_up()
images = generator.generate(["a red circle on a white background"], [1])
"""

import dataclasses
import gc
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

from common.command_line import UserError
from common.console import first_line
from generate.pipelines.batch_sizes import BatchSizes
from generate.pipelines.faults import COMPILER, DEVICE, MEMORY, UNCLEAR, CannotStart, fault_of
from generate.pipelines.image import Image, problem_with
from generate.pipelines.pipeline import (
    CannotGenerate,
    DeviceBroken,
    DoesNotFit,
    GeneratorSettings,
    Pipeline,
    Recipe,
    load_custom,
)
from generate.pipelines.pixels import pixels_of

log = logging.getLogger(__name__)

WARM_UP_STEPS = 2  # enough to compile for, and to see that an image comes
WARM_UP_TEXT = "a photo of a bird"
LONGER = " 1"  # a token or two


class Interrupted(Exception):
    """A step's callback has given the batch up."""


class ImageGenerator:
    """One pipeline on one device; load() first. recipe: of images that ask for nothing else."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self.settings = settings
        self.recipe = settings.resolved()
        self.arguments: dict[str, Any] = {}
        self._batch_sizes: dict[tuple[int, int], int] = {}  # by (height, width)
        self.on_step: Callable[[], None] | None = None  # after each denoising step
        self._pipeline: Pipeline | None = None
        self._warm_graphs = 0

    @property
    def recompiles(self) -> int:
        """Graphs that were compiled since the warm-up: for other sizes."""
        return max(0, self.pipeline.compiled_graphs() - self._warm_graphs)

    @property
    def pipeline(self) -> Pipeline:
        assert self._pipeline is not None, "load() comes first"
        return self._pipeline

    @property
    def batch_size(self) -> int:
        """Images of the run's own size in a batch, at present: see generate()."""
        return self.batch_size_of(self.recipe)

    def batch_size_of(self, recipe: Recipe) -> int:
        """The same for a recipe: fewer of larger images, and never more than of the run's own."""
        size = (recipe.height, recipe.width)
        if size not in self._batch_sizes:
            most = self.pipeline.batch_size
            pixels = self.recipe.height * self.recipe.width
            fitting = most * pixels // (recipe.height * recipe.width)
            kept = self._sizes(recipe).smallest() or most
            self._batch_sizes[size] = min(most, max(1, fitting), kept)
        return self._batch_sizes[size]

    def load(self) -> None:
        """Load the pipeline. CannotStart, one line, if it cannot be had."""
        try:
            loaded = self._load()
        except UserError as error:
            raise CannotStart(str(error), fault_of(error)) from None
        except (Exception, SystemExit) as error:  # of a library, or of a user's own class
            text = f"cannot load the model {self.settings.model}: {first_line(error)}"
            raise CannotStart(text, fault_of(error)) from None
        self._pipeline = loaded
        self.arguments = self.recipe.arguments(loaded.pipe.__call__)
        self._batch_sizes.clear()

    def _load(self) -> Pipeline:
        if self.settings.pipeline:
            return load_custom(self.settings, self.recipe)
        # Imports torch, which a class of the user's own may do without.
        from generate.pipelines import diffusers_pipeline

        return diffusers_pipeline.load(self.settings, self.recipe)

    def warm_up(self) -> None:
        """Test the device and generate one batch of few steps.

        What is compiled is compiled here, for texts of every length, and a batch that does not fit
        is halved here already. CannotStart if no image comes of it.
        """
        n = self.batch_size
        steps = min(self.recipe.steps, WARM_UP_STEPS) if self.recipe.steps else None
        recipe = dataclasses.replace(self.recipe, steps=steps)
        key = [*self._conditions(self.recipe), n]
        try:
            self.pipeline.check_device()
            with self.pipeline.sharing_code(self.settings.beside, key):
                image = self.generate([WARM_UP_TEXT] * n, list(range(n)), [recipe] * n)[0]
                self._compile_for_lengths(n, recipe)
        except (DeviceBroken, CannotGenerate) as error:
            raise CannotStart(f"the warm-up batch failed: {error}", error.fault) from None
        self._warm_graphs = self.pipeline.compiled_graphs()
        if image.flagged:
            return  # the device works
        if problem := problem_with(image, self.recipe.height, self.recipe.width):
            raise CannotStart(f"the warm-up batch gave {problem}", DEVICE)

    def _compile_for_lengths(self, n: int, recipe: Recipe) -> None:
        """Batches of longer texts after that of short ones, where that has compiled anything.

        Z-Image, Qwen-Image and Lumina2 pad a batch to its longest text, and have a mask only where
        its texts are not of one length. torch compiles either for one length first, then for all.
        Here other tasks find it in the file of compiled code.
        """
        long, longest = (WARM_UP_TEXT + LONGER * count for count in (30, 150))
        mixed = [WARM_UP_TEXT] * (n > 1)
        graphs = self.pipeline.compiled_graphs()
        for first, text in ((mixed, longest), ([], longest), (mixed, long)) if graphs else ():
            texts = first + [text] * (n - len(first))
            self.generate(texts, list(range(n)), [recipe] * n)
            if self.pipeline.compiled_graphs() <= graphs:
                return  # a model that pads every text to one length

    def generate(
        self, texts: list[str], seeds: list[int], recipes: Sequence[Recipe] = ()
    ) -> list[Image]:
        """The images of some texts, in order. DeviceBroken, CannotGenerate.

        recipes: one for each text, alike but for their negative prompts; default: the run's.
        A batch is padded to full size, so that an image depends on its text, its seed, the batch
        size and the libraries only (in Lumina2, whose transformer cuts the padding, a rounding also
        on the longest text). One that does not fit is generated in halves, and the half remembered.
        """
        images: list[Image] = []
        recipes = recipes or [self.recipe] * len(texts)
        while len(images) < len(texts):
            part = slice(len(images), len(images) + self.batch_size_of(recipes[0]))
            batch = self._generate_batch(texts[part], seeds[part], recipes[part])
            if batch is None:
                self._halve(recipes[0])
            else:
                images += batch
        return images

    def _generate_batch(
        self, texts: list[str], seeds: list[int], recipes: Sequence[Recipe]
    ) -> list[Image] | None:
        """One call of the pipeline; None if the batch did not fit."""
        count = len(texts)
        recipe = recipes[0]
        batch_size = self.batch_size_of(recipe)
        wanted = [each.negative_prompt for each in recipes]
        padding = batch_size - count
        try:
            output = self._call(
                texts + texts[-1:] * padding,
                seeds + seeds[-1:] * padding,
                recipe,
                wanted + wanted[-1:] * padding,
            )
            arrays, finite = pixels_of(getattr(output, recipe.family.output)[:count])
            flags = getattr(output, "nsfw_content_detected", None) or [False] * batch_size
            return [
                Image(values, batch_size, known, bool(flagged))
                for values, known, flagged in zip(arrays, finite, flags[:count], strict=True)
            ]
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # of a library, or of a user's own class
            fault = fault_of(error)
            words = first_line(error)
        # Outside of the except block the traceback no longer holds the tensors.
        if fault == MEMORY and batch_size > 1:
            return None
        if fault == MEMORY:
            size = f"{recipe.height}x{recipe.width}"
            why = f"not even one image of {size} fits on the device: {words}"
            # what one item asks for says nothing of the device
            own = recipe.height * recipe.width > self.recipe.height * self.recipe.width
            raise CannotGenerate(why, fault) if own else DoesNotFit(why)
        if given_up := self.pipeline.fall_back(fault, words):
            log.warning("%s cannot do it (%s): generated without it", given_up, words)
            return self._generate_batch(texts, seeds, recipes)
        if fault == DEVICE:
            raise DeviceBroken(words)
        raise CannotGenerate(words, UNCLEAR if fault == COMPILER else fault)

    def _call(
        self, texts: list[str], seeds: list[int], recipe: Recipe, negative: list[str | None]
    ) -> Any:
        pipe = self.pipeline.pipe
        # Made anew for each try, since a used generator has moved on.
        generators = [self.pipeline.make_generator(seed) for seed in seeds]
        arguments = recipe.arguments(pipe.__call__)
        if any(text is not None for text in negative):
            arguments["negative_prompt"] = [text or "" for text in negative]
        if self.on_step and "callback_on_step_end" in inspect.signature(pipe.__call__).parameters:
            arguments["callback_on_step_end"] = self._step
        if recipe.family.guidance_argument == "guider":
            pipe.guider = pipe.guider.new(guidance_scale=recipe.guidance)
        # A list of its own: Z-Image writes its template into the one it is given.
        return pipe(prompt=list(texts), generator=generators, output_type="pt", **arguments)

    def _step(self, pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """diffusers' callback; values: tensors that it might change."""
        if self.on_step:
            self.on_step()
        return values

    def _halve(self, recipe: Recipe) -> None:
        size = (self.batch_size_of(recipe) + 1) // 2
        self._batch_sizes[recipe.height, recipe.width] = size
        gc.collect()
        self.pipeline.free_memory()
        log.warning("the batch did not fit: %d images at a time from now on", size)
        if not self.pipeline.shares_its_device():
            self._sizes(recipe).note(size)

    def _sizes(self, recipe: Recipe) -> BatchSizes:
        """Batch sizes that had to be halved to, on such a card with such images."""
        beside = self.settings.beside
        path = beside / "batch_sizes.jsonl" if beside else None
        return BatchSizes(path, self._conditions(recipe))

    def _conditions(self, recipe: Recipe) -> list[object]:
        """What the memory of a batch depends on."""
        pipeline, settings = self.pipeline, self.settings
        return [
            pipeline.gpu_name,
            settings.model,
            recipe.height,
            recipe.width,
            pipeline.dtype,
            settings.quantize,
            settings.compile,
            *(pipeline.facts.get(name) for name in ("offload", "vae_slicing", "left_out", "lora")),
        ]
