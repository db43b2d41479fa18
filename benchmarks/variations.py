"""Diversity and fidelity of the embedded LLM's variations: today's instruction and the first one.

    python benchmarks/variations.py                             # 10 prompts x 199: two hours of CPU
    python benchmarks/variations.py --prompts 2 --variations 40 # minutes

The first instruction asked for captions that differ as much as possible and drew no attributes;
both run in the same process, one after the other; s: seconds since its start. Vendi score,
distinct-2, mean cosine to the nearest neighbour and to the original, by
generate/llms/diversity.py. A prompt of which six answers in a row hold nothing new ends with
fewer texts.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from generate.llms.diversity import Diversity, measure
from generate.llms.embedded import EmbeddedLLM
from generate.llms.prompter import Prompter, PrompterSettings

FIRST = Path(__file__).with_name("first_instruction.txt")
PROMPTS = (
    "a corgi in a top hat",
    "portrait of a king, oil painting, by Rembrandt, dramatic light",
    "two dogs playing in the snow",
    "street market in Marrakesh at noon, 35mm photo",
    "a lighthouse on a cliff in a storm",
    "fantasy castle above the clouds, matte painting, trending on artstation, golden hour",
    "woman reading a newspaper on a train",
    "a bowl of ramen, steam, food photography, shallow depth of field",
    "astronaut riding a horse on the moon, cinematic",
    "an owl made of clockwork",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--variations", type=int, default=199)
    args = parser.parse_args()
    prompters = {
        name: Prompter(EmbeddedLLM(), PrompterSettings(accounts=":memory:", instruction=path))
        for name, path in (("first", FIRST), ("today's", None))
    }
    print(f"{'':50}{'texts':>7}{'Vendi':>8}{'dist-2':>8}{'nearest':>8}{'orig.':>8}{'s':>7}")
    figures: dict[str, list[Diversity]] = {name: [] for name in prompters}
    for name, prompter in prompters.items():
        began = time.monotonic()
        asked = {
            prompt: prompter.submit(prompt, args.variations) for prompt in PROMPTS[: args.prompts]
        }
        for prompt, answer in asked.items():
            texts = [item["text"] for item in answer.result().texts]
            figures[name].append(measure(prompt, texts))
            show(f"{name}: {prompt}", figures[name][-1:], time.monotonic() - began)
    for name, each in figures.items():
        show(f"{name}: mean", each, 0.0)
    ratio = statistics.fmean(
        new.vendi / old.vendi for old, new in zip(figures["first"], figures["today's"], strict=True)
    )
    print(f"Vendi score, today's / first: {ratio:.2f} (load {os.getloadavg()[0]:.1f})")
    for prompter in prompters.values():
        prompter.close()


def show(name: str, figures: list[Diversity], seconds: float) -> None:
    means = [
        statistics.fmean(getattr(figure, field) for figure in figures)
        for field in ("texts", "vendi", "distinct_2", "nearest", "fidelity")
    ]
    cells = f"{means[0]:7.0f}{means[1]:8.1f}" + "".join(f"{mean:8.2f}" for mean in means[2:])
    print(f"{name[:49]:50}{cells}{seconds:7.0f}", flush=True)


if __name__ == "__main__":
    main()
