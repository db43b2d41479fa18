"""The card of a release: README.md with the hub's YAML and a datasheet, ATTRIBUTION.md, Croissant.

    make_card(CardSettings("release/HPDv2", about="about.yaml"))

Everything that can be read from the release is counted. What only its author knows comes from a
file; what is missing there is listed.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.console import INDENT, visible
from common.console import in_markdown as cell
from common.terms import Licences
from common.version import version
from postprocess_dataset.hub_features import yaml_features
from postprocess_dataset.own_files import CARD, refuse_others
from postprocess_dataset.progress import tell
from postprocess_dataset.publish import publish_text
from postprocess_dataset.release_card.about import About, read_about
from postprocess_dataset.release_card.columns import holds, kind_of
from postprocess_dataset.release_card.croissant import croissant
from postprocess_dataset.release_card.facts import Facts, read_facts
from postprocess_dataset.release_card.licences import OTHER, RolledUp, roll_up
from postprocess_dataset.release_card.strip import draw_strip
from postprocess_dataset.shard_names import braces

HERE = Path(__file__).resolve().parent
TAGS = ["text-to-image", "image-generation", "synthetic", "captions"]
SHOWN = 12  # values of a setting
SETTINGS = {
    "model_name": "image model",
    "model_commit": "its revision",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "negative_prompt": "negative prompt",
    "scheduler": "scheduler",
    "dtype": "precision",
    "quantize": "quantization",
    "jpeg_quality": "JPEG quality",
    "version": "version of the project",
}
Json = dict[str, Any]


@dataclass(frozen=True)
class CardSettings:
    """release: the folder. allowed: what the verification found and is published all the same."""

    release: str
    about: str = ""
    licences: Sequence[str] = ()  # NAME=LICENCE
    allowed: Sequence[str] = ()
    combined: bool = False  # combine.py has made the prompts file


def make_card(settings: CardSettings) -> None:
    """Write README.md, ATTRIBUTION.md and croissant.json into the release folder.

    UserError: one of these is there and is not ours; then nothing is written.
    """
    refuse_others(settings.release, CARD)
    about = read_about(settings.about)
    facts = read_facts(settings.release)
    rolled = roll_up(facts, Licences.of(settings.licences))
    words = words_of(facts, about, rolled)
    folder = settings.release
    publish_text(os.path.join(folder, "ATTRIBUTION.md"), attribution(rolled))
    document = json.dumps(croissant(facts, words), indent=1) + "\n"
    publish_text(os.path.join(folder, "croissant.json"), document)
    words["strip"] = draw_strip(facts)
    text = f"---\n{header(facts, words)}---\n\n{body(facts, about, rolled, settings, words)}"
    publish_text(os.path.join(folder, "README.md"), text)
    tell(f"{folder}/README.md: {facts.rows:,} samples, {licence_line(about, rolled)}")
    if about.gaps:
        tell(
            f"{INDENT}not stated: {', '.join(about.gaps)}; --about FILE states it: docs/release.md"
        )


def licence_line(about: About, rolled: RolledUp) -> str:
    """The licence that the card names, with the reason."""
    terms = f"; {len(rolled.conflicts):,} terms to look at" if rolled.conflicts else ""
    if stated := about.get("licence"):
        return f"licence {stated}, as --about says{terms}"
    why = "some parts ask for more" if rolled.restricted else "of all parts the one that asks most"
    return f"licence {rolled.hub_licence} ({why}){terms}"


def words_of(facts: Facts, about: About, rolled: RolledUp) -> Json:
    """The texts that card and Croissant share."""
    title = about.get("title") or os.path.basename(os.path.abspath(facts.folder))
    date = datetime.now(UTC).date().isoformat()
    hub = about.get("licence") or rolled.hub_licence
    summary = about.get("summary") or (
        f"{facts.rows:,} images generated from {facts.prompts:,} prompts, with their captions"
    )
    authors = about.get("authors") or []
    conflicts = " ".join(rolled.conflicts)
    return {
        "title": visible(title),
        "repo": about.get("repo") or "",
        "url": about.get("homepage") or "",
        "date": date,
        "version": about.get("version") or "1.0.0",
        "hub_licence": hub,
        "licence": hub if hub != OTHER else "various: see the card, under Licences",
        "description": visible(summary),
        "authors": authors,
        "tags": TAGS,
        "bibtex": about.get("citation") or bibtex(title, authors, about.get("repo"), date),
        "rai": rai(facts, about, conflicts),
    }


def rai(facts: Facts, about: About, conflicts: str) -> dict[str, str]:
    """The fields of the RAI vocabulary that are known."""
    llms = [name for name in facts.counts.get("llm_model_name", ()) if name]
    models = [name for name in facts.counts.get("model_name", ()) if name]
    days = sorted({facts.first, facts.last} - {""})
    time = f", {' to '.join(days)}" if days else ""
    return {
        "dataCollection": f"images generated by {', '.join(models)} from texts{time}",
        "dataCollectionType": "synthetic data generation",
        "dataPreprocessingProtocol": "prompts cleaned, deduplicated and judged for safety",
        "machineAnnotationTools": ", ".join(llms),
        "dataUseCases": about.get("intended_uses") or "",
        "dataLimitations": " ".join(filter(None, [about.get("unsuitable_uses"), conflicts])),
        "dataBiases": about.get("biases") or "",
        "personalSensitiveInformation": about.get("personal_information") or "",
        "dataReleaseMaintenancePlan": about.get("maintenance") or "",
    }


def header(facts: Facts, words: Json) -> str:
    """The YAML that the hub and `datasets` read."""
    form = facts.rows_in if facts.has_images else "webdataset"
    suffix = "parquet" if facts.has_images else "tar"
    about: Json = {
        "pretty_name": words["title"],
        "license": words["hub_licence"],
        **({"license_name": "various", "license_link": "#licences"} if _various(words) else {}),
        "task_categories": ["text-to-image"],
        "language": ["en"],
        "size_categories": [size_category(facts.rows)],
        "tags": words["tags"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": name, "path": f"{form}/{name}-*.{suffix}"} for name in facts.splits
                ],
            }
        ],
        "dataset_info": {"config_name": "default", **_info(facts)},
    }
    text: str = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=100)
    return text


def _various(words: Json) -> bool:
    return bool(words["hub_licence"] == OTHER)


def _info(facts: Facts) -> Json:
    splits = [
        {"name": name, "num_bytes": split.memory, "num_examples": split.rows}
        for name, split in facts.splits.items()
    ]
    info: Json = {"splits": splits, "download_size": facts.download_bytes}
    info["dataset_size"] = sum(split.memory for split in facts.splits.values())
    if facts.has_images:
        info = {"features": yaml_features(facts.schema), **info}
    return info


def size_category(rows: int) -> str:
    """The hub's words for a number of rows."""
    limits = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    more = ((10**6, "100K<n<1M"), (10**7, "1M<n<10M"), (10**8, "10M<n<100M"))
    return next((words for limit, words in (*limits, *more) if rows < limit), "100M<n<1B")


def body(facts: Facts, about: About, rolled: RolledUp, settings: CardSettings, words: Json) -> str:
    """The card below its YAML."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters.update(visible=visible, braces=braces, cell=cell)
    repo = words["repo"] or os.path.basename(os.path.abspath(facts.folder))
    hub = f"https://huggingface.co/datasets/{repo}/resolve/main" if words["repo"] else repo
    rows = f"hf://datasets/{repo}" if words["repo"] else repo
    augmented = facts.counts.get("is_augmented", Counter())
    return environment.get_template("card.md").render(
        title=words["title"],
        about=_Said(about),
        facts=facts,
        models=_names(facts, "model_name"),
        writers=_names(facts, "llm_model_name"),
        varied=augmented.get(True, 0),
        report=os.path.exists(os.path.join(facts.folder, "report.html")),
        parts=rolled.parts,
        conflicts=[cell(text, 2000) for text in rolled.conflicts],
        restricted=rolled.restricted,
        signed=facts.note.get("c2pa"),
        where=facts.note.get("where"),
        side_table=facts.note.get("scores"),
        allowed=settings.allowed,
        repo=repo,
        local=not words["repo"],
        strip=[cell(caption, 200) for caption in words["strip"]],
        width=facts.sizes.most_common(1)[0][0][0] if facts.sizes else None,
        screened=None not in facts.counts.get("version", {None}),
        combined=settings.combined,
        first_split=next(iter(facts.splits)),
        tars=any(split.tars for split in facts.splits.values()),
        tar_url=f"{hub}/webdataset/",
        rows_url=f"{rows}/{facts.rows_in}",
        sizes=[(f"{w} x {h}", count) for (w, h), count in facts.sizes.most_common(SHOWN)],
        columns=[
            (field.name, kind_of(field), holds(field.name))
            for field in facts.schema
            if field.name in facts.filled
        ],
        empty=[field.name for field in facts.schema if field.name not in facts.filled],
        scores=scores_of(facts),
        sources=[pair for pair in _common(facts, "source") if pair[0]],
        settings=[
            (title, values)
            for column, title in SETTINGS.items()
            if (values := values_of(facts, column))
        ],
        said=lambda before, name: (
            f" {before} {visible(about[name], 20_000)}" if about.get(name) else ""
        ),
        bibtex=words["bibtex"],
        date=words["date"],
        version=version(),
    )


def scores_of(facts: Facts) -> list[str]:
    """Where each score is: a column of the rows, or of the table beside them."""
    columns = [name for name in facts.schema.names if name.startswith("score_")]
    beside = facts.note.get("scores", {}).get("versions", {})
    return [f"column {name}" for name in columns] + [f"scores/: {cell(name)}" for name in beside]


class _Said(dict[str, Any]):
    """The author's fields for the template: None for one that is not there."""

    def __init__(self, about: About) -> None:
        super().__init__(about)
        self["gaps"] = about.gaps

    def __missing__(self, name: str) -> None:
        return None


def _common(facts: Facts, column: str) -> list[tuple[Any, int]]:
    return facts.counts.get(column, Counter()).most_common()


def _names(facts: Facts, column: str) -> list[str]:
    return [name for name, _ in _common(facts, column) if name]


def values_of(facts: Facts, column: str) -> str:
    """The values of a setting with their counts; "" where there is none."""
    pairs = [(value, count) for value, count in _common(facts, column) if value not in (None, "")]
    shown = [f"{cell(value)} ({count:,})" for value, count in pairs[:SHOWN]]
    more = [f"{len(pairs) - SHOWN} others"] if len(pairs) > SHOWN else []
    return ", ".join(shown + more)


def attribution(rolled: RolledUp) -> str:
    """ATTRIBUTION.md: who must be named."""
    lines = ["# Attribution", "", "This data set was made from:", ""]
    for part in rolled.parts:
        where = f", {part.home}" if part.home else ""
        lines.append(f"- **{cell(part.name)}** ({part.kind}): {cell(part.licence)}{where}")
        lines += [f"  {text}" for text in (part.citation, part.note) if text]
    return "\n".join(lines) + "\n"


def bibtex(title: str, authors: Sequence[str], repo: str | None, date: str) -> str:
    """A citation of the data set itself."""
    key = re.sub(r"\W+", "_", title).strip("_").lower() or "dataset"
    fields = {
        "title": f"{{{visible(title)}}}",
        "author": " and ".join(map(visible, authors)) or "(not stated)",
        "year": date[:4],
        **({"url": f"https://huggingface.co/datasets/{repo}"} if repo else {}),
    }
    inside = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{inside}\n}}"
