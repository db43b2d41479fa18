"""The licence of a release, from those of its sources, LLMs and image models.

roll = roll_up(facts, Licences.of(["mine=CC0-1.0"]))
roll.hub_licence, roll.parts[0].licence, roll.conflicts[0]
"""

from collections import Counter
from dataclasses import dataclass, field

from common.model_terms import ModelTerms, terms_of_llm, terms_of_model
from common.terms import UNKNOWN, UNSTATED, Licences
from postprocess_dataset.release_card.facts import Facts

# Ids of the hub, from the least to the most demanding licence; all others are "other".
OPEN = ("cc0-1.0", "mit", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0")
OTHER = "other"


@dataclass(frozen=True)
class Part:
    """One source, LLM or image model, with the number of images it has a share in."""

    kind: str
    name: str
    images: int
    licence: str
    hub: str
    note: str = ""
    home: str = ""
    citation: str = ""
    known: bool = True


@dataclass
class RolledUp:
    """conflicts: sentences, each about one part that asks for something or is not known."""

    parts: list[Part] = field(default_factory=list)
    sourceless: int = 0

    @property
    def conflicts(self) -> list[str]:
        found = [
            f"{part.name} ({part.kind}, {part.images:,} images): {_conflict(part)}"
            for part in self.parts
            if _conflict(part)
        ]
        if self.sourceless:
            found.append(f"{self.sourceless:,} images: no source of their prompt is recorded")
        return found

    @property
    def restricted(self) -> bool:
        """Whether a part is under other terms than an open licence, or under unknown ones."""
        return self.hub_licence == OTHER

    @property
    def hub_licence(self) -> str:
        """The most demanding of all licences, if all are open; else "other"."""
        ids = {part.hub for part in self.parts}
        whole = ids and ids <= set(OPEN) and not self.sourceless
        return max(ids, key=OPEN.index) if whole else OTHER


def _conflict(part: Part) -> str:
    if not part.known:
        return f"its terms are not known here; {part.note or 'ask before you publish or train'}"
    if part.licence.startswith(UNSTATED):
        return f"states no licence; {part.note}" if part.note else "states no licence"
    return part.note


def roll_up(facts: Facts, licences: Licences) -> RolledUp:
    """The terms of all that a release was made from."""
    parts = [_source(name, images, licences) for name, images in _named(facts.counts.get("source"))]
    for kind, column, terms in (
        ("language model", "llm_model_name", terms_of_llm),
        ("image model", "model_name", terms_of_model),
    ):
        for name, images in _named(facts.counts.get(column)):
            parts.append(_model(kind, name, images, terms(name), licences))
    return RolledUp(parts, facts.sourceless)


def _named(counts: "Counter[str | None] | None") -> list[tuple[str, int]]:
    return [(name, count) for name, count in (counts or Counter()).most_common() if name]


def _source(name: str, images: int, licences: Licences) -> Part:
    terms = licences.terms_of(name)
    licence = terms["licence"]
    return Part(
        "source of prompts",
        name,
        images,
        "not known" if licence == UNKNOWN else licence,
        licence.lower() if licence.lower() in OPEN else OTHER,
        terms.get("note", ""),
        terms.get("home", ""),
        terms.get("citation", ""),
        known=licence != UNKNOWN,
    )


def _model(kind: str, name: str, images: int, terms: ModelTerms | None, licences: Licences) -> Part:
    stated = licences.stated.get(name)
    if terms is None and stated is None:
        return Part(kind, name, images, "not known", OTHER, known=False)
    licence = stated or (terms.licence if terms else "")
    hub = terms.hub if terms and not stated else licence.lower()
    return Part(
        kind,
        name,
        images,
        licence,
        hub if hub in OPEN else OTHER,
        (terms.notice if terms and not stated else None) or "",
        (terms.url if terms else None) or "",
    )
