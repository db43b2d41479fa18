"""FakePipeline stands in for a diffusers pipeline without torch: clients start in 0.3 s.

    python generate/generate_images.py prompts.json --resolution 64 \\
        --pipeline tests/fakes/fake_pipeline.py:FakePipeline

The image is a function of text, seed and size alone, and says which text it was made for
(`text_code`), so that a test can tell an image with another's text. It misbehaves as the
environment says; PATTERN is a regular expression that is looked for in the text:

    FAKE_BATCH_S=0.2           seconds a batch takes
    FAKE_STEPS=10 FAKE_STEP_S=0.5   so many steps, after each of which the callback is called
    FAKE_PYTHON_SHARE=0.3      of which so much in Python instead of asleep (default 0)
    FAKE_LOAD_S=1              seconds from_pretrained takes
    FAKE_NAN=PATTERN           NaN images; "." = all
    FAKE_BLACK=PATTERN         black images
    FAKE_FLAGGED=PATTERN       black images, as a safety checker leaves them; with FAKE_FLAGGED_ONCE
                               only at the text's first seed
    FAKE_CUDA_ERROR=PATTERN    RuntimeError "CUDA error: …"
    FAKE_ERROR=PATTERN         ValueError, as pipelines raise it at a text they cannot take
    FAKE_BAD_HOSTS=PATH        these four only happen on the hosts (SLURMD_NODENAME or host name)
                               that this file names, read at every call
    FAKE_SEGFAULT=PATTERN      the process dies of SIGSEGV, on every host
    FAKE_LOAD_ERROR=NAME       from_pretrained raises this built-in exception (OSError: ESTALE), on
                               the hosts of FAKE_BAD_HOSTS if that is given
    FAKE_LOAD_TRACE=PATH       appends "begin PID" and "end PID" of from_pretrained
    FAKE_LOADS=PATH            appends a line, the host, for each from_pretrained
    FAKE_MAX_BATCH=4           a bigger batch raises an out-of-memory error
    FAKE_READS=9               words of a text that its text encoder reads (default: no tokenizer)
    FAKE_LOG=PATH              appends a line `host<tab>seed<tab>text` for each image
"""

import builtins
import errno
import hashlib
import os
import re
import signal
import time

import numpy


class FakeGenerator:
    """What torch.Generator is to a pipeline: a seed."""

    def __init__(self, seed):
        self.seed = seed

    def initial_seed(self):
        return self.seed


class FakeOutput:
    def __init__(self, images, flagged=None):
        self.images = images
        self.nsfw_content_detected = flagged


def text_code(text):
    """The mean colour (3 numbers, 64 … 191) that an image of this text has."""
    return (
        64
        + numpy.frombuffer(
            hashlib.sha256(text.encode("utf-8", "replace")).digest()[:3], numpy.uint8
        )
        % 128
    )


def shows(image, text):
    """Whether an image (PIL, after JPEG) was drawn for this text."""
    mean = numpy.asarray(image, float).mean((0, 1))
    return bool(numpy.abs(mean - text_code(text)).max() < 3)


def draw(text, seed, height, width):
    """float32 array (3, height, width) in [0, 1].

    Noise of the seed around the colour of the text, with exactly that mean.
    """
    noise = numpy.random.default_rng(seed).normal(0, 20, (3, height // 8, width // 8))
    noise -= noise.mean((1, 2), keepdims=True)
    image = numpy.kron(text_code(text)[:, None, None] + noise.clip(-60, 60), numpy.ones((8, 8)))
    return (image / 255).clip(0, 1).astype(numpy.float32)


class FakeTokenizer:
    """A token a word."""

    def __init__(self, limit):
        self.model_max_length = limit

    def __call__(self, text, truncation, verbose):
        return {"input_ids": text.split()}


class FakePipeline:
    make_generator = FakeGenerator

    def __init__(self):
        self.seen = set()  # texts that were generated
        if limit := os.environ.get("FAKE_READS"):
            self.tokenizer = FakeTokenizer(int(limit))

    @classmethod
    def from_pretrained(cls, model, **kwargs):
        note_load("begin")
        time.sleep(float(os.environ.get("FAKE_LOAD_S", 0)))
        note_load("end")
        if loads := os.environ.get("FAKE_LOADS"):
            with open(loads, "a") as file:
                file.write(f"{host()}\n")
        if misbehaves("FAKE_LOAD_ERROR", os.environ.get("FAKE_LOAD_ERROR", "")):
            kind = getattr(builtins, os.environ["FAKE_LOAD_ERROR"])
            raise kind(*[errno.ESTALE] * (kind is OSError), "the model cannot be loaded (fake)")
        return cls()

    def __call__(
        self,
        prompt,
        generator,
        height,
        width,
        num_inference_steps=1,
        guidance_scale=1.0,
        output_type="pt",
        callback_on_step_end=None,
        **kwargs,
    ):
        if len(prompt) > int(os.environ.get("FAKE_MAX_BATCH", 1 << 30)):
            raise MemoryError(f"CUDA out of memory (fake): a batch of {len(prompt)} does not fit")
        seconds, python = (
            float(os.environ.get("FAKE_BATCH_S", 0)),
            float(os.environ.get("FAKE_PYTHON_SHARE", 0)),
        )
        end = time.monotonic() + seconds
        while time.monotonic() < end - seconds * (1 - python):
            sum(range(1000))  # holds the interpreter, as a real pipeline's Python loop does
        if any(misbehaves("FAKE_SEGFAULT", text) for text in prompt):
            os.kill(os.getpid(), signal.SIGSEGV)
        if any(misbehaves("FAKE_CUDA_ERROR", text) for text in prompt):
            raise RuntimeError("CUDA error: an illegal memory access was encountered (fake)")
        if any(misbehaves("FAKE_ERROR", text) for text in prompt):
            raise ValueError("the text has a token that is not known (fake)")
        images = [
            draw(text, gen.seed, height, width) for text, gen in zip(prompt, generator, strict=True)
        ]
        for text, image in zip(prompt, images, strict=True):
            image[:] = (
                numpy.nan
                if misbehaves("FAKE_NAN", text)
                else 0
                if misbehaves("FAKE_BLACK", text)
                else image
            )
        if log := os.environ.get("FAKE_LOG"):
            lines = [
                f"{host()}\t{gen.seed}\t{text}\n"
                for text, gen in zip(prompt, generator, strict=True)
            ]
            with open(log, "a") as file:
                file.write("".join(lines))
        for step in range(int(os.environ.get("FAKE_STEPS", 0)) if callback_on_step_end else 0):
            time.sleep(float(os.environ["FAKE_STEP_S"]))
            callback_on_step_end(self, step, 0, {})
        time.sleep(max(0, end - time.monotonic()))
        return FakeOutput(numpy.stack(images), self.flag(prompt, images))

    def flag(self, prompt, images):
        """As SD 1.5's safety checker: a flag for each image; what is flagged becomes black."""
        if "FAKE_FLAGGED" not in os.environ:
            return None
        once = "FAKE_FLAGGED_ONCE" in os.environ
        flags = [
            misbehaves("FAKE_FLAGGED", text) and not (once and text in self.seen) for text in prompt
        ]
        self.seen.update(prompt)
        for image, flag in zip(images, flags, strict=True):
            image[:] = 0 if flag else image
        return flags


def note_load(what):
    if trace := os.environ.get("FAKE_LOAD_TRACE"):
        with open(trace, "a") as file:
            file.write(f"{what} {os.getpid()}\n")


def misbehaves(name, text):
    pattern, hosts = os.environ.get(name), os.environ.get("FAKE_BAD_HOSTS")
    if not pattern or not re.search(pattern, text):
        return False
    return not hosts or name == "FAKE_SEGFAULT" or host() in open(hosts).read().split()


def host():
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename
