"""The estimate of a run: images, files, disk space, GPU hours, LLM calls and their cost.

print("\n".join(estimate(args, definition, items, output_root, fetch(output_root))))
"""

import contextlib
import stat
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from common.console import INDENT, amount, duration
from common.files import SMALL
from common.json_text import parse_json
from common.packed_folder import EARLY_FILES
from common.untrusted import IMAGE_BYTES, read_untrusted
from generate.dataset.definition import stored_definition
from generate.dataset.layout import FOLDER
from generate.dataset.mapped_prompts import without_variations
from generate.dataset.prompts_file import Item
from generate.image_models import model_recipes
from generate.image_models.weights import stored_gib
from generate.launch import task_memory
from generate.launch.acceptance import by_origin, cost_line, draws_of
from generate.launch.disk_limits import disk_limits
from generate.launch.finished import images_there
from generate.launch.status import Answer
from generate.llms.backends_file import BackendsFile
from generate.protocol.output_root import dataset_folder, server_folder
from generate.server.storage.blocks import OPEN_BLOCKS

# Assumed until something was measured.
JPEG_BYTES_A_PIXEL = 0.4
JSON_BYTES = 1500
TOKENS_A_CALL = 340
TOKENS_A_VARIATION = 40
VARIATIONS_A_CALL = 10
PACKING = "postprocess_dataset/pack_finished_folders.py --watch 300"
PROMPTS_OF_WORKER = 8  # not packed: two leases' beginnings, and what five minutes have finished
SPARE_SHARE = 4  # a task for every so many that run at a time


def estimate(
    args: Namespace,
    definition: dict[str, Any],
    items: Sequence[Item],
    output_root: Path,
    answer: Answer,
) -> list[str]:
    """The estimate, as lines. answer: of the job server; what it has counted is subtracted."""
    stored = answer.dataset(definition["name"])
    per_prompt = definition["images_per_prompt"]
    prompts = definition["total"]
    there = stored["images"] if stored else 0
    if not stored and not args.use_slurm:  # of a run here; a cluster's may take long to count
        there = images_there(output_root, definition["name"])
    images = prompts * per_prompt - there
    already = f" ({there:,} more are there)" if there else ""
    lines = [f"estimate   {images:,} images{already}: {prompts:,} prompts x {per_prompt}"]
    lines += _disk(args, definition, output_root, images)
    share, where = _accepted_share(definition, output_root, stored)
    lines.append(
        INDENT + _hours(args, definition, output_root, answer, _drawn(images, definition, share))
    )
    if share is not None:
        lines.append(INDENT + cost_line(share, definition["max_tries"], where))
        if stored and (said := by_origin(stored, "llm")):
            lines.append(f"{INDENT}accepted by LLM: {said}")
    elif definition.get("accept"):
        lines.append(f"{INDENT}how many images are accepted is not known yet: --preview 8 says")
    if args.use_slurm:
        lines.append(INDENT + _tasks(args, prompts))
    lines.append(INDENT + _llm_calls(args, definition, items, answer))
    family = model_recipes.family_of(definition["model"])
    if args.use_slurm:
        by_files = stored_gib(definition["model"], definition.get("model_commit"), family.dtype)
        if line := task_memory.note(args.mem, by_files[0] if by_files else family.weights_gib):
            lines.append(INDENT + line)
    notice = family.notice
    return lines + ([f"{INDENT}note on the model: {notice}"] if notice else [])


# ---------------------------------------------------------------- disk


def _disk(args: Namespace, definition: dict[str, Any], output_root: Path, images: int) -> list[str]:
    folder = dataset_folder(output_root, definition["name"])
    sizes = list(islice(_image_sizes(folder, definition), 50))
    assumed = JPEG_BYTES_A_PIXEL * definition["height"] * definition["width"]
    size = sum(sizes) / len(sizes) if sizes else assumed
    of_prompts = 2 if definition["images_per_prompt"] > 1 else 1  # .prompts, .samples
    files = 2 * images + of_prompts * definition["total"]
    total = images * (size + JSON_BYTES)
    basis = "measured" if sizes else "assumed"
    lines = [f"{INDENT}{files:,} files, {amount(total)} ({amount(size)} an image, {basis})"]
    for name, bytes_left, files_left in disk_limits(output_root):
        left = [] if bytes_left is None else [amount(bytes_left)]
        left += [] if files_left is None else [f"{files_left:,} files"]
        too_few_bytes = bytes_left is not None and bytes_left < total
        too_few_files = files_left is not None and files_left < files
        warning = "TOO LITTLE: " if too_few_bytes or too_few_files else ""
        with_packing = ""
        tight = packed_files(definition, args.num_workers)
        if too_few_files and not too_few_bytes and files_left is not None and tight < files_left:
            warning = ""
            with_packing = f": fits with packing, some {tight:,} files at a time ({PACKING})"
        if left:
            lines.append(f"{INDENT}{warning}{name} leaves {' and '.join(left)}{with_packing}")
    return lines


def _image_sizes(folder: Path, definition: dict[str, Any]) -> Iterator[int]:
    """Bytes of the data set's images, unless they were begun with another model or size."""
    stored: dict[str, Any] = {}
    with contextlib.suppress(ValueError):  # a damaged one says nothing
        stored = stored_definition(folder) or {}
    keys = ("model", "height", "width")
    if all(stored.get(key, definition.get(key)) == definition.get(key) for key in keys):
        for path in folder.glob("*/*.jpg"):
            try:
                found = path.lstat()
            except OSError:
                continue  # another process has just taken it away
            if stat.S_ISREG(found.st_mode) and found.st_size <= IMAGE_BYTES:
                yield found.st_size


def packed_files(definition: dict[str, Any], workers: int) -> int:
    """The most files at a time while finished prompts are packed, as docs/postprocessing.md counts.

    Each open folder holds some that are not packed yet, each worker some that it makes or has just
    made; and there are tars and marks.
    """
    total: int = definition["total"]
    images: int = definition["images_per_prompt"]
    folders = -(-total // FOLDER)
    of_prompt = 2 * images + 2
    loose = min(folders, OPEN_BLOCKS) * min(EARLY_FILES, FOLDER * of_prompt)
    tars = total * of_prompt // EARLY_FILES
    return loose + workers * PROMPTS_OF_WORKER * of_prompt + tars + 3 * folders


# ---------------------------------------------------------------- GPU hours


def _hours(
    args: Namespace, definition: dict[str, Any], output_root: Path, answer: Answer, images: int
) -> str:
    rate, where = _measured_rate(definition, output_root, answer)
    if not rate:
        return "how long is not known yet: --preview 8 draws eight prompts and measures it"
    hours = images / rate
    wall = duration(3600 * hours / args.num_workers)
    workers = f"{args.num_workers} worker{'s' * (args.num_workers > 1)}"
    machine = f"{hours:,.0f} GPU hours" if hours >= 2 else f"{duration(3600 * hours)} of one worker"
    return f"{machine} at {rate:,.0f} images an hour ({where}), {wall} with {workers}"


def _accepted_share(
    definition: dict[str, Any], output_root: Path, stored: dict[str, Any] | None
) -> tuple[float | None, str]:
    """Share of the images that are accepted, and where that was seen; (None, "") if unknown.

    This run counts, else the last preview of the same model, scores and expression.
    """
    if not definition.get("accept"):
        return None, ""
    here = (stored or {}).get("acceptance")
    if here and here["share"] is not None and here["accept"] == definition["accept"]:
        return here["share"], "in this run"
    keys = ("model", "height", "width", "num_inference_steps", "accept", "scores")
    for row in reversed(_measurements(server_folder(output_root) / "measured.jsonl")):
        share = row.get("accepted_share")
        if isinstance(share, int | float) and all(row.get(k) == definition.get(k) for k in keys):
            return float(share), "in --preview"
    return None, ""


def _drawn(images: int, definition: dict[str, Any], share: float | None) -> int:
    """How many images are drawn for so many captions."""
    if share is None:
        return images
    return round(images * draws_of(share, definition["max_tries"])[0])


def _measured_rate(
    definition: dict[str, Any], output_root: Path, answer: Answer
) -> tuple[float | None, str]:
    """Images an hour of one worker, and where that was seen; (None, "") if nowhere.

    This run counts, else the last preview of the same model, size and number of steps.
    """
    stored = answer.dataset(definition["name"])
    states = answer.document["workers"]["by_state"] if answer.document else {}
    if stored and stored["images_per_hour"] and states.get("drawing"):
        # what this run counts are the images that were accepted
        accepted = ((stored.get("acceptance") or {}).get("share")) or 1
        rate = stored["images_per_hour"] / states["drawing"] / accepted
        return rate, "a worker of this run, now"
    keys = ("model", "height", "width", "num_inference_steps")
    rows = [
        row
        for row in _measurements(server_folder(output_root) / "measured.jsonl")
        if all(row.get(key) == definition.get(key) for key in keys)
    ]
    if not rows:
        return None, ""
    where = rows[-1].get("gpu_name") or "the CPU"
    return rows[-1]["images_per_hour"], f"--preview on {where}, without LLMs and disk"


def _measurements(path: Path) -> list[dict[str, Any]]:
    """The rows that previews have left; a line that cannot be read is none."""
    try:
        lines = read_untrusted(path, SMALL).decode(errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("images_per_hour"), int | float):
            rows.append(row)
    return [row for row in rows if row["images_per_hour"] > 0]


def _tasks(args: Namespace, prompts: int) -> str:
    """A note on spare tasks: one that fails is replaced by one that has not started yet."""
    tasks = args.num_chunks or args.num_workers
    if tasks > 2 * prompts:
        return f"{tasks:,} tasks for {prompts:,} prompts: most find nothing; --num_chunks {prompts}"
    spare = tasks - args.num_workers
    if spare > 0:
        return f"{tasks:,} tasks, {args.num_workers:,} of them at a time: {spare:,} are spare"
    wanted = args.num_workers + max(1, args.num_workers // SPARE_SHARE)
    return f"no task is spare: if one fails, nobody takes its place; --num_chunks {wanted} helps"


# ---------------------------------------------------------------- LLMs


def _llm_calls(
    args: Namespace, definition: dict[str, Any], items: Sequence[Item], answer: Answer
) -> str:
    wanted = definition["images_per_prompt"] // (definition.get("images_per_text") or 1) - 1
    asking = without_variations(items)
    if not definition["augment_prompts"] or not asking or wanted < 1:
        return "no LLM is asked"
    calls = asking * -(-wanted // VARIATIONS_A_CALL)
    llm = (answer.document or {}).get("llm") or {}
    asked: float = calls * TOKENS_A_CALL
    answered: float = asking * wanted * TOKENS_A_VARIATION
    basis = "assumed"
    if llm.get("calls"):
        asked = calls * llm["prompt_tokens"] / llm["calls"]
        answered = calls * llm["completion_tokens"] / llm["calls"]
        basis = "measured"
    return (
        f"{calls:,} LLM calls, {_tokens(asked, answered)} (asked + answered, {basis})"
        f"{_cost(args, asked, answered)}"
    )


def _tokens(asked: float, answered: float) -> str:
    if asked + answered < 1e6:
        return f"{asked:,.0f} + {answered:,.0f} tokens"
    return f"{asked / 1e6:,.1f} + {answered / 1e6:,.1f} million tokens"


def _cost(args: Namespace, asked: float, answered: float) -> str:
    """What those tokens cost at most: on the most expensive backend, and within the budget."""
    if args.llm or args.llm_budget_usd <= 0:
        return ", free of charge (paid backends are off)"
    configs = BackendsFile(args.llm_backends, args.ollama_hosts).configs()
    dearest = max((config.usd_of(asked, answered) for config in configs), default=0.0)
    cap = args.llm_budget_usd
    capped = f", capped at --llm_budget_usd {cap:g}" if dearest > cap else ""
    return f", USD {dearest:,.2f} if paid backends took them all{capped}"
