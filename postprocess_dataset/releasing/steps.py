"""The steps of a release: table, tars, parquet, verification, report, card, manifest.

    status = make_release(ReleaseSettings(["generated_images/HPDv2"], "release/HPDv2"))

After a kill at any instant the same call goes on: each step writes a done mark into the work folder
after its results. If the verification finds anything damaged, unsafe, unlicensed or private, no
card and no manifest are made, unless its kinds are allowed by name.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.command_line import DONE, UserError
from common.console import visible
from common.files import read_json, write_whole
from common.untrusted import read_untrusted
from postprocess_dataset import table
from postprocess_dataset.manifest import manifest
from postprocess_dataset.manifest.kinds import licence_option
from postprocess_dataset.manifest.manifest import Known
from postprocess_dataset.manifest.shards import Unreadable
from postprocess_dataset.options import DataOptions
from postprocess_dataset.progress import Progress, tell
from postprocess_dataset.release_card.about import read_about
from postprocess_dataset.release_card.card import CardSettings, make_card
from postprocess_dataset.release_card.facts import read_facts
from postprocess_dataset.release_folder import check_release, making, work_folder
from postprocess_dataset.release_forms.linked_tars import shards_of
from postprocess_dataset.release_forms.make_forms import FormSettings, rows_form, write_forms
from postprocess_dataset.releasing.known import keep_verified, known_shards
from postprocess_dataset.releasing.marks import Marks, state_of
from postprocess_dataset.releasing.own_status import own_status
from postprocess_dataset.report.gather import ReportSettings
from postprocess_dataset.report.page import make_report
from postprocess_dataset.same_folder import lies_in
from postprocess_dataset.scored.where import Where
from postprocess_dataset.shard_names import braces
from postprocess_dataset.to_table.build_table import TableSettings, make_table
from postprocess_dataset.verification.show import show
from postprocess_dataset.verification.verify import (
    Report,
    VerifySettings,
    prompts_file,
    verify,
)

VERIFICATION = "verification.json"  # in the work folder: its examples name paths
DOCUMENT_BYTES = 1 << 26


@dataclass(frozen=True)
class ReleaseSettings:
    """What release.py was asked for; see its --help."""

    folders: Sequence[str]
    release: str
    data: DataOptions = field(default_factory=DataOptions)
    about: str = ""
    status: str = ""
    prompts: str | None = None
    licences: Sequence[str] = ()
    allow: Sequence[str] = ()

    @property
    def work(self) -> str:
        """The folder beside the release where all that is not published lies."""
        return work_folder(self.release)

    @property
    def table(self) -> str:
        return os.path.join(self.work, "table.parquet")


def make_release(settings: ReleaseSettings) -> int:
    """Do what is missing; the exit status. UserError: it is not fit to be published."""
    check_place(settings)
    with making(settings.release, settings.data.inputs):
        return all_steps(settings)


def all_steps(settings: ReleaseSettings) -> int:
    """The steps of make_release(), one after the other."""
    marks = Marks(settings.work)
    update = os.path.exists(settings.table)
    try:
        make_table(TableSettings(settings.folders, settings.table, relative=True, update=update))
    except table.NotUpdatable as error:
        raise UserError(f"{error.why}; remove {settings.table}, and it is made anew") from None
    write_forms(forms_of(settings))
    document = verify_data_set(settings, marks)
    make_report_page(settings, marks)
    allowed = [
        f"{name}: {found['count']:,} ({found['what']})" for name, found in document["found"].items()
    ]
    card = CardSettings(
        settings.release, settings.about, settings.licences, allowed, combined(settings)
    )
    make_card(card)
    root = make_manifest(settings, marks)
    note_manifest(settings, document, root)
    for name, part in read_facts(settings.release).splits.items():
        names = " and ".join(filter(None, map(braces, (part.tars, part.parquet))))
        tell(f"{name}: {part.rows:,} samples, {names}")
    tell(f"{settings.release} is ready; root {root}")
    return DONE


def check_place(settings: ReleaseSettings) -> None:
    """UserError if the release would lie in a data set."""
    for folder in settings.folders:
        if lies_in(settings.release, folder):
            raise UserError(f"{settings.release} lies in {folder}: choose a place outside of it")


def forms_of(settings: ReleaseSettings) -> FormSettings:
    """What make_release_forms.py would be asked for."""
    return FormSettings(
        table=settings.table,
        release=settings.release,
        base_dir=base_of(settings),
        data=settings.data,
    )


def base_of(settings: ReleaseSettings) -> str:
    """The folder below which the images lie now; that of the table may have been moved."""
    folders = [os.path.abspath(folder) for folder in settings.folders]
    return os.path.dirname(folders[0]) if len(folders) == 1 else os.path.commonpath(folders)


def verify_data_set(settings: ReleaseSettings, marks: Marks) -> dict[str, Any]:
    """Verify folders, table and tars, if they have changed; the document of the findings.

    UserError: something was found that is not allowed.
    """
    tars = os.path.join(settings.work, "tars")
    options: tuple[Any, ...] = (settings.prompts, settings.licences, sorted(settings.allow))
    if settings.data.scores:
        options += (state_of(settings.data.scores),)
    state = state_of(tars, table.identity(settings.table), options)
    path = os.path.join(settings.work, VERIFICATION)
    known = known_document(path)
    if marks.is_done("verify", f"{state} {digest_of(known)}"):
        return known
    report = verify(
        VerifySettings(
            folders=settings.folders,
            parquet_file=settings.table,
            tars=tars,
            scores=settings.data.scores,
            prompts=settings.prompts,
            licences=settings.licences,
            allow=settings.allow,
            scratch=settings.work,
            kept=os.path.join(settings.work, rows_form(settings.data.forms)),
        )
    )
    show(report)
    document: dict[str, Any] = report.document()
    write_whole(path, json.dumps(document, indent=1) + "\n")
    if not report.good:
        kinds = ",".join(name for name, one in document["found"].items() if not one["allowed"])
        raise UserError(
            f"{settings.release} is not ready: {kinds or 'nothing was checked'} (above, and in "
            f"{path}). {what_to_do(document)}, or publish it all the same with --allow "
            f"{kinds or 'KIND'}"
        )
    keep_verified(settings.work, report.known)
    marks.done("verify", f"{state} {digest_of(document)}")
    return document


def known_document(path: str) -> dict[str, Any]:
    """What an earlier verification has said; {} if there was none, or it is damaged."""
    try:
        document = read_json(path, DOCUMENT_BYTES)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def digest_of(document: dict[str, Any]) -> str:
    """A verification as its done mark knows it: without the root, which is added later."""
    said = {name: value for name, value in document.items() if name != "root"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def combined(settings: ReleaseSettings) -> bool:
    """Whether combine.py has made the prompts file: its report lies beside it."""
    prompts = prompts_file(settings.folders, settings.prompts, Report(()))
    return prompts is not None and prompts.with_name(f"{prompts.stem}.report.json").is_file()


def what_to_do(document: dict[str, Any]) -> str:
    """What the user can do about the findings, with the licences that only must be stated."""
    found = document["found"]
    options = [licence_option(name) for name in found.get("licence_unknown", {}).get("names", ())]
    again = "run the same command again"
    if options:
        again += f" with {' '.join(options)} (LICENCE: the one under which it stands)"
    others = any(not one["allowed"] for name, one in found.items() if name != "licence_unknown")
    return f"Correct what is wrong, then {again}" if others or not options else f"R{again[1:]}"


def make_report_page(settings: ReleaseSettings, marks: Marks) -> None:
    """Make report.html again, if the table or the status has changed."""
    output = os.path.join(settings.release, "report.html")
    status = settings.status or own_status(settings.folders, settings.work)
    changed = os.stat(status).st_mtime_ns if os.path.exists(status) else 0
    where = Where(settings.data.where, settings.data.scores) if settings.data.where else None
    folder_name = os.path.basename(os.path.abspath(settings.release))
    name = read_about(settings.about).get("title") or folder_name
    state = f"{table.identity(settings.table)} {status} {changed} {name}"
    if where:
        state += f" {where.text} {where.versions()}"
    if os.path.exists(output) and marks.is_done("report", state):
        return
    make_report(
        ReportSettings(
            table=settings.table,
            output=output,
            base_dir=base_of(settings),
            status=status,
            name=name,
            where=where,
        )
    )
    marks.done("report", state)


def make_manifest(settings: ReleaseSettings, marks: Marks) -> str:
    """Write MANIFEST.json again, if a file has changed; its root, in hex."""
    path = os.path.join(settings.release, manifest.NAME)
    check_release(settings.release)  # what was put there meanwhile is not listed
    state = state_of(settings.release, sorted(settings.allow), without=[manifest.NAME])
    content = manifest_bytes(path)
    if not marks.is_done("manifest", f"{state} {sha256_of(content)}"):
        progress = Progress("samples in the manifest")
        try:
            shards = shards_of(os.path.join(settings.work, "tars"))
            known = known_shards(settings.work, shards, bool(settings.data.c2pa))
            root = manifest.write_manifest(settings.release, progress, settings.allow, known)
        except Unreadable as error:
            raise UserError(
                f"{error}; remove it and its done mark in {settings.work}, and run the same "
                "command again"
            ) from None
        finally:
            progress.close()
        content = manifest_bytes(path)
        refuse_changed(path, content, root, known)
        marks.done("manifest", f"{state} {sha256_of(content)}")
    found: str = manifest.parse(content, path)["root"]
    return found


def manifest_bytes(path: str) -> bytes:
    """What lies there, so that a manifest changed by others is made again; b"" without one."""
    try:
        return read_untrusted(path, manifest.MANIFEST_BYTES, text=True)
    except OSError:
        return b""


def sha256_of(content: bytes) -> str:
    """In hex."""
    return hashlib.sha256(content).hexdigest()


def refuse_changed(path: str, content: bytes, root: str, known: Mapping[str, Known]) -> None:
    """UserError: what was verified, or the manifest just written, has been changed by others."""
    try:
        document = manifest.parse(content, path)
        same = root == manifest.root_of(document["files"], document["allowed"])
    except ValueError:
        same = False
    changed = "" if same else path
    for file in document["files"] if same else ():
        before = known.get(file["path"])
        if before and before.file["sha256"] != file["sha256"]:
            changed = os.path.join(os.path.dirname(path), file["path"])
    if changed:
        raise UserError(
            f"{visible(changed)} was changed by others meanwhile: run the same command again"
        )


def note_manifest(settings: ReleaseSettings, document: dict[str, Any], root: str) -> None:
    """Note the manifest's root beside the verification: push_to_hub.py compares it."""
    text = json.dumps({**document, "root": root}, indent=1) + "\n"
    write_whole(os.path.join(settings.work, VERIFICATION), text)
