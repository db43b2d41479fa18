"""Models at their real sizes with random weights, for measurements without the hub.

    build_sd3(Path("/tmp/sd3"))
    build("Z-Image-Turbo", Path("/tmp/Z-Image-Turbo"))     # those of real_configs.py

SD3-medium: 2.0 billion parameters of the transformer, both CLIP encoders and the VAE, without T5,
in bfloat16: 5.4 GiB. Of the others, denoiser and VAE have their real sizes, and the text encoders
are tiny: the real ones take 1 to 3 % of the time, with models of one or two steps more (13 % of
SANA-Sprint). A step takes as long as with the real weights; the images are noise.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from benchmarks.real_configs import REAL_MODELS, kl_vae
from tests import make_tiny, make_tiny_large, make_tiny_more
from tests.make_tiny import clip_tokenizer

REAL = {
    "transformer": {"num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64}
    | {"joint_attention_dim": 4096, "caption_projection_dim": 1536, "pooled_projection_dim": 2048}
    | {"sample_size": 128, "pos_embed_max_size": 192, "in_channels": 16, "out_channels": 16},
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "clip": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "clip_2": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20},
}


def build(name: str, folder: Path, smaller: dict[str, Any] | None = None) -> Path:
    """Write the pipeline of a name of REAL_MODELS; smaller: arguments that make it unreal."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tiny, arguments = fitted(name)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            denoiser = getattr(diffusers, REAL_MODELS[name].denoiser)
            parts: dict[str, Any] = {denoiser_of(tiny): denoiser(**(arguments | (smaller or {})))}
            if not smaller:
                parts["vae"] = REAL_MODELS[name].vae()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():  # Z-Image makes two without values
        for key, weights in parts[denoiser_of(tiny)].named_parameters():
            if key.endswith("pad_token"):
                weights.fill_(1)
    pipe = type(tiny)(**(tiny.components | parts))
    for part in parts.values():
        part.eval()
    pipe.save_pretrained(folder)
    return folder


def fitted(name: str) -> tuple[Any, dict[str, Any]]:
    """The tiny pipeline, and the arguments of the real denoiser that fit its text encoders."""
    real = REAL_MODELS[name]
    builders = make_tiny.BUILDERS | make_tiny_more.BUILDERS | make_tiny_large.BUILDERS
    tiny = builders[real.tiny]()
    config = tiny.components[denoiser_of(tiny)].config
    return tiny, real.arguments | {key: config[key] for key in real.text} | real.fitting


def denoiser_of(pipe: Any) -> str:
    return "unet" if "unet" in pipe.components else "transformer"


def build_sd3(folder: Path, sizes: dict[str, dict[str, Any]] = REAL) -> Path:
    """Write the pipeline; sizes: the arguments of its parts' configurations."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            parts = {
                "transformer": SD3Transformer2DModel(patch_size=2, **sizes["transformer"]),
                "vae": kl_vae(**sizes["vae"], scaling_factor=1.5305, shift_factor=0.0609),
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
