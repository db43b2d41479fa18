"""llm_prompting.py FILE --report: how diverse and how faithful the variations are.

status = report(args)

FILE is a prompts file with variations, or the folder of a data set with its .prompts files. The
table goes to standard output, a plot to FILE.variations.svg beside it.
"""

import argparse
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.command_line import DONE, UserError
from common.console import visible
from common.files import write_whole
from common.json_text import parse_json
from generate.dataset.captions import read_captions
from generate.dataset.prompts_file import find_prompts, read_prompts
from generate.dataset.scan import scan_folder
from generate.llms.diversity import Diversity, measure
from generate.llms.scatter import Dot, scatter

BLOCK = re.compile(r"\d{6,9}", re.ASCII)  # a sub-folder of 1,000 prompts
SHOWN = 10  # prompts in the table: those with the lowest Vendi score for their number of texts
WIDTH = 48  # characters of a prompt in the table
UNKNOWN = "(not recorded)"
HEADER = ("texts", "Vendi", "distinct-2", "nearest", "to original")


@dataclass(frozen=True)
class Varied:
    """A prompt, its variations, and which LLM wrote each."""

    prompt: str
    texts: list[str]
    llms: list[str]


def report(args: argparse.Namespace) -> int:
    """Print the table and write the plot."""
    path = Path(args.prompts_file)
    if not path.is_dir():
        path = find_prompts(path)
    varied = list(_of_folder(path) if path.is_dir() else _of_file(path))
    if not varied:
        raise UserError(f"{path} holds no variations; make some with --output FILE")
    figures = [measure(each.prompt, each.texts) for each in varied]
    print(*table(varied, figures), sep="\n")
    plot = path.with_name(f"{path.name}.variations.svg")
    dots = [
        Dot(figure.fidelity, figure.vendi, statistics.mode(each.llms), visible(each.prompt, 200))
        for each, figure in zip(varied, figures, strict=True)
    ]
    try:
        write_whole(plot, scatter(dots, ("mean cosine to the original", "Vendi score")))
    except OSError as error:
        raise UserError(f"cannot write {plot}: {error.strerror}") from None
    print(f"\nplot: {plot}")
    return DONE


def table(varied: list[Varied], figures: list[Diversity]) -> list[str]:
    """The lines: the least varied prompts, then the mean of all, then by LLM."""
    both = list(zip(varied, figures, strict=True))
    both.sort(key=lambda pair: pair[1].vendi / pair[1].texts)
    lines = [_row("least varied prompts", HEADER)]
    lines += [_line(each.prompt, [figure]) for each, figure in both[:SHOWN]]
    lines += ["", _row("mean over prompts", HEADER), _line(f"all {len(both):,} prompts", figures)]
    lines += [_line(name, own) for name, own in sorted(_by_llm(varied).items())]
    return lines


def _by_llm(varied: list[Varied]) -> dict[str, list[Diversity]]:
    """The figures of each LLM's own texts, prompt by prompt."""
    figures: dict[str, list[Diversity]] = defaultdict(list)
    for each in varied:
        own: dict[str, list[str]] = defaultdict(list)
        for text, llm in zip(each.texts, each.llms, strict=True):
            own[llm].append(text)
        for llm, texts in own.items():
            figures[llm].append(measure(each.prompt, texts))
    return figures


def _line(name: str, figures: list[Diversity]) -> str:
    mean = statistics.fmean
    return _row(
        name,
        (
            f"{sum(figure.texts for figure in figures):,}",
            f"{mean(figure.vendi for figure in figures):.1f}",
            f"{mean(figure.distinct_2 for figure in figures):.2f}",
            f"{mean(figure.nearest for figure in figures):.2f}",
            f"{mean(figure.fidelity for figure in figures):.2f}",
        ),
    )


def _row(name: str, cells: tuple[str, ...]) -> str:
    shown = visible(name, WIDTH - 1)
    return f"{shown:{WIDTH}}" + "".join(f"{cell:>12}" for cell in cells)


def _of_file(path: Path) -> Iterator[Varied]:
    """The prompts of a file that have variations; whole_file.py notes who wrote them."""
    items = read_prompts(path)
    details: list[Any] = [None] * len(items)
    if path.suffix.lower() not in (".txt", ".jsonl", ".parquet"):  # as prompts_file.py tells them
        details = parse_json(path.read_bytes())
    for item, raw in zip(items, details, strict=True):
        texts = item.get("variations")
        if texts:
            noted = raw.get("variation_details") if isinstance(raw, dict) else None
            yield Varied(item["prompt"], texts, _llms(noted, len(texts)))


def _of_folder(folder: Path) -> Iterator[Varied]:
    """The prompts of a data set, of its .prompts files, loose or packed. A broken one is named."""
    blocks = sorted(int(path.name) for path in folder.iterdir() if BLOCK.fullmatch(path.name))
    for block in blocks:
        for index, files in sorted(scan_folder(folder, block).items()):
            record = read_captions(folder, index) if files.generation else None
            if record is None:
                if files.generation:
                    where = f"{folder}: the .prompts of prompt {index}"
                    print(f"{where} is torn, or of another one: left out", file=sys.stderr)
                continue
            texts = record["texts"][1:]
            if texts:
                written = [text["text"] for text in texts]
                yield Varied(record["original_prompt"], written, _llms(texts, len(written)))


def _llms(details: Any, n: int) -> list[str]:
    if not isinstance(details, list) or len(details) != n:
        return [UNKNOWN] * n
    names = [each.get("llm_model_name") if isinstance(each, dict) else None for each in details]
    return [str(name) if name else UNKNOWN for name in names]
