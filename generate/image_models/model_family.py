"""A row of the table of models (model_table.py): what is known of a model or family."""

from dataclasses import dataclass, field
from typing import Any

from common.model_terms import terms_of_model

PLAIN = {"use_resolution_binning": False}  # the size is what was asked for, and not a near one


@dataclass(frozen=True)
class Family:
    """One row. What a card of a model does not say is left at its default."""

    name: str
    pipeline: str  # the diffusers class, as model_index.json names it
    hub: str  # regular expression over hub ids, or over the name of a local folder
    size: int  # pixels, height and width of an image
    steps: int | None  # None only for a pipeline that takes no such argument
    guidance: float | None
    max_sequence_length: int | None = None  # tokens
    # "guider": set on the pipeline's component of that name instead of passed.
    guidance_argument: str = "guidance_scale"
    # None: the model takes none (distilled, or the pipeline has no such argument).
    negative_prompt: str | None = None
    dtype: str = "bfloat16"  # on a GPU that has it; else float16. On a CPU float32
    multiple: int = 16  # height and width are multiples of it
    sizes: tuple[tuple[int, int], ...] = ()  # (height, width): the only ones it can; () = any
    output: str = "images"  # attribute of what a call returns
    # Its text encoder reads the padding of a batch, so that longer neighbours would change an image
    # (seen with tiny pipelines): one image at a time.
    one_by_one: bool = False
    weights_gib: float | None = None  # of all components, in `dtype`, by their parameters
    # Of the largest of them: what is on the card at a time with --offload model.
    largest_gib: float | None = None
    call: dict[str, Any] = field(default_factory=dict)  # further arguments of a call
    # Where all but the transformer comes from, for hub ids that hold a transformer alone; with
    # lora_file: where the whole pipeline comes from, onto which that file is laid.
    base: str | None = None
    lora_file: str | None = None
    scheduler: dict[str, Any] = field(default_factory=dict)  # changes of the scheduler's settings
    text_encoder_4: str | None = None  # the model of HiDream that its own folder does not hold
    without_t5: tuple[str, ...] = ()  # components that --no-t5 leaves out
    tested: bool = True  # a tiny pipeline of the class runs in the tests

    @property
    def licence(self) -> str:
        """In words, by the row's name (common/model_terms.py)."""
        terms = terms_of_model(self.name)
        return terms.licence if terms else "see its card"

    @property
    def notice(self) -> str | None:
        """What the licence asks of who trains on the images."""
        terms = terms_of_model(self.name)
        return terms.notice if terms else None


T5_GIB = 8.9  # T5-XXL's encoder in 16 bits: 4.76 billion parameters


def sd3(name: str, hub: str, steps: int, guidance: float, gib: float, size: int = 1024) -> Family:
    return Family(
        name,
        "StableDiffusion3Pipeline",
        hub,
        size,
        steps,
        guidance,
        256,
        negative_prompt="" if guidance else None,
        weights_gib=gib,
        largest_gib=15.0 if "large" in name else T5_GIB,
        without_t5=("text_encoder_3", "tokenizer_3"),
    )


def sdxl(name: str, hub: str, size: int, steps: int, guidance: float, **rest: Any) -> Family:
    return Family(
        name,
        "StableDiffusionXLPipeline",
        hub,
        size,
        steps,
        guidance,
        negative_prompt="" if guidance else None,
        dtype="float16",
        multiple=8,
        weights_gib=6.5,
        largest_gib=4.8,
        **rest,
    )


def pixart(name: str, hub: str, size: int, alone: bool = False, **rest: Any) -> Family:
    """alone: a transformer without its pipeline, as most of PixArt-Sigma are published."""
    alpha = "alpha" in name
    return Family(
        name,
        "PixArtAlphaPipeline" if alpha else "PixArtSigmaPipeline",
        hub,
        size,
        20,
        4.5,
        120 if alpha else 300,
        negative_prompt="",
        dtype="float16",
        weights_gib=10.2,
        largest_gib=T5_GIB,
        call=PLAIN,
        base="PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers" if alone else None,
        **rest,
    )


def flux(name: str, hub: str, steps: int, guidance: float, **rest: Any) -> Family:
    rest |= {"weights_gib": 31.4, "largest_gib": 22.2}
    return Family(name, "FluxPipeline", hub, 1024, steps, guidance, **rest)


def klein(name: str, hub: str, steps: int, guidance: float, gib: float, **rest: Any) -> Family:
    rest |= {"weights_gib": gib, "largest_gib": 7.5 if "4b" in name else 16.9}
    return Family(name, "Flux2KleinPipeline", hub, 1024, steps, guidance, 512, **rest)


def qwen_image(name: str, hub: str, negative_prompt: str) -> Family:
    return Family(
        name,
        "QwenImagePipeline",
        hub,
        1328,
        50,
        4.0,
        512,
        guidance_argument="true_cfg_scale",
        negative_prompt=negative_prompt,
        weights_gib=53.7,
        largest_gib=38.1,
    )


def sana(name: str, hub: str, size: int, gib: float, **rest: Any) -> Family:
    return Family(
        name,
        "SanaPipeline",
        hub,
        size,
        20,
        4.5,
        300,
        negative_prompt="",
        multiple=32,
        weights_gib=gib,
        largest_gib=8.8 if "4.8b" in name else 4.9,
        call=PLAIN,
        **rest,
    )


def hidream(name: str, hub: str, steps: int, guidance: float) -> Family:
    return Family(
        name,
        "HiDreamImagePipeline",
        hub,
        1024,
        steps,
        guidance,
        128,
        negative_prompt="" if guidance else None,
        weights_gib=57,
        largest_gib=31.9,
        text_encoder_4="meta-llama/Meta-Llama-3.1-8B-Instruct",
        # It scales what is asked for to a million pixels: those that stay as they are, of its repo.
        sizes=(
            (1024, 1024),
            (768, 1360),
            (1360, 768),
            (880, 1168),
            (1168, 880),
            (832, 1248),
            (1248, 832),
        ),
    )
