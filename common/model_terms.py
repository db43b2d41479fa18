"""Licences of image models and LLMs, and what they ask of those who use the output.

terms_of_model("black-forest-labs/FLUX.1-dev").licence     # "FLUX.1 non-commercial"
terms_of_llm("gpt-4o-mini").notice                         # "OpenAI's terms forbid …"

Read on the models' cards and the providers' pages in 2026. They change. The notices are no legal
advice; `url` says where the terms are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelTerms:
    """The terms of some models.

    pattern: regular expression over a model's id on the hub, over the name of a local folder, and
    over the name of its row in generate's table of models. licence: its name in words. hub: its id
    on the hub ("other" for one without). notice: what it asks of who trains on what the model made
    or passes it on; None: nothing. url: where it stands.
    """

    pattern: str
    licence: str = "Apache-2.0"
    hub: str = "apache-2.0"
    notice: str | None = None
    url: str | None = None


SD3_NOTICE = (
    "the Stability AI Community License forbids to train a foundation model on images of this "
    "model, and asks a licence of who earns over 1 M USD a year; Apache-2.0 models without such a "
    "clause: FLUX.1-schnell, Z-Image-Turbo, Qwen-Image"
)
TURBO_NOTICE = (
    "SDXL-Turbo's licence is for non-commercial research, and counts a model that was trained on "
    "its images as derived from it; commercial use needs another licence of Stability AI"
)
FLUX_NOTICE = (
    "this FLUX model is for non-commercial use, and no model that competes with it may be trained "
    "on its images; FLUX.1-schnell and FLUX.2-klein-4B are Apache-2.0"
)
SANA_NOTICE = "NVIDIA's licence of SANA allows research only, and Gemma's terms hold too"
HUNYUAN_NOTICE = (
    "the Tencent Hunyuan Community License is not granted in the EU, the UK and South Korea, and "
    "forbids to train other models on the images"
)
STABILITY = "https://stability.ai/license"
FLUX = "https://huggingface.co/black-forest-labs"
HUNYUAN = "https://huggingface.co/tencent/HunyuanImage-2.1/blob/main/LICENSE"
NVIDIA = "https://huggingface.co/Efficient-Large-Model"

# The first row whose pattern is found is taken, so special cases come first.
IMAGE_MODELS = (
    ModelTerms(r"^tiny$", "Apache-2.0 (this project's own)"),
    ModelTerms(
        r"stable-diffusion-3|^sd3", "Stability AI Community License", "other", SD3_NOTICE, STABILITY
    ),
    ModelTerms(r"(?i)sdxl-turbo", "Stability AI, non-commercial", "other", TURBO_NOTICE, STABILITY),
    ModelTerms(r"(?i)stable-diffusion-xl|sdxl|pixart", "CreativeML Open RAIL++-M", "openrail++"),
    ModelTerms(
        r"(?i)stable-diffusion-(v)?1|^sd1\.5$", "CreativeML Open RAIL-M", "creativeml-openrail-m"
    ),
    ModelTerms(r"(?i)flux\.1-schnell|^flux-schnell$"),
    ModelTerms(r"(?i)flux\.1|^flux$", "FLUX.1 non-commercial", "other", FLUX_NOTICE, FLUX),
    ModelTerms(r"(?i)flux\.?2-klein-(base-)?4b"),
    ModelTerms(r"(?i)flux\.2|^flux2", "FLUX non-commercial", "other", FLUX_NOTICE, FLUX),
    ModelTerms(r"(?i)sana", "NVIDIA NSCL v2, Gemma terms", "other", SANA_NOTICE, NVIDIA),
    ModelTerms(r"(?i)hunyuanimage", "Tencent Hunyuan Community", "other", HUNYUAN_NOTICE, HUNYUAN),
    ModelTerms(r"(?i)hidream", "MIT, Llama 3.1 terms", "mit"),
    ModelTerms(r"(?i)kandinsky-?5", "MIT", "mit"),
    ModelTerms(
        r"(?i)qwen-image(?!-edit|-layered)|z-image|lumina-next|lumina-image-2|^lumina2?$|chroma"
        r"|cogview4|auraflow"
    ),
)

LLAMA_NOTICE = (
    "Llama's licence asks that a model trained on its texts has a name that begins with Llama, and "
    'that who passes it on shows "Built with Llama"'
)
OPENAI_NOTICE = "OpenAI's terms of use forbid to develop models that compete with it from its texts"
CLAUDE_NOTICE = "Anthropic's terms forbid to train competing models on its texts"
GEMINI_NOTICE = "Google's terms of the Gemini API forbid to develop competing models with it"
GEMMA_NOTICE = "Gemma's terms pass on its list of prohibited uses to models trained on its texts"
LLMS = (
    ModelTerms(r"(?i)smollm"),
    ModelTerms(
        r"(?i)llama",
        "Llama Community License",
        "other",
        LLAMA_NOTICE,
        "https://www.llama.com/llama-downloads",
    ),
    # Of Qwen2.5, 3B and 72B are under a licence of their own.
    ModelTerms(r"(?i)gpt-oss|qwen-?3|qwen-?2\.5(:latest|[:-](0\.5|1\.5|7|14|32)b|$)"),
    ModelTerms(r"(?i)granite|olmo|mixtral|mistral(:|$)|mistral-(7b|nemo|small-?3)"),
    ModelTerms(r"(?i)phi-?[34]|deepseek-(r1|v3)", "MIT", "mit"),
    ModelTerms(
        r"(?i)(^|/)(gpt-|chatgpt|o[134](-|$))",
        "OpenAI terms of use",
        "other",
        OPENAI_NOTICE,
        "https://openai.com/policies/terms-of-use",
    ),
    ModelTerms(
        r"(?i)claude",
        "Anthropic terms",
        "other",
        CLAUDE_NOTICE,
        "https://www.anthropic.com/legal/commercial-terms",
    ),
    ModelTerms(
        r"(?i)gemini", "Gemini API terms", "other", GEMINI_NOTICE, "https://ai.google.dev/terms"
    ),
    ModelTerms(
        r"(?i)gemma",
        "Gemma terms of use",
        "other",
        GEMMA_NOTICE,
        "https://ai.google.dev/gemma/terms",
    ),
)


def terms_of_model(name: str) -> ModelTerms | None:
    """The terms of an image model: a hub id, a folder, "tiny"; None where they are not known."""
    return _first(IMAGE_MODELS, name)


def terms_of_llm(name: str) -> ModelTerms | None:
    """The terms of an LLM's texts, by the name its backend gives it; None: not known."""
    return _first(LLMS, name)


def _first(rows: Sequence[ModelTerms], name: str) -> ModelTerms | None:
    return next((row for row in rows if re.search(row.pattern, name)), None)
