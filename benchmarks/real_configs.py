"""The real sizes of denoisers and VAEs: a row for each model that real_sizes.py can build.

Arguments are those of the classes of diffusers; what is not named is the class's default, which is
the real model's. Read in the conversion scripts of diffusers and, for SD 3.5, HiDream and
Kandinsky 5, in copies of the models' configurations in public code; in 2026.
tests/test_gpu_benchmark.py compares the numbers of parameters with the published ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch


@dataclass(frozen=True)
class Real:
    """One model. Text encoders are tiny, so that some of the denoiser's arguments must fit them."""

    tiny: str  # the tiny pipeline whose other parts are taken (tests/make_tiny*.py)
    denoiser: str  # the diffusers class
    vae: Callable[[], torch.nn.Module]
    billions: str  # parameters of the denoiser as its makers say, with their digits
    text: tuple[str, ...] = ()  # arguments with the widths of texts: those of the tiny pipeline
    arguments: dict[str, Any] = field(default_factory=dict)
    fitting: dict[str, Any] = field(default_factory=dict)  # further ones for the tiny encoders


def kl_vae(
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
    layers_per_block: int = 2,
    latent_channels: int = 16,
    scaling_factor: float = 0.3611,
    shift_factor: float | None = 0.1159,
    quant: bool = False,
    attention: bool = True,
) -> torch.nn.Module:
    """The VAE of FLUX.1, which most use, or another of its class."""
    count = len(block_out_channels)
    return diffusers.AutoencoderKL(
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        latent_channels=latent_channels,
        norm_num_groups=min(32, *block_out_channels),
        use_quant_conv=quant,
        use_post_quant_conv=quant,
        mid_block_add_attention=attention,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
    )


def sd_vae(scaling_factor: float = 0.18215) -> torch.nn.Module:
    return kl_vae(latent_channels=4, scaling_factor=scaling_factor, shift_factor=None, quant=True)


def sdxl_vae() -> torch.nn.Module:
    return sd_vae(0.13025)


def sd3_vae() -> torch.nn.Module:
    return kl_vae(scaling_factor=1.5305, shift_factor=0.0609)


def cogview4_vae() -> torch.nn.Module:
    return kl_vae((128, 512, 1024, 1024), 3, 16, 1.0, 0.0, attention=False)


def hunyuan_vae() -> torch.nn.Module:
    return diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=64,
        block_out_channels=(128, 256, 512, 512, 1024, 1024),
        layers_per_block=2,
        spatial_compression_ratio=32,
        sample_size=384,
        scaling_factor=0.75289,
        downsample_match_channel=True,
        upsample_match_channel=True,
    )


def sana_vae() -> torch.nn.Module:
    """dc-ae-f32c32-sana: a latent for 32 pixels of a side."""
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    return diffusers.AutoencoderDC(
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )


JOINT = ("joint_attention_dim",)
POOLED = ("joint_attention_dim", "pooled_projection_dim")
CAPTION = ("caption_channels",)
SD35 = {"attention_head_dim": 64, "qk_norm": "rms_norm"}
SD35_LARGE = {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432} | SD35
SD35_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536} | SD35
PIXART = {"caption_channels": 4096, "use_additional_conditions": False}
KLEIN_4B: dict[str, Any] = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24}
KLEIN_9B: dict[str, Any] = {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32}
NORMED = {"qk_norm": "rms_norm_across_heads"}


def sd3(billions: str, pos_embed_max_size: int, **arguments: Any) -> Real:
    arguments |= {"pos_embed_max_size": pos_embed_max_size}
    return Real("sd3", "SD3Transformer2DModel", sd3_vae, billions, POOLED, arguments)


def pixart(tiny: str, vae: Callable[[], torch.nn.Module], **arguments: Any) -> Real:
    return Real(tiny, "PixArtTransformer2DModel", vae, "0.6", CAPTION, PIXART | arguments)


def sdxl() -> Real:
    arguments = {
        "sample_size": 128,
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 1280,
    }
    fitting = {"projection_class_embeddings_input_dim": 6 * 256 + 32}
    text = ("cross_attention_dim",)
    return Real("sdxl", "UNet2DConditionModel", sdxl_vae, "2.6", text, arguments, fitting)


def flux(guidance: bool) -> Real:
    arguments = {"guidance_embeds": guidance}
    return Real("flux", "FluxTransformer2DModel", kl_vae, "12", POOLED, arguments)


def flux2(tiny: str, billions: str, **arguments: Any) -> Real:
    vae = diffusers.AutoencoderKLFlux2
    return Real(tiny, "Flux2Transformer2DModel", vae, billions, JOINT, arguments)


def klein(billions: str, joint_attention_dim: int, **arguments: Any) -> Real:
    arguments |= {"guidance_embeds": False, "joint_attention_dim": joint_attention_dim}
    return flux2("klein", billions, **arguments)


def qwen_image() -> Real:
    vae = diffusers.AutoencoderKLQwenImage
    return Real("qwen-image", "QwenImageTransformer2DModel", vae, "20", JOINT)


def z_image() -> Real:
    return Real("z-image", "ZImageTransformer2DModel", kl_vae, "6", ("cap_feat_dim",))


def sana(billions: str = "1.6", size: int = 1024, tiny: str = "sana", **arguments: Any) -> Real:
    scale = {2048: 1.0, 4096: 2.0}.get(size)  # positions are embedded above 1024 only
    arguments |= {"sample_size": size // 32, "interpolation_scale": scale}
    return Real(tiny, "SanaTransformer2DModel", sana_vae, billions, CAPTION, arguments)


def hunyuanimage(tiny: str, **arguments: Any) -> Real:
    arguments |= {"text_embed_2_dim": 1472}
    text = ("text_embed_dim", "text_embed_2_dim")
    return Real(tiny, "HunyuanImageTransformer2DModel", hunyuan_vae, "17", text, arguments)


def cogview4() -> Real:
    arguments = {"num_layers": 28, "num_attention_heads": 32, "attention_head_dim": 128}
    text = ("text_embed_dim",)
    return Real("cogview4", "CogView4Transformer2DModel", cogview4_vae, "6", text, arguments)


def kandinsky5() -> Real:
    arguments = {
        "in_visual_dim": 16,
        "out_visual_dim": 16,
        "model_dim": 2560,
        "ff_dim": 10240,
        "num_visual_blocks": 50,
        "axes_dims": (32, 48, 48),
    }
    text = ("in_text_dim", "in_text_dim2")
    return Real("kandinsky5", "Kandinsky5Transformer3DModel", kl_vae, "6", text, arguments)


def hidream() -> Real:
    """Of Llama's 32 layers the last is read 17 times; the tiny one has two."""
    arguments = {
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 16,
        "num_single_layers": 32,
        "num_attention_heads": 20,
        "attention_head_dim": 128,
        "caption_channels": [4096, 4096],
        "text_emb_dim": 2048,
        "num_routed_experts": 4,
        "num_activated_experts": 2,
        "axes_dims_rope": (64, 32, 32),
        "max_resolution": (128, 128),
        "llama_layers": (*range(32), *(31,) * 16),
    }
    fitting = {"llama_layers": (0, *(1,) * 47)}
    text = ("caption_channels", "text_emb_dim")
    return Real("hidream", "HiDreamImageTransformer2DModel", kl_vae, "17", text, arguments, fitting)


def auraflow() -> Real:
    return Real("auraflow", "AuraFlowTransformer2DModel", sdxl_vae, "6.8", JOINT)


def lumina() -> Real:
    arguments = {
        "hidden_size": 2304,
        "num_layers": 24,
        "num_attention_heads": 32,
        "num_kv_heads": 8,
        "multiple_of": 256,
        "ffn_dim_multiplier": None,
        "cross_attention_dim": 2048,
    }
    text = ("cross_attention_dim",)
    return Real("lumina", "LuminaNextDiT2DModel", sdxl_vae, "2", text, arguments)


# By the folder's name, by which its row in model_table.py is found.
REAL_MODELS = {
    "stable-diffusion-v1-5": Real(
        "sd15",
        "UNet2DConditionModel",
        sd_vae,
        "0.86",
        ("cross_attention_dim",),
        {"cross_attention_dim": 768, "sample_size": 64},
    ),
    "stable-diffusion-xl-base-1.0": sdxl(),
    "sdxl-turbo": sdxl(),
    "SDXL-Lightning": sdxl(),  # its adapter is taken into the weights
    "stable-diffusion-3.5-large": sd3("8.1", 192, **SD35_LARGE),
    "stable-diffusion-3.5-large-turbo": sd3("8.1", 192, **SD35_LARGE),
    "stable-diffusion-3.5-medium": sd3(
        "2.5", 384, dual_attention_layers=tuple(range(13)), **SD35_MEDIUM
    ),
    "PixArt-Sigma-XL-2-256x256": pixart(
        "pixart-sigma", sdxl_vae, sample_size=32, interpolation_scale=0.5
    ),
    "PixArt-Sigma-XL-2-512-MS": pixart("pixart-sigma", sdxl_vae, sample_size=64),
    "PixArt-Sigma-XL-2-1024-MS": pixart("pixart-sigma", sdxl_vae, interpolation_scale=2),
    "PixArt-Sigma-XL-2-2K-MS": pixart("pixart-sigma", sdxl_vae, sample_size=256),
    "PixArt-XL-2-1024-MS": pixart("pixart-alpha", sd_vae, use_additional_conditions=True),
    "PixArt-XL-2-512x512": pixart("pixart-alpha", sd_vae, sample_size=64),
    "Lumina-Next-SFT-diffusers": lumina(),
    "Lumina-Image-2.0": Real(
        "lumina2",
        "Lumina2Transformer2DModel",
        kl_vae,
        "2.6",
        ("cap_feat_dim",),
        {"cap_feat_dim": 2304},
    ),
    "FLUX.1-dev": flux(guidance=True),
    "FLUX.1-schnell": flux(guidance=False),
    "FLUX.2-klein-4B": klein("4", 7680, **KLEIN_4B),
    "FLUX.2-klein-base-4B": klein("4", 7680, **KLEIN_4B),
    "FLUX.2-klein-9B": klein("9", 12288, **KLEIN_9B),
    "FLUX.2-klein-base-9B": klein("9", 12288, **KLEIN_9B),
    "FLUX.2-dev": flux2("flux2", "32"),
    "Qwen-Image": qwen_image(),
    "Qwen-Image-2512": qwen_image(),
    "Z-Image": z_image(),
    "Z-Image-Turbo": z_image(),
    "Sana_1600M_512px_diffusers": sana(size=512),
    "Sana_1600M_1024px_diffusers": sana(),
    "Sana_1600M_2Kpx_diffusers": sana(size=2048),
    "Sana_1600M_4Kpx_diffusers": sana(size=4096),
    "SANA1.5_4.8B_1024px_diffusers": sana("4.8", num_layers=60, **NORMED),
    "Sana_Sprint_1.6B_1024px_diffusers": sana(tiny="sana-sprint", guidance_embeds=True, **NORMED),
    "Chroma1-HD": Real("chroma", "ChromaTransformer2DModel", kl_vae, "8.9", JOINT),
    "HiDream-I1-Full": hidream(),
    "HiDream-I1-Dev": hidream(),
    "HiDream-I1-Fast": hidream(),
    "HunyuanImage-2.1-Diffusers": hunyuanimage("hunyuanimage"),
    "HunyuanImage-2.1-Distilled-Diffusers": hunyuanimage(
        "hunyuanimage-distilled", guidance_embeds=True, use_meanflow=True
    ),
    "CogView4-6B": cogview4(),
    "Kandinsky-5.0-T2I-Lite-sft-Diffusers": kandinsky5(),
    "AuraFlow-v0.3": auraflow(),
}
