"""Generates batches of images with any text-to-image pipeline that diffusers can load.

generator = ImageGenerator(GeneratorSettings("tiny", height=64, width=64))
generator.load()
generator.warm_up()
images = generator.generate(["a red circle on a white background"], [seed_of(0, 0, 0)])
"""

import contextlib
import gc
import hashlib
import json
import logging
from functools import cached_property
from typing import Any

from common.command_line import UserError
from generate.client.faults import DEVICE, MEMORY, CannotStart, fault_of
from generate.client.pipeline import (
    CannotGenerate,
    DeviceBroken,
    DoesNotFit,
    GeneratorSettings,
    Pipeline,
    first_line,
    load_custom,
)
from generate.client.pixels import pixels_of

log = logging.getLogger(__name__)

FLAGGED = "flagged by the model's safety checker"


class Image:
    """One generated image. values: uint8 array (height, width, 3), or float array (3, height,
    width) in [0, 1]; batch_size: of the batch it was generated in; finite: whether the pipeline's
    values were, where that is known already; flagged: the model's own safety checker has blackened
    it.

    Checked and turned into pixels where it is used, so that this happens in a publishing thread and
    the device goes on.
    """

    def __init__(
        self, values: Any, batch_size: int, finite: bool | None = None, flagged: bool = False
    ) -> None:
        self.values = values
        self.flagged = flagged
        self.batch_size = batch_size
        self._finite = finite

    @cached_property
    def finite(self) -> bool:
        import numpy  # not before there is an image: a client may find that all is done

        return bool(numpy.isfinite(self.values).all()) if self._finite is None else self._finite

    @cached_property
    def pixels(self) -> Any:
        """uint8 array (height, width, 3)."""
        import numpy  # see finite

        if self.values.dtype == numpy.uint8:
            return self.values
        values = self.values if self.finite else numpy.nan_to_num(self.values)
        levels = (values * 255).round().clip(0, 255).astype(numpy.uint8)
        return numpy.ascontiguousarray(levels.transpose(1, 2, 0))


def seed_of(run_seed: int, index: int, aug: int, attempt: int = 0) -> int:
    """The seed of an image, 63 bits: the same on every machine.

    attempt 1: the next seed, for an image that failed its check.
    """
    words = f"{run_seed}:{index}:{aug}" + (f":{attempt}" if attempt else "")
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def problem_with(image: Image, height: int, width: int) -> str | None:
    """None, or why an image does not count."""
    if image.flagged:
        return FLAGGED
    if not image.finite:
        return "NaN or infinite pixels"
    if image.pixels.shape != (height, width, 3):
        return f"{'x'.join(map(str, image.pixels.shape))} pixels instead of {height}x{width}x3"
    if image.pixels.max() < 8:
        return "a black image"
    if int(image.pixels.max()) - int(image.pixels.min()) < 4:
        return "an image of one colour"
    return None


class ImageGenerator:
    """One pipeline on one device; load() first. batch_size: at present, see generate()."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self.settings = settings
        self.recipe = settings.resolved()
        self.arguments: dict[str, Any] = {}
        self.batch_size = settings.batch_size or 1
        self._pipeline: Pipeline | None = None

    @property
    def pipeline(self) -> Pipeline:
        assert self._pipeline is not None, "load() comes first"
        return self._pipeline

    def load(self) -> None:
        """Load the pipeline. CannotStart, one line, if it cannot be had."""
        try:
            loaded = self._load()
        except UserError as error:
            raise CannotStart(str(error), fault_of(error)) from None
        except Exception as error:  # of any library, or of a class of the user's own
            text = f"cannot load the model {self.settings.model}: {first_line(error)}"
            raise CannotStart(text, fault_of(error)) from None
        self._pipeline = loaded
        self.arguments = self.recipe.arguments(loaded.pipe.__call__)
        if self.recipe.family.guidance_argument == "guider":
            guided = loaded.pipe.guider.new(guidance_scale=self.recipe.guidance)
            loaded.pipe.guider = guided
        self.batch_size = min([loaded.batch_size, *self._remembered()])

    def _load(self) -> Pipeline:
        if self.settings.pipeline:
            return load_custom(self.settings, self.recipe)
        # Imports torch, which a class of the user's own may do without.
        from generate.client import diffusers_pipeline

        return diffusers_pipeline.load(self.settings, self.recipe)

    def warm_up(self) -> None:
        """Test the device and generate one batch; one that does not fit is halved here already.

        CannotStart if no image comes of it.
        """
        n = self.batch_size
        try:
            self.pipeline.check_device()
            image = self.generate(["a photo of a bird"] * n, list(range(n)))[0]
        except (DeviceBroken, CannotGenerate) as error:
            raise CannotStart(f"the warm-up batch failed: {error}", error.fault) from None
        if image.flagged:
            return  # the device works
        if problem := problem_with(image, self.recipe.height, self.recipe.width):
            raise CannotStart(f"the warm-up batch gave {problem}", DEVICE)

    def generate(self, texts: list[str], seeds: list[int]) -> list[Image]:
        """The images of some texts, in order. DeviceBroken, CannotGenerate.

        A batch is padded to full size, so that an image depends on its text, its seed, the batch
        size and the libraries only (in Lumina2, whose transformer cuts the padding, a rounding also
        on the longest text). One that does not fit is generated in halves, and the half remembered.
        """
        images: list[Image] = []
        while len(images) < len(texts):
            part = slice(len(images), len(images) + self.batch_size)
            batch = self._generate_batch(texts[part], seeds[part])
            if batch is None:
                self._halve()
            else:
                images += batch
        return images

    def _generate_batch(self, texts: list[str], seeds: list[int]) -> list[Image] | None:
        """One call of the pipeline; None if the batch did not fit."""
        count = len(texts)
        padding = self.batch_size - count
        try:
            output = self._call(texts + texts[-1:] * padding, seeds + seeds[-1:] * padding)
            arrays, finite = pixels_of(getattr(output, self.recipe.family.output)[:count])
            flags = getattr(output, "nsfw_content_detected", None) or [False] * self.batch_size
            return [
                Image(values, self.batch_size, known, bool(flagged))
                for values, known, flagged in zip(arrays, finite, flags[:count], strict=True)
            ]
        except Exception as error:  # of any library, or of a class of the user's own
            fault = fault_of(error)
            words = first_line(error)
        # Outside of the except block the traceback no longer holds the tensors.
        if fault == MEMORY and self.batch_size > 1:
            return None
        if fault == MEMORY:
            size = f"{self.recipe.height}x{self.recipe.width}"
            raise DoesNotFit(f"not even one image of {size} fits on the device: {words}")
        if fault == DEVICE:
            raise DeviceBroken(words)
        raise CannotGenerate(words, fault)

    def _call(self, texts: list[str], seeds: list[int]) -> Any:
        # Made anew for each try, since a used generator has moved on.
        generators = [self.pipeline.make_generator(seed) for seed in seeds]
        arguments = dict(self.arguments)
        if self.recipe.negative_prompt is not None:
            arguments["negative_prompt"] = [self.recipe.negative_prompt] * len(texts)
        # A list of its own: Z-Image writes its template into the one it is given.
        return self.pipeline.pipe(
            prompt=list(texts), generator=generators, output_type="pt", **arguments
        )

    def _halve(self) -> None:
        self.batch_size = (self.batch_size + 1) // 2
        gc.collect()
        self.pipeline.free_memory()
        log.warning("the batch did not fit: %d images at a time from now on", self.batch_size)
        if self.settings.remembered:
            row = json.dumps({"key": self._key(), "batch_size": self.batch_size})
            # On a full disk the next process finds it out again.
            with contextlib.suppress(OSError), open(self.settings.remembered, "a") as file:
                file.write(row + "\n")

    def _remembered(self) -> list[int]:
        """Batch sizes that had to be halved to, on such a card with such images."""
        path = self.settings.remembered
        try:
            lines = path.read_bytes().splitlines() if path else []
        except OSError:
            return []
        sizes = []
        for line in lines:
            # A torn line costs one batch that does not fit.
            with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
                row = json.loads(line)
                if row["key"] == self._key():
                    sizes.append(max(1, int(row["batch_size"])))
        return sizes

    def _key(self) -> list[Any]:
        pipeline, recipe = self.pipeline, self.recipe
        return [
            pipeline.gpu_name,
            self.settings.model,
            recipe.height,
            recipe.width,
            pipeline.dtype,
        ]
