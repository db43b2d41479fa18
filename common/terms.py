"""Licences and citations of the prompt sources. combine.py copies them into its report.

Models, which have terms of their own, are in model_terms.py.

licences = Licences.of(["mine=CC0-1.0"])
licences.terms_of("sac")["licence"], licences.allow(["pickscore", "mine"])    # ("CC0-1.0", True)
"""

import os
from collections.abc import Iterable, Mapping
from typing import TypedDict

from common.command_line import UserError


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
        "note": "the three art styles are DiffusionDB prompts rewritten by ChatGPT, whose terms "
        "of use restrict training models that compete with it; the photo prompts are COCO captions",
        "citation": "Wu et al., Human Preference Score v2, 2023, arXiv:2306.09341",
    },
    "COCO": {
        "name": "Microsoft COCO captions (the photo prompts of HPDv2)",
        "licence": "CC-BY-4.0",
        "home": "https://cocodataset.org",
        "note": "attribution is required where these prompts are passed on",
        "citation": "Chen et al., Microsoft COCO Captions: Data Collection and Evaluation Server, "
        "2015, arXiv:1504.00325",
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

SUFFIXES = (".json", ".jsonl", ".parquet", ".txt")
UNKNOWN = "not known to this program: state it with --licence NAME=LICENCE"
UNSTATED = "none stated"  # how a licence begins that the source does not state


def source_of(prompts_file: str) -> str:
    """The source of prompts that name none: their file's name, without its ending."""
    stem, suffix = os.path.splitext(prompts_file)
    return stem if suffix in SUFFIXES else prompts_file


class Licences:
    """The terms of all sources: those known here, and what the user states of others."""

    def __init__(self, stated: Mapping[str, str]) -> None:
        self.stated = dict(stated)

    @classmethod
    def of(cls, options: Iterable[str]) -> "Licences":
        """From `NAME=LICENCE` words. UserError: a word is none."""
        stated = {}
        for option in options:
            name, sign, licence = option.partition("=")
            if not (name and sign and licence.strip()):
                raise UserError(f"--licence {option!r}: write NAME=LICENCE, like mine=CC0-1.0")
            if licence.strip() == "LICENCE":
                raise UserError(f"--licence {option}: put the licence itself there, like CC0-1.0")
            stated[source_of(name)] = licence.strip()
        return cls(stated)

    def terms_of(self, name: str) -> Terms:
        """The terms of a source, by the name of its prompts file."""
        terms = TERMS.get(name, Terms(name=name, licence=UNKNOWN))
        if name in self.stated:
            return {**terms, "licence": self.stated[name]}
        return terms

    def allow(self, sources: Iterable[str]) -> bool:
        """Whether a prompt may be published: one of its sources states a licence."""
        licences = (self.terms_of(source)["licence"] for source in sources)
        return any(not each.startswith(UNSTATED) and each != UNKNOWN for each in licences)
