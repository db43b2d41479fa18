"""Verify a data set: read folders, table, tars and ledger once each, and compare them.

report = verify(VerifySettings(["/data/HPDv2"], "HPDv2.parquet", "tars"))
report.found, report.counted, report.not_checked, report.good
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.files import CHECKOUT
from common.screening import Screen
from postprocess_dataset import increment, table
from postprocess_dataset.manifest.card import check_card
from postprocess_dataset.manifest.kinds import (
    DAMAGED,
    KINDS,
    PRIVATE,
    UNLICENSED,
    UNSAFE,
    Findings,
)
from postprocess_dataset.manifest.manifest import Known
from postprocess_dataset.to_table.build_table import absolute
from postprocess_dataset.verification.chunk import Judge
from postprocess_dataset.verification.evidence import Evidence
from postprocess_dataset.verification.folders import FolderPass, Seen
from postprocess_dataset.verification.ledger import InUse, Ledger
from postprocess_dataset.verification.licences import check_licences, stated_licences
from postprocess_dataset.verification.scores import check_scores
from postprocess_dataset.verification.tables import TablePass
from postprocess_dataset.verification.tars import SeenTars, TarPass

PROMPTS = (".json", ".jsonl", ".txt", ".parquet")  # as generate_images.py takes them


@dataclass(frozen=True)
class VerifySettings:
    """The options of verify_dataset.py; see its --help."""

    folders: Sequence[str]
    parquet_file: str | None = None
    tars: str | None = None
    scores: str | None = None
    output_root: str | None = None
    prompts: str | None = None
    licences: Sequence[str] = ()
    allow: Sequence[str] = ()
    scratch: str = "."  # a folder for temporary files: 200 bytes for each sample
    # Of release.py, whose own tars they are: a folder with what was read of them.
    kept: str = ""


@dataclass
class Report:
    """The findings, the counts, and what was not checked."""

    allowed: Sequence[str]
    found: Findings = field(default_factory=Findings)
    counted: dict[str, int] = field(default_factory=dict)
    not_checked: list[str] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)  # options of the tars
    known: dict[str, Known] = field(default_factory=dict)  # the tars, for their manifest
    # Tars that may hold what is nowhere else: damaged ones, and those with more than the folder.
    last_copies: set[str] = field(default_factory=set)

    def of_group(self, group: str) -> list[str]:
        """Kinds of a group (DAMAGED, UNSAFE, UNLICENSED, PRIVATE) found and not allowed."""
        return [name for name in self.found.of_group(group) if name not in self.allowed]

    @property
    def good(self) -> bool:
        """Whether something was checked, and only allowed kinds were found."""
        groups = (DAMAGED, UNSAFE, UNLICENSED, PRIVATE)
        return self.counted["samples"] > 0 and not any(map(self.of_group, groups))

    def document(self) -> dict[str, Any]:
        """For a machine: verification.json."""
        return {
            "format": "text-to-image-verification-1",
            "good": self.good,
            "counted": self.counted,
            "found": self.found.document(self.allowed),
            "not_checked": self.not_checked,
            "kinds": list(KINDS),
        }


def verify(settings: VerifySettings) -> Report:
    """Read everything once. UserError: a named file or folder is not there."""
    folders = absolute(settings.folders)
    for name in settings.allow:
        if name not in KINDS:
            raise UserError(f"--allow {name}: no such kind; there are: {', '.join(KINDS)}")
    report = Report(settings.allow)
    base = base_of(folders, settings.parquet_file)
    ledgers = ledgers_of(folders, base, settings.output_root, report)
    prompts = prompts_file(folders, settings.prompts, report)
    judge = Judge(Screen.beside(prompts).validation if prompts else None)
    if prompts and judge.validation is None:
        report.not_checked.append(
            f"validation set: combine.py --exclude has left none beside {prompts}"
        )
    with Evidence(settings.scratch) as evidence:
        of_tars = Findings()
        tars = None
        if settings.tars:
            tars = TarPass(settings.tars, evidence, of_tars, settings.kept).run()
        given_up = {dataset: ledger.given_up(dataset) for dataset, ledger in ledgers.items()}
        own = bool(tars and settings.kept)
        seen, report.found = FolderPass(folders, base, evidence, judge, given_up, own).run()
        report.found.merge(of_tars)
        check_licences(
            seen.licences, stated_licences(list(settings.licences), prompts), report.found
        )
        for dataset, ledger in ledgers.items():
            ledger.compare(dataset, seen.done.get(dataset, {}), report.found)
        compare(settings, evidence, seen, tars, report)
    return report


def compare(
    settings: VerifySettings,
    evidence: Evidence,
    seen: Seen,
    tars: SeenTars | None,
    report: Report,
) -> None:
    """Compare table and tars with the samples of the folders."""
    found = report.found
    counted = report.counted
    counted |= {"samples": seen.samples, "bytes": seen.bytes}
    counted |= {"given_up": seen.failed, "texts_short": seen.short}
    rows_whole = scores_whole = True
    if settings.parquet_file:
        table_pass = TablePass(settings.parquet_file, evidence, found)
        counted["rows"], rows_whole = table_pass.run()
        if not table_pass.has_facts:
            report.not_checked.append("all but captions and hashes of the table: an older version")
    if tars:
        counted["samples in tars"] = tars.samples
        report.plan = tars.options
        if tars.shuffled:
            report.not_checked.append("order of tars: they were shuffled or split")
        if tars.taken is not None:
            report.not_checked.append(f"which {tars.taken:,} rows --where took for the tars")
    if settings.scores:
        counted["rows of scores"], scores_whole = check_scores(settings.scores, evidence, found)
    evidence.sort()
    evidence.pictures(found)
    if settings.parquet_file:
        lines = increment.load_lines(f"{settings.parquet_file.rstrip('/')}.gone.jsonl", "__key__")
        evidence.table(found, {line["__key__"] for line in lines}, rows_whole)
    if settings.scores:
        evidence.scores(found, scores_whole)
    if tars:
        evidence.tars(found, tars)
        report.known = tars.known if evidence.all_proved(tars) else {}
        if found.mends:
            report.last_copies = tars.damaged | evidence.not_in_folder(tars)
    if settings.tars:
        check_card(settings.tars, {"webdataset": counted["samples in tars"]}, found)


def base_of(folders: Sequence[str], parquet_file: str | None) -> str:
    """The folder below which keys begin: as the table says, if the folders lie there."""
    base = os.path.dirname(folders[0]) if len(folders) == 1 else os.path.commonpath(folders)
    if parquet_file and not os.path.exists(parquet_file):
        raise UserError(f"{parquet_file}: no such table; make it with convert_json_to_parquet.py")
    try:
        facts = table.facts(parquet_file) if parquet_file else None
    except UserError:
        return base  # damaged: reported when its rows are read
    stated = os.path.join(facts["base"], "") if facts else ""
    return facts["base"] if facts and all(f.startswith(stated) for f in folders) else base


def ledgers_of(
    folders: Sequence[str], base: str, output_root: str | None, report: Report
) -> dict[str, Ledger]:
    """{data set: the ledger that knows it}. UserError: --output_root has none, or it is in use."""
    found = {}
    for folder in folders:
        root = Path(output_root) if output_root else Path(folder).parent.parent
        try:
            ledger = Ledger.of(root)
        except (InUse, ValueError) as error:
            if output_root:
                raise UserError(str(error)) from None
            report.not_checked.append(f"ledger: {error}")
            continue
        name = os.path.basename(folder)
        if ledger is None or not ledger.knows(name):
            if output_root:
                raise UserError(f"{root}: its ledger knows no data set {name}")
            report.not_checked.append(f"ledger: {root} has none that knows {name}")
            continue
        found[os.path.relpath(folder, base)] = ledger
    return found


def prompts_file(folders: Sequence[str], stated: str | None, report: Report) -> Path | None:
    """The prompts file, beside which the validation set's index and the sources' terms lie."""
    if stated:
        if not Path(stated).is_file():
            raise UserError(f"--prompts {stated}: no such file")
        return Path(stated)
    name = os.path.basename(folders[0])
    for folder in (Path(), Path("prompts"), CHECKOUT / "prompts"):
        for suffix in PROMPTS:
            if (place := folder / f"{name}{suffix}").is_file():
                return place
    report.not_checked.append(
        f"validation set: no prompts file {name}.json, .txt … found; give --prompts"
    )
    return None
