"""Names of files in a data set folder.

000012/12345.prompts      the captions of a prompt (.prompts2, … after extensions: the newest)
000012/12345_3.jpg        augmentation 3 of prompt 12345; 0 is the original prompt itself
000012/12345_3.json       its metadata
000012/12345_3.failed     a sample given up, with its reason
000012/12345.samples      the JSONs of a finished prompt, one a line
000012/.12345_3.jpg.<lease>.tmp     a temporary file of that lease's holder
"""

import os
import re
from pathlib import Path

JPEG_QUALITY = 95  # of images, unless --jpeg_quality says otherwise; published: 75
FOLDER = 1000  # prompts a sub-folder: with 200 images a prompt that is 400,000 names
NUMBER = "(0|[1-9][0-9]{0,11})"  # as it is written: neither 007 nor Arabic digits
GENERATION = "(?:[2-9]|[1-9][0-9]{1,2})?"  # each is looked for, up to the newest one
NAME = re.compile(rf"{NUMBER}(?:_{NUMBER})?\.(jpg|json|failed|prompts{GENERATION}|samples)")
TEMPORARY = re.compile(rf"\.{NUMBER}[._].*\.tmp", re.DOTALL)


def folder_name(index: int) -> str:
    """The sub-folder of a prompt: "000012" for 12345."""
    return f"{index // FOLDER:06d}"


def stem(index: int, aug: int) -> str:
    """The name of a sample without its suffix: "12345_3"."""
    return f"{index}_{aug}"


def path_of(dataset_dir: str | os.PathLike[str], index: int, aug: int, suffix: str) -> Path:
    """The path of a sample's file; suffix ".jpg", ".json" or ".failed"."""
    return Path(f"{os.fspath(dataset_dir)}/{folder_name(index)}/{index}_{aug}{suffix}")


def has_samples(dataset_dir: str | os.PathLike[str]) -> bool:
    """Whether anything of a prompt lies in a data set folder: captions, an image, a tar."""
    return any(Path(dataset_dir).glob("[0-9]*/[0-9]*"))


def captions_path(dataset_dir: str | os.PathLike[str], index: int, generation: int = 1) -> Path:
    """The path of a prompt's captions: generation 1 is .prompts, 2 is .prompts2, …"""
    number = generation if generation > 1 else ""
    return Path(f"{os.fspath(dataset_dir)}/{folder_name(index)}/{index}.prompts{number}")


def collected_path(dataset_dir: str | os.PathLike[str], index: int) -> Path:
    """The path of the JSONs of a finished prompt in one file."""
    return Path(dataset_dir) / folder_name(index) / f"{index}.samples"
