"""The five sources: where their files are and how these are read.

A sixth source needs a function here, its licence in common/terms.py, and a process_NAME.py script.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from combine_prompts import chat_debris
from combine_prompts.download import hub_files, web_file
from combine_prompts.processor import Job, Read, local_files, process
from combine_prompts.readers import gecko_prompts, json_prompts, parquet_column, sac_generations
from combine_prompts.revisions import Revisions, chosen

IMAGE_REWARD = ["metadata-train.parquet", "metadata-validation.parquet", "metadata-test.parquet"]
HPDV2 = ["anime.json", "concept-art.json", "paintings.json", "photo.json"]
HPDV2_SOURCES = {"photo.json": ["HPDv2", "COCO"]}  # CC-BY-4.0: attribution is required
DRAWBENCH = "drawbench.json"  # lies beside HPDv2's files and is a validation set of others
# not {validation,test}_unique: parts of these
PICKAPIC = ["data/train-0*.parquet", "data/validation-0*.parquet", "data/test-0*.parquet"]


def image_reward(args: Namespace) -> int:
    """ImageRewardDB's prompts, from its metadata; the images are not fetched."""
    if args.input:
        files, problems = local_files(args.input, IMAGE_REWARD)
    else:
        files, problems = _from_hub(args, "zai-org/ImageRewardDB", IMAGE_REWARD), []
    return process(_job(args, partial(parquet_column, column="prompt")), files, problems)


def pickscore(args: Namespace) -> int:
    """Pick-a-Pic's prompts, v1 and v2."""
    files: list[Path] = []
    problems: list[str] = []
    if args.input:
        files, problems = local_files(args.input, ["*.parquet"])
    else:
        for version in ("v1", "v2"):
            files += _from_hub(args, f"yuvalkirstain/pickapic_{version}_no_images", PICKAPIC)
    return process(_job(args, partial(parquet_column, column="caption")), files, problems)


def hpdv2(args: Namespace) -> int:
    """HPDv2's benchmark prompts; DrawBench, which lies beside them, is never read."""
    if args.input:
        found, problems = local_files(args.input, HPDV2)
        files = [path for path in found if path.name != DRAWBENCH]
        problems += [
            f"{path}: not read, DrawBench is a validation set"
            for path in found
            if path.name == DRAWBENCH
        ]
    else:
        names = [f"benchmark/{name}" for name in HPDV2]
        files, problems = _from_hub(args, "ymhao/HPDv2", names), []
    job = Job(args.output, args.ascii, json_prompts, chat_debris.repair, HPDV2_SOURCES)
    return process(job, files, problems)


def sac(args: Namespace) -> int:
    """The prompts of Simulacra Aesthetic Captions."""
    files, problems = _single_file(args, "sac", "*.sqlite", sac_generations)
    return process(_job(args, sac_generations), files, problems)


def gecko(args: Namespace) -> int:
    """Gecko's prompts, the validation set."""
    read = partial(gecko_prompts, reliable=args.reliable, trainable=args.trainable)
    files, problems = _single_file(args, "gecko", "prompts.csv", read)
    return process(_job(args, read), files, problems)


def _from_hub(args: Namespace, repo: str, patterns: Sequence[str]) -> list[Path]:
    """The files of one commit, which is noted beside the output."""
    notes = Revisions(args.output.parent)
    files, commit = hub_files(repo, patterns, notes.chosen(repo, args.revision))
    notes.note(repo, commit)
    return files


def _single_file(
    args: Namespace, source: str, pattern: str, read: Read
) -> tuple[list[Path], list[str]]:
    if args.input:
        return local_files(args.input, [pattern])
    return [web_file(args.url.replace("{revision}", chosen(source, args.revision)), read)], []


def _job(args: Namespace, read: Read) -> Job:
    return Job(args.output, args.ascii, read)
