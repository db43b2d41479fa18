"""Models at their real sizes with random weights, for measurements without the hub.

    build_sd3(Path("/tmp/sd3"))
    build("Z-Image-Turbo", Path("/tmp/Z-Image-Turbo"))     # those of DENOISERS

SD3-medium: 2.0 billion parameters of the transformer, both CLIP encoders and the VAE, without T5,
in bfloat16: 5.4 GiB. Of the others, denoiser and VAE have their real sizes, and the text encoders
are tiny: they take 1 to 3 % of the time of the real ones (13 % with SANA-Sprint, which is not
here). A step takes as long as with the real weights; the images are noise.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    Lumina2Transformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImageTransformer2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tests import make_tiny, make_tiny_more
from tests.make_tiny import clip_tokenizer

REAL = {
    "transformer": {"num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64}
    | {"joint_attention_dim": 4096, "caption_projection_dim": 1536, "pooled_projection_dim": 2048}
    | {"sample_size": 128, "pos_embed_max_size": 192, "in_channels": 16, "out_channels": 16},
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "clip": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "clip_2": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20},
}


# The folder's name, by which its row is found: the tiny pipeline whose other parts are taken, and
# the arguments of its denoiser that fit those; all else are the defaults of the denoiser's class,
# which are the real model's (tests/test_gpu_benchmark.py compares the numbers of parameters).
FLUX = {"joint_attention_dim": 32, "pooled_projection_dim": 32}
DENOISERS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "FLUX.1-schnell": ("flux", FluxTransformer2DModel, FLUX),
    "Z-Image-Turbo": ("z-image", ZImageTransformer2DModel, {"cap_feat_dim": 16}),
    "Qwen-Image": ("qwen-image", QwenImageTransformer2DModel, {"joint_attention_dim": 16}),
    "Chroma1-HD": ("chroma", ChromaTransformer2DModel, {"joint_attention_dim": 32}),
    "Lumina-Image-2.0": ("lumina2", Lumina2Transformer2DModel, {"cap_feat_dim": 32}),
}


def build(name: str, folder: Path, smaller: dict[str, Any] | None = None) -> Path:
    """Write the pipeline of a name of DENOISERS; smaller: arguments that make it no longer real."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    which, denoiser, fitting = DENOISERS[name]
    tiny = (make_tiny.BUILDERS | make_tiny_more.BUILDERS)[which]()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            parts: dict[str, Any] = {"transformer": denoiser(**(fitting | (smaller or {})))}
            if not smaller:
                parts["vae"] = real_vae(name)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():  # Z-Image makes two without values
        for name, weights in parts["transformer"].named_parameters():
            if name.endswith("pad_token"):
                weights.fill_(1)
    pipe = type(tiny)(**(tiny.components | parts))
    for part in parts.values():
        part.eval()
    pipe.save_pretrained(folder)
    return folder


def real_vae(name: str) -> torch.nn.Module:
    """The VAE of FLUX.1, which most use, or of Qwen-Image."""
    if name == "Qwen-Image":
        return AutoencoderKLQwenImage()
    return _vae(**REAL["vae"], scaling_factor=0.3611, shift_factor=0.1159)


def build_sd3(folder: Path, sizes: dict[str, dict[str, Any]] = REAL) -> Path:
    """Write the pipeline; sizes: the arguments of its parts' configurations."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            parts = {
                "transformer": SD3Transformer2DModel(patch_size=2, **sizes["transformer"]),
                "vae": _vae(**sizes["vae"]),
                "text_encoder": _clip(**sizes["clip"]),
                "text_encoder_2": _clip(**sizes["clip_2"]),
            }
    finally:
        torch.set_default_dtype(torch.float32)
    pipe = StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=None,
        text_encoder_3=None,
        **{name: part.to(torch.bfloat16).eval() for name, part in parts.items()},
    )
    pipe.save_pretrained(folder)
    return folder


def _clip(hidden_size: int, **rest: int) -> CLIPTextModelWithProjection:
    tokenizer = clip_tokenizer()
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            projection_dim=hidden_size,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **rest,
        )
    )


def _vae(
    block_out_channels: tuple[int, ...],
    layers_per_block: int,
    scaling_factor: float = 1.5305,
    shift_factor: float = 0.0609,
) -> AutoencoderKL:
    count = len(block_out_channels)
    return AutoencoderKL(
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        latent_channels=16,
        norm_num_groups=min(32, *block_out_channels),
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
    )
