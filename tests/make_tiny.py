"""Tiny, randomly initialised pipelines of the real classes, built offline.

    python tests/make_tiny.py OUT_FOLDER [NAME …]     # names: see BUILDERS

Ordinary folders for DiffusionPipeline.from_pretrained, 0.6 to 1.9 MB each. Their tokenizers are
trained on the spot on three sentences, so that any text can be encoded.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

CORPUS = [
    "a photo of a red circle above a blue square on a green background",
    "a small yellow triangle to the left of a large white star, studio light, high detail",
    "two cats and three dogs in the park, oil painting, cinematic, 4k",
]


def clip_tokenizer(corpus=CORPUS, max_length=77, vocab_size=1200):
    """CLIPTokenizer with the 512 byte symbols (no text is unknown) and merges of the corpus."""
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=1, end_of_word_suffix="</w>", show_progress=False
    )
    raw.train_from_iterator((text.lower() for text in corpus), trainer)
    merges = [tuple(merge) for merge in json.loads(raw.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = list(
        dict.fromkeys(
            letters + [c + "</w>" for c in letters] + ["".join(merge) for merge in merges]
        )
    )
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)


def t5_tokenizer(corpus=CORPUS, max_length=512, vocab_size=300):
    """T5Tokenizer (Unigram) with a vocabulary learned from the corpus."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
        initial_alphabet=[chr(c) for c in range(33, 127)],
    )
    raw.train_from_iterator(corpus, trainer)
    return T5Tokenizer(
        vocab=[tuple(v) for v in json.loads(raw.to_str())["model"]["vocab"]],
        extra_ids=0,
        model_max_length=max_length,
    )


def gemma_tokenizer(max_length=512):
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *map(chr, range(33, 127))]
    return GemmaTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=max_length
    )


def clip(tokenizer, cls=CLIPTextModelWithProjection, dim=32, layers=2, heads=4):
    return cls(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=dim,
            intermediate_size=dim * 4,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=dim,
            hidden_act="gelu",
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def t5(tokenizer, dim=32):
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=dim,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            feed_forward_proj="gated-gelu",
        )
    ).eval()


def gemma(tokenizer):
    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    ).eval()


def vae(latent=4, channels=(8, 16, 16, 16), quant=True, **kwargs):
    n = len(channels)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        latent_channels=latent,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
        **kwargs,
    ).eval()


def sd3(with_t5=True):
    tokenizer, tokenizer_3 = clip_tokenizer(), t5_tokenizer() if with_t5 else None
    return StableDiffusion3Pipeline(
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        text_encoder=clip(tokenizer),
        text_encoder_2=clip(tokenizer),
        tokenizer_3=tokenizer_3,
        text_encoder_3=t5(tokenizer_3, 64) if with_t5 else None,
        vae=vae(16, quant=False, scaling_factor=1.5305, shift_factor=0.0609),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            caption_projection_dim=32,
            joint_attention_dim=64,
            pooled_projection_dim=64,
            pos_embed_max_size=32,
        ).eval(),
    )


def pixart(cls=PixArtSigmaPipeline):
    tokenizer = t5_tokenizer()
    return cls(
        tokenizer=tokenizer,
        text_encoder=t5(tokenizer),
        vae=vae(4),
        scheduler=DPMSolverMultistepScheduler(),
        transformer=PixArtTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=32,
            interpolation_scale=1,
            use_additional_conditions=False,
            norm_type="ada_norm_single",
            num_embeds_ada_norm=1000,
            norm_elementwise_affine=False,
            norm_eps=1e-6,
        ).eval(),
    )


def sdxl():
    tokenizer = clip_tokenizer()
    return StableDiffusionXLPipeline(
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        text_encoder=clip(tokenizer, CLIPTextModel),
        text_encoder_2=clip(tokenizer),
        vae=vae(4),
        scheduler=EulerDiscreteScheduler(),
        unet=UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=1,
            cross_attention_dim=64,
            projection_class_embeddings_input_dim=8 * 6 + 32,
        ).eval(),
    )


def flux():
    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        text_encoder=clip(tokenizer, CLIPTextModel),
        text_encoder_2=t5(tokenizer_2),
        vae=vae(4, quant=False, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ).eval(),
    )


def lumina():
    """NaN images with an empty negative prompt, of which its tokenizer makes no token at all."""
    tokenizer = gemma_tokenizer()
    return LuminaPipeline(
        tokenizer=tokenizer,
        text_encoder=gemma(tokenizer),
        vae=vae(4, shift_factor=0.0),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=LuminaNextDiT2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=24,
            num_layers=2,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=16,
            ffn_dim_multiplier=None,
            norm_eps=1e-5,
            learn_sigma=True,
            qk_norm=True,
            cross_attention_dim=32,
            scaling_factor=1.0,
        ).eval(),
    )


def lumina2():
    tokenizer = gemma_tokenizer()
    return Lumina2Pipeline(
        tokenizer=tokenizer,
        text_encoder=gemma(tokenizer),
        vae=vae(4, shift_factor=0.0),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=Lumina2Transformer2DModel(
            sample_size=4,
            patch_size=2,
            in_channels=4,
            hidden_size=24,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=2,
            norm_eps=1e-5,
            scaling_factor=1.0,
            axes_dim_rope=[4, 2, 2],
            cap_feat_dim=32,
        ).eval(),
    )


BUILDERS = {
    "sd3": sd3,
    "sd3-no-t5": lambda: sd3(with_t5=False),
    "pixart-sigma": pixart,
    "pixart-alpha": lambda: pixart(PixArtAlphaPipeline),
    "sdxl": sdxl,
    "flux": flux,
    "lumina": lumina,
    "lumina2": lumina2,
}


def build(name, folder, seed=0):
    """Save the pipeline `name` to a folder; returns it, to be broken before it is saved again."""
    torch.manual_seed(seed)
    pipe = BUILDERS[name]()
    pipe.save_pretrained(folder)
    return pipe


if __name__ == "__main__":
    for name in sys.argv[2:] or BUILDERS:
        folder = Path(sys.argv[1]) / name
        build(name, folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder}: {size / 1e6:.2f} MB")
