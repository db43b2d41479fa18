"""Draws batches of texts with any text-to-image pipeline that diffusers can load.

drawer = Drawer("tiny", height=64, width=64); drawer.load(); drawer.warm_up()
images = drawer.draw(["a red circle on a white background"], [seed_of(run_seed=0, index=0, aug=0)])     # [Image]

cd generate && python -c "import diffusion; diffusion.check_model('stabilityai/stable-diffusion-3-medium-diffusers')"     # can it be had?
"""

import gc
import hashlib
import importlib.util
import inspect
import json
import os
from functools import cached_property
from pathlib import Path

from generate.client import model_recipes as model_families


class DeviceBroken(Exception):
    """The device raised an error (CUDA error, device test failed): this process can draw no more."""


class CannotDraw(Exception):
    """The pipeline raised an error for this text, and only for this text."""


class Image:
    """One drawn image. values: float array 3×H×W in [0, 1], as the pipeline gave it; batch_size: of the batch it was drawn in.

    Checked and turned into pixels where it is used, so that this happens in a publishing thread and the device goes on."""

    def __init__(self, values, batch_size):
        self.values, self.batch_size = values, batch_size

    @cached_property
    def finite(self):
        import numpy

        return bool(numpy.isfinite(self.values).all())

    @cached_property
    def pixels(self):
        """uint8 array H×W×3."""
        import numpy

        values = self.values if self.finite else numpy.nan_to_num(self.values)
        return numpy.ascontiguousarray(
            (values * 255).round().clip(0, 255).astype(numpy.uint8).transpose(1, 2, 0)
        )


def seed_of(run_seed, index, aug, attempt=0):
    """The seed of an image, 63 bits: the same on every machine. attempt 1: the next seed, for an image that failed its check."""
    words = f"{run_seed}:{index}:{aug}" + (f":{attempt}" if attempt else "")
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def problem_with(image, height, width):
    """None, or why an image does not count."""
    if not image.finite:
        return "NaN or infinite pixels"
    if image.pixels.shape != (height, width, 3):
        return f"{'x'.join(map(str, image.pixels.shape))} pixels instead of {height}x{width}x3"
    if image.pixels.max() < 8:
        return "a black image"
    if int(image.pixels.max()) - int(image.pixels.min()) < 4:
        return "an image of one colour"
    return None


class Drawer:
    """One pipeline on one device. Arguments that are None come from the family's row and the GPU's profile (model_families.py).

    pipeline: "FILE.py:CLASS", a class called like a diffusers pipeline, instead of diffusers. remembered: JSON-lines file of batch sizes
    that had to be halved, read at load and appended to. After load(): .batch_size, .dtype, .gpu_name, .versions, .device.
    """

    def __init__(
        self,
        model,
        height=None,
        width=None,
        steps=None,
        guidance=None,
        batch_size=None,
        dtype=None,
        revision=None,
        compile=False,
        offload=None,
        quantize=None,
        quantize_args=None,
        pipeline=None,
        remembered=None,
    ):
        self.model, self.revision, self.pipeline, self.remembered = (
            model,
            revision,
            pipeline,
            remembered,
        )
        self.family = model_families.family_of(model)
        self.height, self.width = height or self.family.size, width or self.family.size
        self.steps = steps if steps is not None else self.family.steps
        self.guidance = guidance if guidance is not None else self.family.guidance
        self.batch_size, self.dtype, self.compile, self.offload = (
            batch_size,
            dtype,
            compile,
            offload,
        )
        self.quantize, self.quantize_args = quantize, json.loads(quantize_args or "{}")

    def load(self):
        """Load the pipeline. SystemExit, one line, if it cannot be had."""
        if self.pipeline:
            self._load_from_file()
        else:
            self._load_from_diffusers()
        if self.remembered and Path(self.remembered).exists():
            for line in Path(self.remembered).read_text().splitlines():
                row = json.loads(line)
                if row["key"] == self._key():
                    self.batch_size = min(self.batch_size, row["batch_size"])

    def _load_from_file(self):
        path, _, name = self.pipeline.rpartition(":")
        try:
            spec = importlib.util.spec_from_file_location(Path(path).stem, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            pipeline_class = getattr(module, name)
        except (OSError, AttributeError) as error:
            raise SystemExit(
                f"generate_images: --pipeline {self.pipeline}: expected FILE.py:CLASS, a file and a class in it ({error})"
            ) from None
        self.pipe = pipeline_class.from_pretrained(self.model)
        self.make_generator = getattr(pipeline_class, "make_generator", None) or torch_generator
        self.device, self.gpu_name, self.dtype = "cpu", None, self.dtype or "float32"
        self.batch_size = self.batch_size or model_families.batch_size_for(
            model_families.CPU, self.height, self.width
        )
        self.versions = f"{name} of {Path(path).name}"
        self.arguments = self._arguments()

    def _load_from_diffusers(self):
        import torch
        import transformers

        # their notices (no torchvision, a truncated prompt) would fill a thousand logs
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        import diffusers

        diffusers.utils.logging.set_verbosity_error()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(
                1
            )  # on cores that others use too, two threads were several times slower than one
        diffusers.utils.logging.disable_progress_bar()
        cuda = torch.cuda.is_available()
        self.device = "cuda" if cuda else "cpu"
        card = torch.cuda.get_device_properties(0) if cuda else None
        self.gpu_name = card.name if cuda else None
        profile = model_families.profile_of(card.total_memory / 2**30 if cuda else None)
        self.dtype = self.dtype or model_families.dtype_for(
            self.family, (card.major, card.minor) if cuda else None
        )
        self.batch_size = self.batch_size or (
            model_families.batch_size_for(profile, self.height, self.width)
        )
        self.versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
        offload = self.offload or profile.offload
        if offload in ("model", "sequential") and not cuda:
            raise SystemExit(
                f"generate_images: --offload {offload} needs a GPU, and torch sees none"
            )
        try:
            self.pipe = self._from_pretrained(diffusers, getattr(torch, self.dtype), profile)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise SystemExit(
                f"generate_images: cannot load the model {self.model}: {first_line(error)}"
            ) from None
        self.pipe.set_progress_bar_config(disable=True)
        self._place(torch, offload)
        self.make_generator = torch_generator
        self.arguments = self._arguments()
        if self.compile:
            self._compile(torch)

    def _from_pretrained(self, diffusers, dtype, profile):
        family, folder = self.family, model_families.folder_of(self.model)
        source = {"revision": self.revision} if self.revision and not folder else {}
        # dtype is always given: without it transformers keeps the checkpoint's and diffusers takes float32, and the two do not mix
        parts = {"dtype": dtype} | (
            {"quantization_config": self._quantization(diffusers, dtype)} if self.quantize else {}
        )
        parts |= {
            name: None
            for name, what in model_families.model_index(self.model).items()
            if what == [None, None]
        }
        if profile.without_t5:
            parts |= dict.fromkeys(family.without_t5)
        where = str(folder or self.model)
        if family.base and not model_families.model_index(self.model):
            transformer = diffusers.PixArtTransformer2DModel.from_pretrained(
                where, subfolder="transformer", dtype=dtype, **source
            )
            return diffusers.DiffusionPipeline.from_pretrained(
                family.base, transformer=transformer, **parts
            )
        return diffusers.DiffusionPipeline.from_pretrained(where, **source, **parts)

    def _quantization(self, diffusers, dtype):
        settings = dict(self.quantize_args)
        components = settings.pop("components_to_quantize", ["transformer"])
        if self.quantize == "torchao":
            import torchao.quantization

            kind = getattr(torchao.quantization, settings.pop("quant_type", "Int8WeightOnlyConfig"))
            return diffusers.PipelineQuantizationConfig(
                quant_mapping=dict.fromkeys(components, diffusers.TorchAoConfig(kind(**settings)))
            )
        if self.quantize == "bitsandbytes_4bit" and not settings:
            settings = {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_compute_dtype": dtype,
            }
        if self.quantize == "bitsandbytes_8bit" and not settings:
            settings = {"load_in_8bit": True}
        return diffusers.PipelineQuantizationConfig(
            quant_backend=self.quantize, quant_kwargs=settings, components_to_quantize=components
        )

    def _place(self, torch, offload):
        if offload == "model":
            self.pipe.enable_model_cpu_offload()
        elif offload == "sequential":
            self.pipe.enable_sequential_cpu_offload()
        elif offload == "group":
            self.pipe.enable_group_offload(
                torch.device(self.device),
                torch.device("cpu"),
                offload_type="leaf_level",
                use_stream=self.device == "cuda",
            )
        else:
            self.pipe.to(self.device)

    def _compile(self, torch):
        """As published: transformer and VAE decoder, max-autotune, channels_last. The padded batch keeps one shape, so it compiles once."""
        name = "transformer" if getattr(self.pipe, "transformer", None) is not None else "unet"
        denoiser = getattr(self.pipe, name).to(memory_format=torch.channels_last)
        self.pipe.vae.to(memory_format=torch.channels_last)
        setattr(self.pipe, name, torch.compile(denoiser, mode="max-autotune", fullgraph=True))
        self.pipe.vae.decode = torch.compile(
            self.pipe.vae.decode, mode="max-autotune", fullgraph=True
        )

    def _arguments(self):
        """The arguments of every call: the family's, less what this pipeline's class does not know."""
        family = self.family
        wanted = {
            "height": self.height,
            "width": self.width,
            "num_inference_steps": self.steps,
            family.guidance_argument: self.guidance,
            "max_sequence_length": family.max_sequence_length,
        } | family.call
        known = inspect.signature(self.pipe.__call__).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
        return {
            name: value
            for name, value in wanted.items()
            if value is not None and (anything or name in known)
        }

    def warm_up(self):
        """Test the device and draw one batch. DeviceBroken if it computes wrongly; a batch that does not fit is halved here already."""
        if self.device == "cuda":
            import torch

            try:
                a = (
                    torch.arange(1 << 20, dtype=torch.float32, device="cuda").reshape(1024, 1024)
                    % 7
                )
                right = torch.equal((a @ a.T)[:8].cpu(), a[:8].cpu() @ a.cpu().T)
            except RuntimeError as error:
                raise DeviceBroken(first_line(error)) from None
            if not right:
                raise DeviceBroken("a matrix product came out wrong")
        image = self.draw(["a photo of a bird"] * self.batch_size, list(range(self.batch_size)))[0]
        if problem := problem_with(image, self.height, self.width):
            raise DeviceBroken(f"the warm-up batch gave {problem}")

    def draw(self, texts, seeds):
        """Images of up to batch_size texts, in order. The batch is padded to full size, so that an image depends on its text, its seed, the
        batch size and the stack only (in Lumina2, whose transformer cuts the padding, a rounding also on the longest text). A batch that
        does not fit is drawn in halves, and the half is remembered. DeviceBroken, CannotDraw."""
        images = []
        while len(images) < len(texts):
            n = self.batch_size
            part = slice(len(images), len(images) + n)
            drawn = self._draw_batch(texts[part], seeds[part])
            if drawn is None:
                self._halve()
            else:
                images += drawn
        return images

    def _draw_batch(self, texts, seeds):
        """One call of the pipeline; None if the batch did not fit."""
        count, padding = len(texts), self.batch_size - len(texts)
        texts, seeds = texts + texts[-1:] * padding, seeds + seeds[-1:] * padding
        try:
            # generators on the CPU give the same noise on every card; made anew for each try, since a used one has moved on
            generators = [self.make_generator(seed) for seed in seeds]
            output = self.pipe(
                prompt=texts, generator=generators, output_type="pt", **self.arguments
            ).images[:count]
            output = output.detach().float().cpu().numpy() if hasattr(output, "detach") else output
            return [Image(values, self.batch_size) for values in output]
        except (RuntimeError, MemoryError, ValueError, TypeError, IndexError, KeyError) as error:
            failure, words = error, first_line(error)
        # outside of the except block the traceback no longer holds the tensors
        does_not_fit = (
            isinstance(failure, MemoryError)
            or "out of memory" in words
            or "can't allocate memory" in words
        )
        del failure
        if does_not_fit and self.batch_size > 1:
            return None
        if does_not_fit:
            raise DeviceBroken(
                f"not even one image of {self.height}x{self.width} fits on the device: {words}"
            )
        if "CUDA" in words or "cuDNN" in words or "CUBLAS" in words:
            raise DeviceBroken(words)
        raise CannotDraw(words)

    def _halve(self):
        self.batch_size = (self.batch_size + 1) // 2
        gc.collect()
        if self.device == "cuda":
            import torch

            torch.cuda.empty_cache()
        print(f"the batch did not fit: {self.batch_size} images at a time from now on", flush=True)
        if self.remembered:
            with open(self.remembered, "a") as file:
                file.write(json.dumps({"key": self._key(), "batch_size": self.batch_size}) + "\n")

    def _key(self):
        return [self.gpu_name, self.model, self.height, self.width, self.dtype]


def torch_generator(seed):
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def share_compiled_code():
    """Let all jobs of a user share what torch.compile has compiled (128 jobs would each take minutes). Before torch is imported."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault(
        "TORCHINDUCTOR_CACHE_DIR", str(Path(cache) / "torchinductor_generate_images")
    )


def check_model(model, revision=None):
    """SystemExit, one line, if a model cannot be had: missing, gated, no token, no room. Imports no torch."""
    folder = model_families.folder_of(model)
    family = model_families.family_of(model)
    name = "transformer/config.json" if family.base else "model_index.json"
    if folder:
        if not (folder / name).is_file():
            raise SystemExit(
                f"generate_images: {folder} holds no {name}; expected a folder that diffusers' save_pretrained has written"
            )
        return
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        hub.hf_hub_download(model, name, revision=revision)
    except errors.GatedRepoError:
        raise SystemExit(
            f"generate_images: the model {model} is gated: accept its terms at https://huggingface.co/{model}, then `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise SystemExit(
            f"generate_images: there is no model {model} on the hub (or it is private: `hf auth login`)"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise SystemExit(
            f"generate_images: the model {model} is not in the local cache ({hub.constants.HF_HUB_CACHE}) and the hub cannot be reached; "
            "is the name right, is there a network?"
        ) from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        raise SystemExit(
            f"generate_images: the model {model} cannot be had: {first_line(error)}"
        ) from None


def first_line(error):
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
