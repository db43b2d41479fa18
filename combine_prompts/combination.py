"""Combine the sources' files: join exact duplicates, screen, shuffle, write.

combine(Settings(inputs=[Path("prompts/sac.json")], …))    # what combine.py does after its options
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from combine_prompts import near_duplicates
from combine_prompts.inputs import (
    Entry,
    Hashes,
    Item,
    exact,
    read_excluded,
    read_inputs,
    refuse_folder,
    refuse_overwriting,
)
from combine_prompts.prompt_files import name_problems, to_json, write_output
from combine_prompts.report import Counts, attribution, print_notes, print_table, summary
from combine_prompts.verdicts import judge
from common.command_line import UserError
from common.screening import Rules, Screen, Verdict, path_beside
from common.terms import Licences
from common.texts import fold
from common.validation_set import ValidationSet

NOT_PUBLISHABLE = "no licence stated"


@dataclass(frozen=True)
class Settings:
    """The options of combine.py."""

    inputs: list[Path]
    exclude: list[Path]
    output: Path
    plain: bool
    seed: int
    language: str
    min_words: int
    max_words: int
    min_chars: int
    max_chars: int
    profanity: str
    sexual: str
    hate: str
    near_duplicates: bool
    publishable: bool
    licence: list[str]
    num_workers: int

    def beside(self, ending: str) -> Path:
        """The path of a file that is written beside the output: combined.report.json."""
        return self.output.with_name(f"{self.output.stem}.{ending}")

    def outputs(self) -> list[Path]:
        """All files that are written, the combined one first."""
        beside = [self.beside(name) for name in ("report.json", "removed.json", "ATTRIBUTION.md")]
        return [self.output, *beside, path_beside(self.output)]

    def rules(self) -> Rules:
        """What the judge needs of the options."""
        return Rules(
            language=self.language,
            min_words=self.min_words,
            max_words=self.max_words,
            min_chars=self.min_chars,
            max_chars=self.max_chars,
            profanity=self.profanity,
            sexual=self.sexual,
            hate=self.hate,
        )


@dataclass
class Outcome:
    """The prompts that are kept, those that are removed with the reason, and the counts."""

    counts: Counts
    excluded: list[str]
    hashes: Hashes
    kept: list[Entry] = field(default_factory=list)
    removed: list[Item] = field(default_factory=list)

    def remove(self, entry: Entry, reason: str, **about: Any) -> None:
        """Count an item under its first file, and list it with its reason."""
        name, item = entry
        self.counts[name][reason] += 1
        listed = {"prompt": item["prompt"], "source": item["source"], "reason": reason}
        self.removed.append(listed | about)

    def refuse(self, entry: Entry, verdict: Verdict) -> None:
        """Remove an item that the judge refused."""
        about: dict[str, Any] = {"rule": verdict.rule}
        if verdict.row is not None:
            about["match"] = self.excluded[verdict.row]
            about["similarity"] = round(verdict.similarity, 3)
        self.remove(entry, verdict.reason, **about)

    def keep(self, entry: Entry, verdict: Verdict, variations: list[Verdict]) -> None:
        """Keep an item, with its flags, without the variations that the judge refused."""
        name, item = entry
        kept = dict(item)
        if verdict.flags:
            kept["flags"] = list(verdict.flags)
        if variations:
            pairs = list(zip(item["variations"], variations, strict=True))
            kept["variations"] = [text for text, each in pairs if not each.reason]
            for text, each in pairs:
                if each.reason:
                    variation = {"prompt": text, "source": item["source"]}
                    judged = Verdict(f"variation: {each.reason}", each.rule, (), each.row)
                    self.refuse((name, variation), judged)
                    self.removed[-1]["variation of"] = item["prompt"]
        self.kept.append((name, kept))


def combine(settings: Settings) -> int:
    """Write the combined file and what lies beside it; returns the exit status."""
    refuse_folder(settings.output)
    refuse_overwriting(settings.inputs, settings.exclude, settings.outputs())
    licences = Licences.of(settings.licence)
    problems: list[str] = []
    hashes: Hashes = {}
    entries, counts = read_inputs(settings.inputs, problems, hashes)
    excluded = read_excluded(settings.exclude, hashes)
    validation = ValidationSet.of(excluded) if excluded else None
    screen = Screen(settings.rules(), validation)
    outcome = Outcome(counts, excluded, hashes)
    sort_out(exact(entries, outcome.remove), screen, settings, licences, outcome)
    random.Random(settings.seed).shuffle(outcome.kept)
    for name, count in Counter(name for name, _ in outcome.kept).items():
        counts[name]["kept"] = count
    if not outcome.kept:
        print_table(counts)
        raise UserError("; ".join(["no prompt is left", *problems]))
    write(settings, screen, outcome, licences)
    print_table(counts)
    print_notes(outcome.kept, licences, settings.publishable)
    print("wrote " + ", ".join(map(str, settings.outputs())))
    return name_problems(problems)


def sort_out(
    unique: Iterable[Entry],
    screen: Screen,
    settings: Settings,
    licences: Licences,
    outcome: Outcome,
) -> None:
    """Judge the items: each is kept, or removed with its reason."""
    entries = []
    for entry in unique:
        if settings.publishable and not licences.allow(entry[1]["source"]):
            outcome.remove(entry, NOT_PUBLISHABLE, rule="--publishable")
        else:
            entries.append(entry)
    asked = [(item["prompt"], item.get("variations") or []) for _, item in entries]
    verdicts = judge(asked, screen, settings.num_workers)
    for entry, judged in zip(entries, verdicts, strict=True):
        if judged.prompt.reason:
            outcome.refuse(entry, judged.prompt)
        else:
            outcome.keep(entry, judged.prompt, judged.variations)
    if settings.near_duplicates and outcome.kept:
        drop_near_duplicates(outcome)


def drop_near_duplicates(outcome: Outcome) -> None:
    """Remove the prompts that repeat an earlier one but for a few words."""
    prompts = [item["prompt"] for _, item in outcome.kept]
    repeats = near_duplicates.find(prompts, [fold(prompt) for prompt in prompts])
    for position, (first, similarity) in repeats.items():
        about = {"match": prompts[first], "similarity": round(similarity, 3)}
        outcome.remove(outcome.kept[position], "near duplicate", rule="same subject", **about)
    outcome.kept = [entry for place, entry in enumerate(outcome.kept) if place not in repeats]


def write(settings: Settings, screen: Screen, outcome: Outcome, licences: Licences) -> None:
    """Write all outputs, the combined file last: so the files beside it are there before it."""
    items = [item for _, item in outcome.kept]
    lines = [to_json(item["prompt"] if settings.plain else item) for item in items]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    report = summary(settings, outcome.counts, outcome.hashes, items, licences)
    report["sha256"] = sha256
    write_output(settings.beside("removed.json"), _indented(outcome.removed))
    write_output(settings.beside("report.json"), _indented(report))
    write_output(settings.beside("ATTRIBUTION.md"), attribution(items, licences))
    Screen(screen.rules, screen.validation, covers=sha256).save_beside(settings.output)
    write_output(settings.output, text)


def _indented(found: Any) -> str:
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"
