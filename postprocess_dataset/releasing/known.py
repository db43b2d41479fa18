"""Facts that the steps of a release have read or hashed already, so that its manifest need not.

    keep_verified(work, report.known)                 # after the verification has read the tars
    write_manifest(release, known=known_shards(work, shards, signed=False))

A file counts as known while its size and its time of change stay. The parquet of a tar holds the
same samples in the same order, so it has the same Merkle root.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import orjson

from common.files import write_whole
from common.untrusted import read_untrusted
from postprocess_dataset.manifest.manifest import Known
from postprocess_dataset.release_forms.linked_tars import Shard
from postprocess_dataset.release_forms.make_forms import FOLDERS, PARQUET, ROWS, WEBDATASET
from postprocess_dataset.release_forms.parquet_shards import known_parquet, parquet_name
from postprocess_dataset.release_forms.signed_tars import known_signed

VERIFIED = "verified.json"  # in the work folder
BYTES = 1 << 28
DAMAGED = (OSError, ValueError, KeyError, TypeError)  # not there yet, or damaged


def keep_verified(work: str, known: Mapping[str, Known]) -> None:
    """Note what a verification has read of the tars of the work folder."""
    document = {name: asdict(each) for name, each in known.items()}
    write_whole(os.path.join(work, VERIFIED), json.dumps(document) + "\n")


def known_shards(work: str, shards: Sequence[Shard], signed: bool) -> dict[str, Known]:
    """{path in the release: what is known of it}. shards: those of the work folder's tars."""
    found: dict[str, Known] = {}
    try:
        verified = orjson.loads(read_untrusted(os.path.join(work, VERIFIED), BYTES, text=True))
    except DAMAGED:
        verified = {}
    for shard in shards:
        try:
            tar = Known.of(verified[os.path.basename(shard.path)])
            if signed:
                tar = known_signed(os.path.join(work, "signed"), shard)
        except DAMAGED:
            continue
        path = f"{FOLDERS[WEBDATASET]}/{shard.name}"
        found[path] = tar.under(path)
        for form in (PARQUET, ROWS):
            try:
                file, made_of = known_parquet(os.path.join(work, form), shard)
            except DAMAGED:
                continue
            if made_of == [tar.file["bytes"], tar.changed_ns]:
                path = f"{FOLDERS[form]}/{parquet_name(shard)}"
                samples = tar.shard if form == PARQUET else None
                found[path] = replace(file, shard=samples).under(path)
    return found
