"""How much of a GPU's peak its images use: FLOPs counted, against the maker's figure.

share_line(generator, images_per_s=0.9)     # "0.47 of the card's 989 TFLOP/s (514 TFLOP an …)"
"""

from generate.pipelines.image_generator import ImageGenerator

# Dense 16-bit TFLOP/s of tensor cores, from the makers' data sheets.
PEAK_TFLOPS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "4090": 165}
TEXT = "a photo of a small bird on a branch, morning light"


def peak_of(card: str | None) -> int | None:
    """TFLOP/s in 16 bits of a card by its name; None: not known."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in (card or "")), None)


def tflop_per_image(generator: ImageGenerator) -> float:
    """Counted over a batch of the run's own size: text, all steps, decoding.

    What is compiled runs eagerly for it, since nothing of it could be seen.
    """
    import torch  # the pipeline has loaded it
    from torch.utils.flop_counter import FlopCounterMode

    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        generator.generate([TEXT], [0])
    return float(counter.get_total_flops()) / generator.batch_size / 1e12


def share_line(generator: ImageGenerator, images_per_s: float) -> str | None:
    """The share of the card's peak; None where that is not known: on a CPU, of a rarer card."""
    peak = peak_of(generator.pipeline.gpu_name)
    if peak is None or generator.settings.pipeline:
        return None
    work = tflop_per_image(generator)
    return f"{images_per_s * work / peak:.2f} of the card's {peak} TFLOP/s ({work:.3g} an image)"
