"""A release's data: a public table, then WebDataset tars and parquet with embedded images.

forms = make_forms(FormSettings("HPDv2.parquet", "release/HPDv2", base_dir="/data"))
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from common.command_line import UserError
from postprocess_dataset import table
from postprocess_dataset.column_values import arrow_errors
from postprocess_dataset.options import DataOptions
from postprocess_dataset.progress import tell
from postprocess_dataset.release_folder import (
    FIRST,
    PUBLISHED,
    SCORES,
    WORK,
    making,
    remove_folder,
    work_folder,
)
from postprocess_dataset.release_forms.c2pa_signer import read_signer
from postprocess_dataset.release_forms.linked_tars import Shard, link_tars, shards_of, where_of
from postprocess_dataset.release_forms.parquet_shards import Work, parquet_name, write_parquet
from postprocess_dataset.release_forms.public_rows import PublicSettings, make_public
from postprocess_dataset.release_forms.published_scores import write_scores
from postprocess_dataset.release_forms.signed_tars import sign_tars
from postprocess_dataset.release_note import Note, write_note
from postprocess_dataset.score_table import ScoreTable, files_of
from postprocess_dataset.scored.where import Where
from postprocess_dataset.shard_images import check_folders
from postprocess_dataset.to_tars.make_tars import convert
from postprocess_dataset.to_tars.tar_settings import TarSettings

WEBDATASET = "webdataset"
PARQUET = "parquet"
ROWS = "metadata"  # the rows without images, where the release has no parquet with them
FOLDERS = {WEBDATASET: "webdataset", PARQUET: "data", ROWS: "metadata"}  # in the release


@dataclass(frozen=True)
class FormSettings:
    """What make_release_forms.py was asked for; see its --help."""

    table: str
    release: str
    base_dir: str = ""  # default: what the table says
    data: DataOptions = field(default_factory=DataOptions)
    keep_private: bool = False
    image_dirs: Sequence[str] = field(default=())

    @property
    def work(self) -> str:
        """The folder beside the release where all that is not published lies."""
        return work_folder(self.release)


def make_forms(settings: FormSettings) -> int:
    """Do what is missing of a release's data; the exit status (3: images were left out)."""
    with making(settings.release, settings.data.inputs):
        return write_forms(settings)


def write_forms(settings: FormSettings) -> int:
    """make_forms() of a release that this process is making already."""
    with arrow_errors(settings.table):
        return _write(settings)


def _write(settings: FormSettings) -> int:
    base = settings.base_dir or (table.facts(settings.table) or {}).get("base", "")
    if not base:
        raise UserError(f"{settings.table} does not say where its images lie: give --base_dir")
    check_folders([base, *settings.image_dirs])
    data = settings.data
    signer = read_signer(data.c2pa) if data.c2pa else None
    scores = ScoreTable.read(data.scores) if data.scores else None
    os.makedirs(settings.release, exist_ok=True)
    public = os.path.join(settings.work, FIRST)
    make_public(settings.table, public, PublicSettings(base, data.split, settings.keep_private))
    tars = os.path.join(settings.work, "tars")
    status, summary = convert(
        TarSettings(
            table=public,
            base_dir=base,
            output=tars,
            workers=data.workers,
            shard_size_mb=data.shard_size_mb,
            split=data.split,
            shuffle_seed=data.shuffle_seed,
            image_dirs=settings.image_dirs,
            where=Where(data.where, data.scores) if data.where else None,
        )
    )
    tell(summary)
    shards = shards_of(tars)
    where = where_of(tars)
    note: Note = {"where": where} if where else {}
    signed = os.path.join(settings.work, "signed")
    if signer:
        shards = sign_tars(shards, signed, signer, data.workers)
        note["c2pa"] = signer.about
    else:
        remove_folder(signed, WORK["signed"])
    if WEBDATASET in data.forms:
        link_tars(shards, _folder(settings, FOLDERS[WEBDATASET]), where)
    form = rows_form(data.forms)
    marks = os.path.join(settings.work, form)
    work = Work(marks, pq.read_schema(public), data.workers, form == PARQUET, where)
    rows = _folder(settings, FOLDERS[form])
    write_parquet(shards, rows, work)
    beside = _folder(settings, SCORES)
    if scores:
        if not files_of(beside):  # from now on they are known as a release's
            write_note(settings.release, {SCORES: {}})
        names = [parquet_name(shard) for shard in shards]
        note["scores"] = write_scores(names, rows, beside, scores)
    else:
        remove_folder(beside, PUBLISHED[SCORES])
    write_note(settings.release, note)
    _remove_others(settings)
    tell(f"{settings.release}: {describe(shards)} as {' and '.join(data.forms)}")
    return status


def rows_form(forms: Sequence[str]) -> str:
    """Without parquet the rows lie beside the tars, to be filtered without opening them."""
    return PARQUET if PARQUET in forms else ROWS


def describe(shards: Sequence[Shard]) -> str:
    """ "4,821 train and 96 val samples in 12 shards"."""
    counts: dict[str, int] = {}
    for shard in shards:
        counts[shard.split] = counts.get(shard.split, 0) + shard.samples
    parts = [f"{count:,} {split}" for split, count in counts.items()]
    return f"{' and '.join(parts)} samples in {len(shards):,} shard{'s' * (len(shards) != 1)}"


def _folder(settings: FormSettings, name: str) -> str:
    return os.path.join(settings.release, name)


def _remove_others(settings: FormSettings) -> None:
    """The folders of a form that an earlier call was asked for."""
    forms = settings.data.forms
    kept = {*forms} if PARQUET in forms else {*forms, ROWS}
    for form, name in FOLDERS.items():
        if form not in kept:
            remove_folder(_folder(settings, name), PUBLISHED[name])
            if form in WORK:
                remove_folder(os.path.join(settings.work, form), WORK[form])
