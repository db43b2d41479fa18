"""Tiny pipelines of newer families, beside those of make_tiny.py: see BUILDERS."""

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from tests import make_tiny

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n"
    "{% if m['content'] is string %}{{m['content']}}"
    "{% else %}{% for c in m['content'] %}{{c['text']}}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 300
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
}
DOWN = ("DownEncoderBlock2D",) * 4
UP = ("UpDecoderBlock2D",) * 4


def flow():
    return FlowMatchEulerDiscreteScheduler()


def qwen_tokenizer():
    """One token a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", "<|im_end|>"]
    tokens = [*letters, "<|endoftext|>", *special]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        model_max_length=2048,
        additional_special_tokens=special,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def qwen3(cls, layers):
    config = Qwen3Config(**SMALL, num_hidden_layers=layers, max_position_embeddings=2048)
    return cls(config).eval()


def z_image():
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=16,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[2048, 32, 32],
    )
    with torch.no_grad():  # made without values
        transformer.x_pad_token.fill_(1)
        transformer.cap_pad_token.fill_(1)
    return ZImagePipeline(
        transformer=transformer.eval(),
        vae=make_tiny.vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=flow(),
        text_encoder=qwen3(Qwen3Model, 2),
        tokenizer=qwen_tokenizer(),
    )


def qwen_vl():
    """The text encoder of Qwen-Image, HunyuanImage and Kandinsky 5."""
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    encoder = Qwen2_5_VLConfig(
        text_config=SMALL | {"num_hidden_layers": 2, "rope_scaling": rope, "rope_theta": 1000000.0},
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
        hidden_size=16,
        vocab_size=VOCABULARY,
        vision_end_token_id=297,
        vision_start_token_id=298,
        vision_token_id=299,
    )
    return Qwen2_5_VLForConditionalGeneration(encoder).eval()


def qwen_image():
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=3,
            joint_attention_dim=16,
            guidance_embeds=False,
            axes_dims_rope=(8, 4, 4),
        ).eval(),
        vae=AutoencoderKLQwenImage(
            base_dim=24,
            z_dim=4,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval(),
        scheduler=flow(),
        text_encoder=qwen_vl(),
        tokenizer=qwen_tokenizer(),
    )


def flux2_vae():
    return AutoencoderKLFlux2(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        down_block_types=DOWN,
        up_block_types=UP,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def klein():
    return Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=256,
            axes_dims_rope=[4, 4, 4, 4],
            guidance_embeds=False,
        ).eval(),
        vae=flux2_vae(),
        scheduler=flow(),
        text_encoder=qwen3(Qwen3ForCausalLM, 28),  # its layers 9, 18 and 27 are read
        tokenizer=qwen_tokenizer(),
        is_distilled=True,
    )


def chroma():
    tokenizer = make_tiny.t5_tokenizer()
    return ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=[4, 4, 8],
            approximator_hidden_dim=32,
            approximator_layers=1,
            approximator_num_channels=16,
        ).eval(),
        vae=make_tiny.vae(4, quant=False, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=flow(),
        text_encoder=make_tiny.t5(tokenizer),
        tokenizer=tokenizer,
    )


def sana(sprint=False):
    tokenizer = make_tiny.gemma_tokenizer(2048)
    blocks = ("ResBlock", "EfficientViTBlock")
    more = {"qk_norm": "rms_norm_across_heads", "guidance_embeds": True} if sprint else {}
    parts = {
        "transformer": SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=32,
            sample_size=32,
            **more,
        ).eval(),
        "vae": AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=[1, 1],
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        ).eval(),
        "text_encoder": make_tiny.gemma(tokenizer),
        "tokenizer": tokenizer,
    }
    if sprint:
        return SanaSprintPipeline(scheduler=SCMScheduler(), **parts)
    return SanaPipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **parts)


def sd15():
    tokenizer = make_tiny.clip_tokenizer()
    return StableDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=make_tiny.clip(tokenizer, CLIPTextModel),
        vae=make_tiny.vae(4),
        scheduler=EulerDiscreteScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        unet=UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            cross_attention_dim=32,
        ).eval(),
    )


BUILDERS = {
    "z-image": z_image,
    "qwen-image": qwen_image,
    "klein": klein,
    "chroma": chroma,
    "sana": sana,
    "sana-sprint": lambda: sana(sprint=True),
    "sd15": sd15,
}
