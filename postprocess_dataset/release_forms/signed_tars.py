"""The tars of a release with signed images: written anew, since every image's bytes change.

    shards = sign_tars(shards, "HPDv2.work/signed", signer, workers=2)

A signed image has the picture of the one that was verified, by the hash of everything but comments
and application data, or the tar is not published. `image_sha256` in its JSON is that of the signed
bytes. A tar's done mark names the tar and the certificate that it was made of, so that a tar that
was signed keeps its bytes.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import orjson

from common.command_line import UserError
from common.jpeg import read_jpeg
from common.untrusted import read_untrusted
from postprocess_dataset.manifest.manifest import Known, shard_of
from postprocess_dataset.manifest.merkle import Tree, sample_leaf
from postprocess_dataset.manifest.shards import ShardSample, Unreadable, read_shard
from postprocess_dataset.progress import Progress
from postprocess_dataset.publish import Draft, publish_text
from postprocess_dataset.release_folder import WORK, remove_others
from postprocess_dataset.release_forms.c2pa_signer import Sign, Signer
from postprocess_dataset.release_forms.linked_tars import Shard
from postprocess_dataset.release_forms.parquet_shards import refuse_other_count
from postprocess_dataset.shard_rows import Sample
from postprocess_dataset.to_tars.shard_files import TarWriter
from postprocess_dataset.workers import forked, start

MARK_BYTES = 1 << 16


def sign_tars(shards: Sequence[Shard], folder: str, signer: Signer, workers: int) -> list[Shard]:
    """The shards as signed ones. UserError: c2pa takes no such certificate, or a tar is damaged."""
    os.makedirs(folder, exist_ok=True)
    progress = Progress("images signed", sum(shard.samples for shard in shards))
    # Also one worker is a process of its own: the library lives in no process that forks.
    with forked(max(1, min(workers, len(shards)))) as pool:
        futures = [start(pool, _one, shard, folder, signer) for shard in shards]
        for shard, future in zip(shards, futures, strict=True):
            future.result()
            progress.add(shard.samples, shard.size)
    progress.close()
    paths = [os.path.join(folder, shard.name) for shard in shards]
    kept = {os.path.basename(path) for path in paths}
    remove_others(folder, kept | {f"{name}.json" for name in kept}, WORK["signed"])
    return [
        replace(shard, path=path, size=os.path.getsize(path))
        for shard, path in zip(shards, paths, strict=True)
    ]


def _one(shard: Shard, folder: str, signer: Signer) -> None:
    """Write one tar, unless it is there, then its done mark."""
    path = os.path.join(folder, shard.name)
    there = os.stat(shard.path)
    made_of = [there.st_size, there.st_mtime_ns, signer.about["certificate_sha256"]]
    mark = f"{path}.json"
    if _is_done(path, mark, made_of):
        return
    sign = signer.start()
    tree = Tree()
    try:
        with Draft(path, wait=True) as draft:
            tar = TarWriter(draft.file, hashlib.sha256())
            for sample in read_shard(shard.path):
                image = _signed(sample, sign)
                digest = hashlib.sha256(image)
                record = orjson.dumps(sample.metadata | {"image_sha256": digest.hexdigest()})
                tar.add(Sample(sample.key, sample.caption, record, None, None, None), image)
                tree.add(sample_leaf(sample.key, digest.digest(), sample.caption))
            refuse_other_count(tar.samples, shard)
            tar.end()
            draft.publish()
    except Unreadable as error:
        raise UserError(
            f"{shard.path}: {error}; remove it and run the same command again"
        ) from None
    file = {"path": shard.name, "bytes": tar.size, "sha256": tar.sha256.hexdigest()}
    known = Known(file, shard_of(shard.name, tree), os.stat(path).st_mtime_ns)
    publish_text(mark, json.dumps({"made_of": made_of, "known": asdict(known)}))


def _signed(sample: ShardSample, sign: Sign) -> bytes:
    image = sign(sample.image, f"{os.path.basename(sample.key)}.jpg")
    try:
        same = read_jpeg(image).picture == read_jpeg(sample.image).picture
    except ValueError as error:
        raise UserError(f"--c2pa: {sample.key}.jpg cannot be signed: it {error}") from None
    if not same:
        raise UserError(f"--c2pa: {sample.key} would show another picture when it is signed")
    return image


def _is_done(path: str, mark: str, made_of: list[Any]) -> bool:
    try:
        noted = orjson.loads(read_untrusted(mark, MARK_BYTES))
        return bool(noted["made_of"] == made_of and Known.of(noted["known"]).is_still(path))
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not ours: signed again
        return False


def known_signed(folder: str, shard: Shard) -> Known:
    """What was read of a signed tar as it was written.

    OSError, ValueError, KeyError, TypeError: it is not there.
    """
    noted = orjson.loads(read_untrusted(os.path.join(folder, f"{shard.name}.json"), MARK_BYTES))
    return Known.of(noted["known"])
