"""Tiny pipelines of the large model families, beside make_tiny.py: see BUILDERS."""

import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKLHunyuanImage,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    CLIPTextModel,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

from tests import make_tiny
from tests.make_tiny_more import SMALL, flow, flux2_vae, qwen_tokenizer, qwen_vl

HEADS_16 = {"num_attention_heads": 2, "attention_head_dim": 16}


def auraflow():
    tokenizer = make_tiny.t5_tokenizer()
    encoder = UMT5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    return AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(encoder).eval(),
        vae=make_tiny.vae(4),
        scheduler=flow(),
        transformer=AuraFlowTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            joint_attention_dim=32,
            caption_projection_dim=32,
            out_channels=4,
            pos_embed_max_size=256,
            **HEADS_16,
        ).eval(),
    )


def glm_tokenizer():
    """One token a letter, after two of its own: an empty text has some, too."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "[gMASK]", "<sop>"]
    tokens = {token: i for i, token in enumerate([*special, *letters])}
    raw = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[(each, tokens[each]) for each in special[1:]]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", padding_side="left", model_max_length=2048
    )


def cogview4():
    """The text encoder reads the padding, too: an image depends on its neighbours."""
    encoder = GlmConfig(**SMALL, num_hidden_layers=2, head_dim=8, pad_token_id=0)
    return CogView4Pipeline(
        tokenizer=glm_tokenizer(),
        text_encoder=GlmModel(encoder).eval(),
        vae=make_tiny.vae(4),
        scheduler=FlowMatchEulerDiscreteScheduler(
            base_shift=0.25,
            max_shift=0.75,
            base_image_seq_len=256,
            use_dynamic_shifting=True,
            time_shift_type="linear",
        ),
        transformer=CogView4Transformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            text_embed_dim=16,
            time_embed_dim=8,
            condition_dim=4,
            **HEADS_16,
        ).eval(),
    )


def kandinsky5():
    """What the class begins with zeros has values: a text would change nothing."""
    tokenizer_2 = make_tiny.clip_tokenizer()
    return Kandinsky5T2IPipeline(
        tokenizer=qwen_tokenizer(),
        text_encoder=qwen_vl(),
        tokenizer_2=tokenizer_2,
        text_encoder_2=make_tiny.clip(tokenizer_2, CLIPTextModel),
        vae=make_tiny.vae(16, quant=False, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=flow(),
        transformer=filled(
            Kandinsky5Transformer3DModel(
                in_visual_dim=16,
                in_text_dim=16,
                in_text_dim2=32,
                time_dim=16,
                out_visual_dim=16,
                patch_size=(1, 2, 2),
                model_dim=16,
                ff_dim=32,
                num_text_blocks=1,
                num_visual_blocks=2,
                axes_dims=(1, 1, 2),
                visual_cond=False,
                attention_type="regular",
            )
        ).eval(),
    )


def filled(model):
    for weights in model.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.1)
    return model


def hidream():
    tokenizer = make_tiny.clip_tokenizer(max_length=248)  # its CLIPs are trained on longer texts
    tokenizer_3 = make_tiny.t5_tokenizer()
    encoder = LlamaConfig(**SMALL, num_hidden_layers=2, pad_token_id=0)
    return HiDreamImagePipeline(
        tokenizer=tokenizer,
        text_encoder=make_tiny.clip(tokenizer),
        tokenizer_2=make_tiny.clip_tokenizer(max_length=248),
        text_encoder_2=make_tiny.clip(tokenizer),
        tokenizer_3=tokenizer_3,
        text_encoder_3=make_tiny.t5(tokenizer_3),
        tokenizer_4=qwen_tokenizer(),
        text_encoder_4=LlamaForCausalLM(encoder).eval(),
        vae=make_tiny.vae(4, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=flow(),
        transformer=HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            caption_channels=[32, 16],
            text_emb_dim=64,
            num_routed_experts=4,
            num_activated_experts=2,
            axes_dims_rope=(8, 4, 4),
            max_resolution=(32, 32),
            llama_layers=(0, 1),
            **HEADS_16,
        ).eval(),
    )


def hunyuanimage(distilled=False):
    """distilled: guidance is a number that the transformer reads, and there is no guider."""
    guide = None if distilled else AdaptiveProjectedMixGuidance()
    tokenizer_2 = ByT5Tokenizer()
    return HunyuanImagePipeline(
        tokenizer=qwen_tokenizer(),
        text_encoder=qwen_vl(),
        tokenizer_2=tokenizer_2,
        text_encoder_2=make_tiny.t5(tokenizer_2),
        vae=AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 32, 32, 32),
            layers_per_block=1,
            spatial_compression_ratio=8,
            sample_size=64,
            scaling_factor=0.476986,
        ).eval(),
        scheduler=flow(),
        guider=guide,
        ocr_guider=guide and AdaptiveProjectedMixGuidance(),
        transformer=HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=(1, 1),
            guidance_embeds=distilled,
            text_embed_dim=16,
            text_embed_2_dim=32,
            rope_axes_dim=(8, 8),
            **HEADS_16,
        ).eval(),
    )


def flux2():
    tokenizer = qwen_tokenizer()
    layers = 31  # of which 10, 20 and 30 are read
    text = SMALL | {"num_hidden_layers": layers, "model_type": "mistral", "head_dim": 8}
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 28,
        "patch_size": 14,
    }
    encoder = Mistral3Config(text_config=text, vision_config=vision)
    return Flux2Pipeline(
        tokenizer=tokenizer,
        text_encoder=Mistral3ForConditionalGeneration(encoder).eval(),
        vae=flux2_vae(),
        scheduler=flow(),
        transformer=Flux2Transformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            joint_attention_dim=48,
            timestep_guidance_channels=256,
            axes_dims_rope=[4, 4, 4, 4],
            **HEADS_16,
        ).eval(),
    )


BUILDERS = {
    "auraflow": auraflow,
    "cogview4": cogview4,
    "kandinsky5": kandinsky5,
    "hidream": hidream,
    "hunyuanimage": hunyuanimage,
    "hunyuanimage-distilled": lambda: hunyuanimage(distilled=True),
    "flux2": flux2,
}
