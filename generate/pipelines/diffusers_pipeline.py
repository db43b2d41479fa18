"""Loads a pipeline of diffusers: precision, offloading, quantization, compiling, by model and GPU.

Imports torch, transformers and diffusers, 6 s of CPU: imported only where one is wanted.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from common.console import first_line
from generate.image_models import lora
from generate.image_models.fetch import be_quiet, load_once
from generate.image_models.model_recipes import (
    Profile,
    dtype_for,
    folder_of,
    model_index,
    profile_of,
)
from generate.image_models.weights import stored_gib
from generate.pipelines import compiling
from generate.pipelines.compiled_code import CompiledCode, use_private_folder
from generate.pipelines.faults import COMPILER, UNCLEAR, CannotStart
from generate.pipelines.memory_plan import GIB, Card, plan_for
from generate.pipelines.pipeline import (
    DeviceBroken,
    GeneratorSettings,
    Pipeline,
    Recipe,
    torch_generator,
)
from generate.pipelines.provenance import NATIVE, facts_of

# Beside torch's own: a context of CUDA takes about 0.5 GiB.
OTHERS_BYTES = 1 << 30
DECIDE_CODE = ("model_commit", "attention_backend", "quantize_args")  # besides what memory needs
# torch's words where a backend cannot do this shape or card, and on a CPU
NO_KERNEL = ("No available kernel", "No viable backend for scaled_dot_product_attention")
log = logging.getLogger(__name__)


class DiffusersPipeline(Pipeline):
    """A pipeline on a GPU, or on the CPU."""

    _code: CompiledCode | None = None

    def check_device(self) -> None:
        """DeviceBroken if a matrix product of small whole numbers comes out wrong."""
        if self.gpu_name is None:
            return
        try:
            a = torch.arange(1 << 20, dtype=torch.float32, device="cuda").reshape(1024, 1024) % 7
            right = torch.equal((a @ a.T)[:8].cpu(), a[:8].cpu() @ a.cpu().T)
        except RuntimeError as error:
            raise DeviceBroken(first_line(error)) from None
        if not right:
            raise DeviceBroken("a matrix product came out wrong")

    def fall_back(self, fault: str, words: str) -> str | None:
        if fault == COMPILER and self.facts.get("compiled"):
            compiling.undo(self.pipe)
            self.facts["compiled"] = False
            return "torch.compile"
        backend = self.facts.get("attention_backend", NATIVE)
        if backend != NATIVE and any(part in words for part in NO_KERNEL):
            self.facts["attention_backend"] = use_attention(self.pipe, NATIVE)
            return f"the attention backend {backend}"
        return None

    def shares_its_device(self) -> bool:
        if self.gpu_name is None:
            return False
        free, total = torch.cuda.mem_get_info()
        return bool(total - free - torch.cuda.memory_reserved() > OTHERS_BYTES)

    def compiled_graphs(self) -> int:
        return compiling.graphs() if self.facts.get("compiled") else 0

    @contextlib.contextmanager
    def sharing_code(self, beside: Path | None, key: Sequence[object]) -> Iterator[None]:
        if not self.facts.get("compiled"):
            yield
            return
        facts = (self.facts.get(name) for name in DECIDE_CODE)
        self._code = CompiledCode(beside, [*key, self.versions, *facts])
        with self._code.shared():
            yield

    def keep_code(self) -> None:
        if self._code:
            self._code.save()

    def free_memory(self) -> None:
        if self.gpu_name is not None:
            torch.cuda.empty_cache()


def load(settings: GeneratorSettings, recipe: Recipe) -> DiffusersPipeline:
    """The pipeline, on its device; any error if it cannot be had."""
    be_quiet()
    if "OMP_NUM_THREADS" not in os.environ:
        # On cores that others use too, two threads were several times slower than one.
        torch.set_num_threads(1)
    card = this_card()
    profile = profile_of(card.memory_gib if card else None)
    dtype = settings.dtype or dtype_for(recipe.family, card.capability if card else None)
    if settings.offload == "model" and not card:
        raise CannotStart("--offload model needs a GPU, and torch sees none", UNCLEAR)
    without = left_out(settings, recipe, profile)
    # how many of the weights a quantization leaves is seen once they are loaded
    by_files = card and not settings.quantize
    stored = stored_gib(settings.model, settings.revision, dtype, without) if by_files else None
    plan = plan_for(recipe, settings, card, bool(without), stored)
    if plan.line:
        log.info("%s", plan.line)

    def load_all(offline: bool) -> Any:
        whole = from_pretrained(settings, recipe, getattr(torch, dtype), without, offline)
        # quantized weights cannot take an adapter in
        lora.apply(whole, lora.parse(settings.lora), not settings.quantize, offline)
        return whole

    pipe = load_once(settings.model, settings.revision, load_all)
    if card and not stored:
        plan = plan_for(recipe, settings, card, bool(without), counted_gib(pipe))
        log.info("%s", plan.line)
    pipe.set_progress_bar_config(disable=True)
    slicing = plan.vae_slicing and hasattr(pipe.vae, "use_slicing")
    if slicing:
        pipe.vae.enable_slicing()
    facts = facts_of(pipe, settings, without)
    facts |= {"offload": plan.offload, "vae_slicing": slicing}
    facts["attention_backend"] = backend_in_use(pipe)
    if plan.offload == "model":
        pipe.enable_model_cpu_offload()
    else:
        pipe.to("cuda" if card else "cpu")
    if settings.attention and settings.attention != NATIVE:
        facts["attention_backend"] = use_attention(pipe, settings.attention)
    if settings.compile:
        use_private_folder()
        log.info("torch.compile: %s", compiling.compile_parts(pipe))
    return DiffusersPipeline(
        pipe=pipe,
        make_generator=torch_generator,
        batch_size=plan.batch_size,
        dtype=dtype,
        versions=f"torch {torch.__version__}, diffusers {diffusers.__version__}",
        gpu_name=card.name if card else None,
        facts=facts,
    )


def counted_gib(pipe: Any) -> tuple[float, float]:
    """GiB of all weights of a pipeline as they lie in memory, and of its largest part."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    sizes = [
        sum(
            tensor.numel() * tensor.element_size()
            for tensor in (*part.parameters(), *part.buffers())
        )
        for part in parts
    ]
    return sum(sizes) / GIB, max(sizes, default=0) / GIB


def use_attention(pipe: Any, backend: str) -> str:
    """Have the denoiser take a backend; the one that it takes. Errors: of diffusers, a package."""
    denoiser = compiling.denoiser_of(pipe)
    denoiser.set_attention_backend(backend)
    if takes_a_backend(denoiser):
        return backend
    denoiser.set_attention_backend(NATIVE)  # diffusers keeps one for the whole process, too
    log.warning("%s takes no attention backend: %s", type(denoiser).__name__, NATIVE)
    return NATIVE


def takes_a_backend(denoiser: torch.nn.Module) -> bool:
    """Whether a denoiser's attention goes through the backends of diffusers at all: SD3's does not.

    Its processors have a place for one then.
    """
    processors = (getattr(module, "processor", None) for module in denoiser.modules())
    return any(hasattr(each, "_attention_backend") for each in processors)


def backend_in_use(pipe: Any) -> str:
    """The attention backend that a denoiser has taken from the environment of diffusers."""
    asked = os.environ.get("DIFFUSERS_ATTN_BACKEND", NATIVE)
    return asked if takes_a_backend(compiling.denoiser_of(pipe)) else NATIVE


def this_card() -> Card | None:
    """The GPU of this process; None: torch sees none."""
    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info()
    return Card(card.name, total / GIB, free / GIB, (card.major, card.minor))


def left_out(settings: GeneratorSettings, recipe: Recipe, profile: Profile) -> tuple[str, ...]:
    """The components that are not loaded: T5 where that was asked for, or where it does not fit."""
    without = profile.without_t5 if settings.without_t5 is None else settings.without_t5
    return recipe.family.without_t5 if without else ()


def from_pretrained(
    settings: GeneratorSettings, recipe: Recipe, dtype: Any, without: tuple[str, ...], offline: bool
) -> Any:
    """The pipeline object, on the CPU. without: components that are not loaded."""
    family = recipe.family
    folder = folder_of(settings.model)
    parts_on_disk = model_index(settings.model)
    where_from: dict[str, Any] = {"local_files_only": True} if offline else {}
    source = dict(where_from)
    if settings.revision and not folder:
        source["revision"] = settings.revision
    # dtype is always given: without it transformers keeps the checkpoint's and diffusers takes
    # float32, and the two do not mix.
    parts: dict[str, Any] = {"dtype": dtype} | where_from
    if settings.quantize:
        parts["quantization_config"] = quantization(settings, dtype)
    parts |= {name: None for name, what in parts_on_disk.items() if what == [None, None]}
    parts |= dict.fromkeys(without)
    where = str(folder or settings.model)
    if family.base and family.lora_file and not parts_on_disk:
        pipe = diffusers.DiffusionPipeline.from_pretrained(family.base, **parts)
        pipe.load_lora_weights(where, weight_name=family.lora_file, **source)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **family.scheduler)
        return pipe
    if family.base and not parts_on_disk:
        transformer = diffusers.PixArtTransformer2DModel.from_pretrained(
            where, subfolder="transformer", dtype=dtype, **source
        )
        return diffusers.DiffusionPipeline.from_pretrained(
            family.base, transformer=transformer, **parts
        )
    if family.text_encoder_4 and folder is None:
        llama = family.text_encoder_4
        parts["tokenizer_4"] = transformers.AutoTokenizer.from_pretrained(llama, **where_from)
        parts["text_encoder_4"] = transformers.LlamaForCausalLM.from_pretrained(
            llama, dtype=dtype, output_hidden_states=True, **where_from
        )
    return diffusers.DiffusionPipeline.from_pretrained(where, **(source | parts))


def quantization(settings: GeneratorSettings, dtype: Any) -> Any:
    """The configuration that --quantize and --quantize_args describe."""
    arguments = dict(settings.quantize_args)
    components = arguments.pop("components_to_quantize", ["transformer"])
    if settings.quantize == "torchao":
        import torchao.quantization  # a package of its own, which few have

        name = arguments.pop("quant_type", "Int8WeightOnlyConfig")
        config = diffusers.TorchAoConfig(getattr(torchao.quantization, name)(**arguments))
        return diffusers.PipelineQuantizationConfig(quant_mapping=dict.fromkeys(components, config))
    if settings.quantize == "bitsandbytes_4bit" and not arguments:
        arguments = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": dtype,
        }
    if settings.quantize == "bitsandbytes_8bit" and not arguments:
        arguments = {"load_in_8bit": True}
    return diffusers.PipelineQuantizationConfig(
        quant_backend=settings.quantize,
        quant_kwargs=arguments,
        components_to_quantize=components,
    )
