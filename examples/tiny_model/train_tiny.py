"""Train a tiny text-to-image model (Stable Diffusion 3 architecture) from nothing, on a CPU.

    python examples/tiny_model/train_tiny.py OUT_FOLDER --vae_minutes 15 --minutes 55 --scenes 40000

The result is an ordinary folder for StableDiffusion3Pipeline.from_pretrained: 64x64 images, float16
weights. Two stages: an AutoencoderKL (8x smaller, 8 channels), then SD3Transformer2DModel and both
CLIP text encoders together, by rectified flow. text_encoder_3 is a stub T5 whose output is all
zeros, which is what SD3 uses when T5 is left out; without it, from_pretrained would insist on
text_encoder_3=None, tokenizer_3=None. One thread is several times faster than two when other work
shares the cores (measured), hence --threads 1.
"""

import argparse
import contextlib
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from examples.tiny_model.drawings import SIZE, draw, scene
from tests.make_tiny import (  # the makers of tiny encoders and tokenizers
    clip,
    clip_tokenizer,
    t5,
    t5_tokenizer,
)

MAX_TOKENS = 20  # of the CLIP tokenizers


def progress(minutes):
    """Yield (step, share of the time used) until the minutes are over."""
    start, step = time.time(), 0
    while (share := (time.time() - start) / (60 * minutes)) < 1:
        yield step, share
        step += 1


def set_lr(opt, lr, step, share):
    for group in opt.param_groups:
        group["lr"] = (
            lr
            * min(1, (step + 1) / 100)
            * (1 if share < 0.3 else (1 + math.cos(math.pi * (share - 0.3) / 0.7)) / 2)
        )


def batch_of(images, n):
    x = torch.from_numpy(images[np.random.randint(len(images), size=n)])
    return x.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(images, minutes, batch=8, lr=2e-3):
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=8,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    ).to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(vae.parameters(), lr, betas=(0.9, 0.99), weight_decay=0, fused=True)
    for step, share in progress(minutes):
        set_lr(opt, lr, step, share)
        x = batch_of(images, batch).contiguous(memory_format=torch.channels_last)
        q = vae.encode(x).latent_dist
        y = vae.decode(q.sample()).sample
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 1e-4 * q.kl().mean() / q.mean[0].numel()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        opt.step()
        if step % 50 == 0:
            print(f"vae {share:4.0%} step {step} loss {loss.item():.4f}", flush=True)
    return vae.eval()


@contextlib.contextmanager
def null_tokens(count):
    """One zero token that weighs as much as the 256 that SD3 without T5 appends: it costs less."""
    real = F.scaled_dot_product_attention

    def weighted(q, k, v, **kw):
        bias = q.new_zeros(1, 1, 1, k.shape[2])
        bias[..., -1] = math.log(count)
        return real(q, k, v, attn_mask=bias)

    F.scaled_dot_product_attention = weighted
    try:
        yield
    finally:
        F.scaled_dot_product_attention = real


def train_flow(transformer, encoders, latents, ids, minutes, batch=64, lr=1.5e-3):
    params = [p for m in (transformer, *encoders) for p in m.parameters()]
    opt = torch.optim.AdamW(params, lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    width, avg, empty = transformer.config.joint_attention_dim, None, ids[-1]
    for step, share in progress(minutes):
        set_lr(opt, lr, step, share)
        pick = torch.randint(len(latents), (batch,))
        x, t = latents[pick].float(), ids[pick].clone()
        t[torch.rand(batch) < 0.1] = empty
        noise, sigma = torch.randn_like(x), torch.sigmoid(torch.randn(batch))
        noisy = torch.lerp(x, noise, sigma.view(-1, 1, 1, 1))
        with torch.autocast("cpu", torch.bfloat16):
            out = [e(t, output_hidden_states=True) for e in encoders]
            text = torch.cat([o.hidden_states[-2] for o in out], -1)
            text = F.pad(text, (0, width - text.shape[-1], 0, 1))
            with null_tokens(random.choice((16, 77, 256, 512))):
                v = transformer(
                    noisy,
                    encoder_hidden_states=text,
                    timestep=sigma * 1000,
                    pooled_projections=torch.cat([o.text_embeds for o in out], -1),
                ).sample
        loss = F.mse_loss(v.float(), noise - x)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        avg = loss.item() if avg is None else 0.98 * avg + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"flow {share:4.0%} step {step} loss {avg:.4f}", flush=True)


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("out")
    ap.add_argument("--vae_minutes", type=float, default=3.5)
    ap.add_argument("--minutes", type=float, default=13)
    ap.add_argument("--scenes", type=int, default=20000)
    ap.add_argument("--layers", type=int, default=3)
    ap.add_argument("--patch", type=int, default=2)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--seed", type=int, default=0)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    rng = random.Random(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    random.seed(args.seed)

    scenes = [scene(rng) for _ in range(args.scenes)]
    images = np.stack([draw(bg, things) for _, bg, things in scenes])
    prompts = [s[0] for s in scenes] + [""]
    vae = train_vae(images, args.vae_minutes)
    with torch.no_grad():
        parts = [
            vae.encode(
                torch.from_numpy(images[i : i + 64]).permute(0, 3, 1, 2).float() / 127.5 - 1
            ).latent_dist.mean
            for i in range(0, len(images), 64)
        ]
    latents = torch.cat(parts)
    vae.register_to_config(
        shift_factor=latents.mean().item(), scaling_factor=1 / latents.std().item()
    )
    latents = ((latents - vae.config.shift_factor) * vae.config.scaling_factor).half()

    tokenizer = clip_tokenizer(prompts, max_length=MAX_TOKENS)
    encoders = [clip(tokenizer, dim=64).train() for _ in range(2)]
    transformer = SD3Transformer2DModel(
        sample_size=SIZE // 8,
        patch_size=args.patch,
        in_channels=8,
        out_channels=8,
        num_layers=args.layers,
        num_attention_heads=4,
        attention_head_dim=32,
        caption_projection_dim=128,
        joint_attention_dim=128,
        pooled_projection_dim=128,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    ids = tokenizer(
        prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    print(
        sum(p.numel() for p in transformer.parameters()),
        "parameters;",
        len(tokenizer),
        "tokens;",
        "scaling",
        vae.config.scaling_factor,
        flush=True,
    )
    train_flow(transformer, encoders, latents, ids, args.minutes, args.batch)

    tokenizer_3 = t5_tokenizer(prompts[:500])
    stub = t5(tokenizer_3, dim=128)
    torch.nn.init.zeros_(stub.encoder.final_layer_norm.weight)
    pipe = StableDiffusion3Pipeline(
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder=encoders[0].eval(),
        text_encoder_2=encoders[1].eval(),
        tokenizer_3=tokenizer_3,
        text_encoder_3=stub,
        vae=vae,
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )
    pipe.to(torch.float16).save_pretrained(args.out)


if __name__ == "__main__":
    main()
