"""Under which terms the sources' prompts stand: combine.py copies them into its report."""

from typing import TypedDict


class Terms(TypedDict, total=False):
    """What a source's users must know; all but the name may be missing."""

    name: str
    licence: str
    home: str
    note: str
    citation: str


TERMS: dict[str, Terms] = {  # by the name of the prompts file
    "image_reward": {
        "name": "ImageRewardDB",
        "licence": "Apache-2.0",
        "home": "https://huggingface.co/datasets/zai-org/ImageRewardDB",
        "note": "prompts sampled from DiffusionDB (CC0-1.0)",
        "citation": "Xu et al., ImageReward: Learning and Evaluating Human Preferences for "
        "Text-to-Image Generation, NeurIPS 2023, arXiv:2304.05977",
    },
    "sac": {
        "name": "Simulacra Aesthetic Captions",
        "licence": "CC0-1.0",
        "home": "https://github.com/JD-P/simulacra-aesthetic-captions",
        "note": "",
        "citation": "Pressman, Crowson and Simulacra Captions Contributors, Simulacra Aesthetic "
        "Captions, Stability AI, 2022",
    },
    "pickscore": {
        "name": "Pick-a-Pic v1 and v2",
        "licence": "none stated on the cards (the code is MIT)",
        "home": "https://huggingface.co/datasets/yuvalkirstain/pickapic_v2_no_images",
        "note": "whether the texts may be passed on is unclear: process them at run time, do not "
        "publish the file; holds prompts unfit for work",
        "citation": "Kirstain et al., Pick-a-Pic: An Open Dataset of User Preferences for "
        "Text-to-Image Generation, NeurIPS 2023, arXiv:2305.01569",
    },
    "HPDv2": {
        "name": "Human Preference Dataset v2, benchmark prompts",
        "licence": "Apache-2.0",
        "home": "https://huggingface.co/datasets/ymhao/HPDv2",
        "note": "DiffusionDB prompts rewritten by ChatGPT, and COCO captions (CC-BY-4.0)",
        "citation": "Wu et al., Human Preference Score v2, 2023, arXiv:2306.09341",
    },
    "gecko": {
        "name": "Gecko benchmark",
        "licence": "CC-BY-4.0",
        "home": "https://github.com/google-deepmind/gecko_benchmark_t2i",
        "note": "a validation set: keep it out of training; its posescript rows are "
        "CC-BY-NC-SA-4.0, its whoops rows must not be trained on (--trainable leaves both out)",
        "citation": "Wiles et al., Revisiting Text-to-Image Evaluation with Gecko, ICLR 2025, "
        "arXiv:2404.16820",
    },
}

UNKNOWN = "not known to this program: state it on the data set card"


def terms_of(name: str) -> Terms:
    """The terms of a source, by the name of its prompts file."""
    return TERMS.get(name, {"name": name, "licence": UNKNOWN})
