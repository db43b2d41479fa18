"""The samples of a published shard, a tar or parquet with images inside, read once and in order.

    for sample in read_shard("tars/output_dataset_000000.tar"):
        sample.key, sample.image, sample.caption, sample.metadata

Unlike a reader for training, nothing is forgiven: a shard that is cut, or holds what is no sample,
is Unreadable.
"""

import os
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from common.json_form import number
from common.untrusted import IMAGE_BYTES, open_untrusted
from postprocess_dataset.manifest.hashed import Hashed
from postprocess_dataset.tar_header import header, padded

BLOCK = 512
ROWS = 128  # of embedded images in memory at a time: 10-50 MB
PAX_BYTES = 1 << 20
LENGTH_DIGITS = 7  # of a record in an extended header of so many bytes
END = 1 << 20  # a tar ends with two empty blocks, or some more
COLUMNS = ("__key__", "caption", "image")


class Unreadable(Exception):
    """A shard that is damaged; the text says where and how."""


class ShardSample(NamedTuple):
    """One sample of a shard. metadata: of a tar its .json, of parquet the other columns."""

    key: str
    image: bytes
    caption: str
    metadata: dict[str, Any]


def not_finite(record: dict[str, Any]) -> list[str]:
    """Names of the scores that are no numbers; scores: {name: number}, or fields score_NAME."""
    stored = record.get("scores")
    scores = dict(stored) if isinstance(stored, dict) else {}
    columns = {name for name in record if name.startswith("score_")} - {"score_versions"}
    scores |= {name: record[name] for name in columns}
    return [name for name, value in scores.items() if value is not None and not number(value)]


def read_shard(path: str) -> Iterator[ShardSample]:
    """The samples of a tar. Unreadable: it is damaged from there on. OSError: the disk."""
    with os.fdopen(open_untrusted(path), "rb") as file:
        yield from tar_samples(file)


def parquet_samples(opened: BinaryIO) -> Iterator[ShardSample] | None:
    """The samples of an open parquet file; None of one without images.

    Unreadable: it is none, or damaged from there on.
    """
    place = f"/proc/self/fd/{opened.fileno()}"  # Arrow reads it without Python's lock
    try:
        schema = pq.read_schema(place)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"is no parquet file: {str(error).splitlines()[0]}") from None
    return _rows(place) if _has_images(schema) else None


def _has_images(schema: pa.Schema) -> bool:
    if not all(name in schema.names for name in COLUMNS):
        return False
    kind = schema.field("image").type
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _rows(path: str) -> Iterator[ShardSample]:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # or a whole shard is in memory
            for batch in file.iter_batches(ROWS, use_threads=False):
                for row in batch.to_pylist():
                    key, caption, image = (row.pop(name) for name in COLUMNS)
                    content = (image or {}).get("bytes")
                    if key is None or caption is None or content is None:
                        raise Unreadable(f"row of {key} has no key, image or caption")
                    yield ShardSample(key, content, caption, row)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise Unreadable(f"cannot be read further: {str(error).splitlines()[0]}") from None


def tar_samples(file: BinaryIO | Hashed) -> Iterator[ShardSample]:
    """KEY.jpg, KEY.txt, KEY.json, which follow each other."""
    key = ""
    parts: dict[str, bytes] = {}
    for name, content in tar_members(file):
        folder, slash, last = name.rpartition("/")
        stem, _, suffix = last.partition(".")
        if f"{folder}{slash}{stem}" != key:
            if parts:
                yield _sample(key, parts)
            key = f"{folder}{slash}{stem}"
            parts = {}
        if suffix in parts:
            raise Unreadable(f"{name} is there twice in a row")
        parts[suffix] = content
    if parts:
        yield _sample(key, parts)


def _sample(key: str, parts: dict[str, bytes]) -> ShardSample:
    try:
        metadata = orjson.loads(parts["json"])
        caption = parts["txt"].decode()
        image = parts["jpg"]
    except KeyError as error:
        raise Unreadable(f"{key} has no .{error.args[0]}") from None
    except ValueError as error:
        raise Unreadable(f"{key}: {error}") from None
    if not isinstance(metadata, dict):
        raise Unreadable(f"{key}.json is not an object")
    return ShardSample(key, image, caption, metadata)


def tar_members(file: BinaryIO | Hashed) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the plain files of a tar, up to its two empty blocks.

    tarfile takes a damaged header for the end. Unreadable: it is cut, or no tar.
    """
    place = 0
    path = ""  # of an extended header
    while True:
        head = file.read(BLOCK)
        if not head.strip(b"\0"):
            rest = file.read(END)
            if len(head) < BLOCK or len(rest) < BLOCK or rest.strip(b"\0"):
                raise Unreadable(f"ends at byte {place:,} without the mark of an end")
            return
        try:
            member = _plain(head) or tarfile.TarInfo.frombuf(head, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise Unreadable(f"no file begins at byte {place:,}: {error}") from None
        if not 0 <= member.size <= (IMAGE_BYTES if member.isreg() else PAX_BYTES):
            raise Unreadable(f"{member.name} has {member.size:,} bytes")
        content = file.read(padded(member.size))
        if len(content) < padded(member.size):
            raise Unreadable(f"{member.name} ends at byte {place + BLOCK + len(content):,}")
        place += BLOCK + len(content)
        if content[member.size :].strip(b"\0"):
            raise Unreadable(f"something follows {member.name} where nothing should")
        content = content[: member.size]
        if member.type == tarfile.XHDTYPE:
            try:
                path = _pax_path(content)
            except UnicodeDecodeError as error:
                raise Unreadable(f"a name before byte {place:,} is not UTF-8: {error}") from None
        elif member.isreg():
            yield path or member.name, content
            path = ""
        elif not member.isdir():
            raise Unreadable(f"{member.name} is no plain file")


def _plain(head: bytes) -> tarfile.TarInfo | None:
    """A header that is byte for byte one of this project's; None of any other.

    tarfile takes 20 us for one, three times a sample: half of the time of reading a tar.
    """
    try:
        name = head[:100].rstrip(b"\0").decode("ascii")
        size = int(head[124:135], 8)
    except ValueError:
        return None
    if "\0" in name or header(name, size) != head:
        return None
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _pax_path(content: bytes) -> str:
    """The path in an extended header of long names: "52 path=…\\n"."""
    while content:
        length, _, rest = content.partition(b" ")
        known = length.isdigit() and len(length) <= LENGTH_DIGITS
        size = int(length) if known else 0
        if size <= len(length) + 1:
            break  # no record
        record = rest[: size - len(length) - 2]
        if record.startswith(b"path="):
            return record[5:].decode()
        content = content[size:]
    return ""
