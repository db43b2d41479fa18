"""Write one tar and the files beside it.

output_dataset_000000.tar               KEY.jpg (the very bytes), KEY.txt (caption),
                                        KEY.json (metadata) a sample
output_dataset_000000_stats.json        its done mark: rows, samples, bytes, and what was left
                                        out with its reason
index.json                              url, nsamples, filesize of each (wids reads it), written
                                        when all are done
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from common.json_form import COUNT, in_form
from common.untrusted import read_untrusted
from postprocess_dataset import table
from postprocess_dataset.column_values import in_json
from postprocess_dataset.publish import Draft, publish_text
from postprocess_dataset.shard_images import BUFFER, Images
from postprocess_dataset.shard_rows import KEY, Sample, samples
from postprocess_dataset.tar_header import header
from postprocess_dataset.to_tars.shard_plan import MARKS, SHARD, Shard

NO_TEXT = "row has no key or no caption"
BAD_KEY = "its key is no path below a folder"  # readers unpack tars: ../../x, /x
UNCLEAN_KEY = "its key has a control character"  # a list of names has one name a line
LONG_KEY = "its key is too long for a file's name"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SUFFIX = 5  # bytes of .json, the longest
MOST_PART = 255 - SUFFIX  # bytes between two slashes that Linux takes
MOST_KEY = 4096 - 1 - SUFFIX  # bytes of a whole path
ZEROS = bytes(512)
STATS_BYTES = 1 << 30  # some 200 bytes an image that was left out
# Bytes after which Linux is asked to begin writing to the disk, instead of waiting for the fsync:
# 0.8 of the wall time.
SEND = 8 << 20
Stats = dict[str, Any]
LEFT_OUT = {KEY: (None, str), "image_path": (None, str), "reason": str}
STATS = SHARD | {"nsamples": COUNT, "filesize": COUNT, "gone": COUNT, "left_out": [LEFT_OUT]}
Counted = Callable[[int, int], None]  # images and bytes done since the last call


@dataclass(frozen=True)
class Source:
    """Where the rows of shards come from: files in tar order, images, keys that were deleted."""

    files: Sequence[str]
    images: Images
    deleted: set[str]


def write_shard(output: str, shard: Shard, source: Source, counted: Counted) -> Stats:
    """Write one shard, unless all its images are left out."""
    left_out = []
    dropped = 0
    row = shard["start"]
    buffer = bytearray(BUFFER)
    with Draft(os.path.join(output, shard["name"]), wait=True) as draft:
        if done := stats_of(output, shard, source.images):  # by another process, meanwhile
            return done
        tar = TarWriter(draft.file)
        for batch in table.read_rows(source.files, row, shard["stop"], batch_size=2048):
            before = tar.size
            for sample in samples(batch, row):
                row += 1
                if sample.key in source.deleted:
                    dropped += 1
                    continue
                fault = sample.fault or _name_fault(sample)
                image: bytes | memoryview = b""
                if not fault:
                    place = sample.image_path, sample.key
                    image, fault = source.images.read(place, sample.sha256, buffer)
                if fault:
                    left_out.append(_left_out(row - 1, sample, fault))
                else:
                    tar.add(sample, image)
            counted(len(batch), tar.size - before)
        if tar.samples:  # readers fail at a tar without a member
            tar.end()
            draft.publish()
    return {
        **shard,
        "nsamples": tar.samples,
        "filesize": tar.size,
        "gone": dropped,
        "left_out": left_out,
    }


def _name_fault(sample: Sample) -> str | None:
    """Why a row cannot go into a tar, apart from its image; or None."""
    if not sample.key or not isinstance(sample.caption, str):
        return NO_TEXT
    parts = sample.key.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        return BAD_KEY
    if CONTROL.search(sample.key):
        return UNCLEAN_KEY
    if len(sample.key.encode()) > MOST_KEY or any(len(p.encode()) > MOST_PART for p in parts):
        return LONG_KEY
    return None


def _left_out(row: int, sample: Sample, reason: str) -> dict[str, Any]:
    return {
        "row": row,
        KEY: sample.key,
        "image_path": _text(sample.image_path),
        "image_sha256": _text(sample.sha256),
        "reason": reason,
    }


def _text(value: Any) -> str | None:
    """A value of a table of any kind, as the stats can hold it."""
    return value if isinstance(value, str | None) else in_json(value)


class TarWriter:
    """Writes samples to a Draft's file; sha256: takes every byte, too.

    The file's buffer of 1 MB makes few large writes: one for each sample takes 15 us more of it.
    """

    def __init__(self, file: BinaryIO, sha256: Any = None) -> None:
        self.file = file
        self.sha256 = sha256
        self.samples = 0
        self.size = 0
        self.sent = 0  # bytes that the disk was asked to take

    def add(self, sample: Sample, image: bytes | memoryview) -> None:
        """Three members."""
        for suffix, content in (
            (".jpg", image),
            (".txt", sample.caption.encode()),
            (".json", sample.metadata),
        ):
            self._write(header(sample.key + suffix, len(content)))
            self._write(content)
            self._write(ZEROS[: -len(content) % 512])
        self.samples += 1
        if self.size - self.sent > SEND:
            self.file.flush()
            begun = self.sent, self.size - self.sent
            os.posix_fadvise(self.file.fileno(), *begun, os.POSIX_FADV_DONTNEED)
            self.sent = self.size

    def end(self) -> None:
        """The two empty blocks at the end."""
        self._write(ZEROS * 2)

    def _write(self, piece: bytes | memoryview) -> None:
        self.file.write(piece)
        self.size += len(piece)
        if self.sha256:
            self.sha256.update(piece)


def stats_path(output: str, shard: Shard) -> str:
    """Where a shard's done mark lies."""
    return os.path.join(output, shard["name"].removesuffix(".tar") + "_stats.json")


def mark_done(output: str, shard: Shard, stats: Stats) -> None:
    """Write the done mark of a shard that is published."""
    publish_text(stats_path(output, shard), json.dumps(stats))


def remove(output: str, shard: Shard) -> None:
    """Remove a shard and its done mark, the mark first."""
    remove_mark(output, shard)
    path = os.path.join(output, shard["name"])
    if os.path.lexists(path):
        os.unlink(path)


def remove_mark(output: str, shard: Shard) -> None:
    """Remove a shard's done mark: it is then written again, in place of the one that is there."""
    path = stats_path(output, shard)
    if os.path.lexists(path):
        os.unlink(path)


def remove_all_marks(output: str) -> None:
    """Remove the done marks of all shards, and the indexes."""
    for name in os.listdir(output):
        if MARKS.fullmatch(name):
            os.unlink(os.path.join(output, name))


def stats_of(output: str, shard: Shard, images: Images) -> Stats | None:
    """A shard's stats when it is done, else None.

    Done: whole, of these rows, and no image that was left out then can be taken now.
    """
    try:
        content = read_untrusted(stats_path(output, shard), STATS_BYTES, text=True)
        stats: Stats = in_form(orjson.loads(content), STATS)
        whole = os.path.getsize(os.path.join(output, shard["name"])) == stats["filesize"]
        same = all(stats[name] == shard[name] for name in SHARD)
        buffer = bytearray(BUFFER)
        for line in stats["left_out"]:
            place = line["image_path"], line[KEY]
            if line["reason"].startswith("image "):
                fault = images.read(place, line.get("image_sha256"), buffer)[1]
                if fault is None:
                    return None
    except (OSError, ValueError):
        return None  # none, or damaged
    return stats if whole and same else None


def write_index(
    output: str, stats: Sequence[Stats], where: Mapping[str, Any] | None = None
) -> None:
    """index.json of all shards, and index_SPLIT.json of each split's; where: what --where took."""
    for split in {None, *(shard["split"] for shard in stats)}:
        listed = [
            {"url": s["name"], "nsamples": s["nsamples"], "filesize": s["filesize"]}
            for s in stats
            if split in (None, s["split"])
        ]
        index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
        index |= {"where": where} if where else {}
        name = f"index_{split}.json" if split else "index.json"
        publish_text(os.path.join(output, name), json.dumps(index, indent=1) + "\n")
