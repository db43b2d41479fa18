"""Gather what a report shows, from a table, its images and the files beside it.

report = gather(ReportSettings("HPDv2.parquet", "report.html"))
"""

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.definition_files import definition_files
from common.files import parse_yaml
from common.scores.histogram import Histogram, histogram
from common.untrusted import DEFINITION_BYTES, read_untrusted
from postprocess_dataset import increment, table
from postprocess_dataset.private_fields import without_folders
from postprocess_dataset.report import texts
from postprocess_dataset.report.costs import Costs, costs_of, read_status
from postprocess_dataset.report.pictures import Pictures, alike
from postprocess_dataset.report.rows import Prompt, Row, Seen, look
from postprocess_dataset.report.scores import accepted_share, histograms
from postprocess_dataset.row_filter import RowFilter
from postprocess_dataset.shard_images import Images, check_folders
from postprocess_dataset.shard_rows import KEY

PROMPTS = 10  # shown with their variations
VARIATIONS = 6  # shown of each
OF_GROUP = 8  # pictures of a source, an LLM, a model
GROUPS = 12  # shown of each kind; the rest are counted together
COMPARED = 600  # images that are compared for near duplicates
ALIKE_SHOWN = 6


@dataclass(frozen=True)
class ReportSettings:
    """What make_report.py was asked for; see its --help."""

    table: str
    output: str
    base_dir: str = ""  # default: what the table says
    image_dirs: Sequence[str] = ()
    status: str = ""
    name: str = ""
    where: RowFilter | None = None  # only the rows that it takes


@dataclass(frozen=True)
class Shown:
    """A picture with the text under it; `uri` None: the image could not be read."""

    caption: str
    note: str
    uri: str | None
    size: tuple[int, int]


@dataclass(frozen=True)
class Strip:
    """A prompt: its original's picture, if there is one, then some of its variations."""

    original: str
    pictures: list[Shown]
    count: int


@dataclass(frozen=True)
class Group:
    """The rows of one source, LLM or model. share: of the rows that were counted."""

    name: str
    count: int
    share: float
    words: float | None
    keeps: float | None
    differs: float | None
    pictures: list[Shown]


@dataclass
class Report:
    """What the page shows; see page.html."""

    name: str
    seen: Seen
    costs: Costs
    strips: list[Strip] = field(default_factory=list)
    groups: dict[str, list[Group]] = field(default_factory=dict)
    sizes: list[tuple[str, int, float]] = field(default_factory=list)
    lengths: Histogram | None = None
    cut: int = 0  # captions that a text encoder has not read to the end, of those that were read
    unread: int = 0  # of them, captions that no text encoder has read to the end
    scores: list[Histogram] = field(default_factory=list)
    accepted: float | None = None
    compared: int = 0
    near_copies: list[tuple[Shown, Shown]] = field(default_factory=list)
    near_copy_count: int = 0
    mean_bytes: float | None = None
    left_out: list[tuple[str, int]] = field(default_factory=list)
    definition: dict[str, Any] = field(default_factory=dict)
    unread_images: Sequence[str] = ()  # their keys


def gather(settings: ReportSettings) -> Report:
    """Read the table and some images. UserError: there is no table, or none of its images."""
    files = table.files(settings.table)
    base = settings.base_dir or (table.facts(settings.table) or {}).get("base", "")
    if not base:
        raise UserError(f"{settings.table} does not say where its images lie: give --base_dir")
    check_folders([base, *settings.image_dirs])
    if settings.where:
        settings.where.check(files)
    seen = look(files, where=settings.where)
    status = read_status(settings.status) if settings.status else None
    name = settings.name or os.path.basename(settings.table.rstrip("/")).removesuffix(".parquet")
    report = Report(name, seen, costs_of(seen, status))
    pictures = Pictures(Images(base, settings.image_dirs))
    report.definition = definition_of(base, seen)
    report.left_out = left_out(settings.table, status)
    if settings.where:
        refused = sum(table.footer(path).num_rows for path in files) - seen.rows
        report.left_out.append((f"refused by --where {settings.where.text}", refused))
    report.sizes = sizes(seen)
    rows = seen.texts()
    report.lengths = lengths(rows)
    report.scores = histograms(rows)
    report.accepted = accepted_share(rows)
    report.cut, report.unread = cut_texts(rows)
    report.strips = strips(seen, pictures)
    report.groups = {
        "Sources": groups(seen, "source", pictures),
        "Who wrote the caption": groups(seen, "llm_model_name", pictures),
        "Image models": groups(seen, "model_name", pictures),
    }
    near_duplicates(report, pictures)
    report.unread_images = sorted(pictures.unread)
    if not any(shown.uri for strip in report.strips for shown in strip.pictures):
        raise UserError(f"none of the images that were looked for lies below {base}: --base_dir?")
    return report


def strips(seen: Seen, pictures: Pictures) -> list[Strip]:
    """Prompts of all sources in turn, those with variations first.

    If several LLMs wrote captions, each caption is shown with its LLM.
    """
    prompts = seen.prompts
    several = len(seen.counts.get("llm_model_name", {}).keys() - {None}) > 1
    chance = random.Random(1)
    by_source: dict[str, list[Prompt]] = {}
    for prompt in chance.sample(prompts, len(prompts)):
        sources = "+".join(map(str, prompt.rows[0].get("source") or []))
        by_source.setdefault(sources, []).append(prompt)
    for some in by_source.values():
        some.sort(key=lambda prompt: not prompt.variations)
    in_turn = [
        some[place] for place in range(PROMPTS) for some in by_source.values() if place < len(some)
    ]
    found = []
    for prompt in in_turn[:PROMPTS]:
        originals = [row for row in prompt.rows if not row.get("is_augmented")][:1]
        varied = [row for row in prompt.rows if row.get("is_augmented")] or prompt.rows[1:]
        varied = chance.sample(varied, min(VARIATIONS, len(varied)))
        pictured = [
            shown(row, pictures, several or row in originals) for row in (*originals, *varied)
        ]
        found.append(Strip(prompt.original, pictured, len(prompt.rows)))
    return found


def shown(row: Row, pictures: Pictures, noted: bool = False) -> Shown:
    """A row's picture, to be shown; noted: with the LLM that wrote its caption."""
    picture = pictures.take(row)
    note = (row.get("llm_model_name") or "the prompt itself") if noted else ""
    uri = picture.uri if picture else None
    return Shown(row["caption"], note, uri, picture.size if picture else (1, 1))


def groups(seen: Seen, column: str, pictures: Pictures) -> list[Group]:
    """The most frequent values of a column, with measures of their texts and some pictures."""
    counts = seen.counts.get(column, Counter())
    found = []
    for value, count in counts.most_common(GROUPS):
        name = without_folders(value if value is not None else "the prompt itself")
        found.append(_group(seen, column, value, (str(name), count), pictures))
    rest = counts.total() - sum(group.count for group in found)
    if rest:
        more = f"{len(counts) - GROUPS} others"
        found.append(Group(more, rest, rest / seen.counted, None, None, None, []))
    return found


def _group(
    seen: Seen, column: str, value: Any, shown_name: tuple[str, int], pictures: Pictures
) -> Group:
    def belongs(row: Row) -> bool:
        own = row.get(column)
        return value in own if isinstance(own, list) else own == value

    chosen = [(prompt, row) for prompt in seen.prompts for row in prompt.rows if belongs(row)]
    by_prompt: dict[str, list[str]] = {}
    for prompt, row in chosen:
        if row.get("is_augmented"):
            by_prompt.setdefault(prompt.original, []).append(row["caption"])
    kept: list[float | None] = []
    differ: list[float | None] = []
    for original, captions in by_prompt.items():
        kept += [texts.keeps(original, caption) for caption in captions]
        differ.append(texts.differs(captions))
    some = random.Random(2).sample(chosen, min(OF_GROUP, len(chosen)))
    name, count = shown_name
    return Group(
        name,
        count,
        count / seen.counted,
        texts.mean([texts.words(row["caption"]) for _, row in chosen]),
        texts.mean(kept),
        texts.mean(differ),
        [shown(row, pictures) for _, row in some],
    )


def sizes(seen: Seen) -> list[tuple[str, int, float]]:
    """(width x height, images, share) of the most frequent sizes."""
    return [
        (f"{width} × {height}", count, count / seen.counted)  # noqa: RUF001
        for (width, height), count in seen.sizes.most_common(GROUPS)
    ]


def lengths(rows: Sequence[Row]) -> Histogram | None:
    """Words of a caption."""
    return histogram("words", [texts.words(row["caption"]) for row in rows]) if rows else None


def cut_texts(rows: Sequence[Row]) -> tuple[int, int]:
    """(captions that a text encoder has not read to the end, those that none has)."""
    cut = [row for row in rows if row.get("truncated") and isinstance(row["truncated"], list)]
    read = [row.get("text_tokens") for row in cut]
    encoders = [len(tokens) if isinstance(tokens, list) else 0 for tokens in read]
    return len(cut), sum(
        len(row["truncated"]) == count for row, count in zip(cut, encoders, strict=True)
    )


def near_duplicates(report: Report, pictures: Pictures) -> None:
    """Compare up to COMPARED images: those of whole prompts, where copies are most likely."""
    rows: list[Row] = []
    for prompt in random.Random(3).sample(report.seen.prompts, len(report.seen.prompts)):
        if len(rows) >= COMPARED:
            break
        rows += prompt.rows[: COMPARED // 8]
    taken = [(row, found) for row in rows[:COMPARED] if (found := pictures.print_of(row))]
    pairs = alike([found for _, found in taken])
    report.compared = len(taken)
    report.near_copy_count = len({place for pair in pairs for place in pair})
    report.near_copies = [
        (shown(taken[first][0], pictures), shown(taken[second][0], pictures))
        for first, second in random.Random(4).sample(pairs, min(ALIKE_SHOWN, len(pairs)))
    ]
    report.mean_bytes = texts.mean([found.file_bytes for _, found in taken])


def left_out(path: str, status: dict[str, Any] | None) -> list[tuple[str, int]]:
    """(why, how many) of what is not in the table, by the lists beside it and the status."""
    path = path.rstrip("/")
    counts: Counter[str] = Counter()
    for line in increment.load_lines(f"{path}.rejects.jsonl", "reason"):
        counts[line["reason"].split(":")[0].split(" is ")[0]] += 1
    gone = len(increment.load_lines(f"{path}.gone.jsonl", KEY))
    if gone:
        counts["its files were deleted after they were listed"] = gone
    for dataset in (status or {}).get("datasets", ()):
        if failed := dataset.get("set_aside"):
            counts[f"prompts of {dataset.get('name')} that failed again and again"] = failed
    return counts.most_common()


def definition_of(base: str, seen: Seen) -> dict[str, Any]:
    """The newest dataset.yaml of the first sample's data set; {} where there is none."""
    name = seen.texts()[0][KEY].split("/")[0]
    if name in (".", ".."):
        return {}
    path = Path(base, name)
    try:
        if not (found := definition_files(path)):
            return {}
        path = found[-1][1]
        loaded = parse_yaml(read_untrusted(path, DEFINITION_BYTES))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return loaded if isinstance(loaded, dict) else {}
