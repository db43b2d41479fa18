"""Read a tar once for the facts of its samples and for all hashes.

    reading = TarReading("tars/output_dataset_000000.tar", planned=True)
    for sample in reading.samples(): …          # Unreadable: it is damaged
    reading.facts.members, reading.facts.known

    path = kept_path("work", "output_dataset_000000.tar")
    save_facts(path, reading.facts)
    load_facts(path, "tars/output_dataset_000000.tar")      # None if that has changed since

A member's sha256 is the one that its JSON states, where it states one: whoever compares `print`, a
fast hash of the image's bytes, with that of an image of this sha256 has found both to be the same.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import orjson
import pyarrow as pa
import xxhash

from common.untrusted import open_untrusted, read_untrusted
from postprocess_dataset.manifest.hashed import Hashed
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.manifest import Known, shard_of
from postprocess_dataset.manifest.merkle import Tree, sample_leaf
from postprocess_dataset.manifest.shards import ShardSample, Unreadable, tar_samples
from postprocess_dataset.private_fields import TEXTS, tells_path, without_folders
from postprocess_dataset.publish import Draft
from postprocess_dataset.table import JSON_FIELDS

SHA256 = re.compile(r"[0-9a-f]{64}")
TEXT_BYTES = 8  # of the hash of a caption, or of all facts
# What a row of the table, and a tar's JSON, tell of a sample as its own JSON does: all but where it
# was made (a release does not tell it), the path, and the hash, which is compared alone.
PLACE = {"hostname", "gpu_name", "slurm_job_id", "lease"}
OF_FOLDERS = ("model_name", "input_file")  # of a folder's path a release tells the last part
OTHERS = sorted(JSON_FIELDS.keys() - PLACE - {"image_path", "image_sha256"} - {*OF_FOLDERS} - TEXTS)
FACTS = [*OF_FOLDERS, *sorted(TEXTS & JSON_FIELDS.keys()), *OTHERS]
HASH = pa.binary()
COLUMNS = pa.schema(
    [("key", pa.string()), *((name, HASH) for name in ("sha256", "caption", "facts", "print"))]
)
SAVED_BYTES = 1 << 28  # 150 bytes a sample
KNOWN = b"known 2"  # another number where facts_of() gives other hashes
DAMAGED = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)
Hash = bytes | None  # None: not to be compared
Member = tuple[str, Hash, Hash, Hash, Hash]  # key, sha256, caption, facts, print


@dataclass
class TarFacts:
    """fault: why it cannot be read further. known: of one that is whole, for its manifest."""

    members: list[Member] = field(default_factory=list)
    found: Findings = field(default_factory=Findings)
    fault: str = ""
    bytes: int = 0
    known: Known | None = None


class TarReading:
    """One reading of a tar.

    planned: by convert_parquet_to_wds.py of a table of this project, so that its JSONs say all that
    the table says.
    """

    def __init__(self, path: str, planned: bool) -> None:
        self.path = path
        self.planned = planned
        self.facts = TarFacts(bytes=os.path.getsize(path))

    def samples(self) -> Iterator[ShardSample]:
        """The samples; the facts are whole at their end. Unreadable: the tar is damaged."""
        name = os.path.basename(self.path)
        tree = Tree()
        changed_ns = os.stat(self.path).st_mtime_ns
        with os.fdopen(open_untrusted(self.path), "rb") as file:
            hashed = Hashed(file)
            for sample in tar_samples(hashed):
                tree.add(self._add(name, sample))
                yield sample
            size, sha256 = hashed.finish()
        stored = {"path": name, "bytes": size, "sha256": sha256}
        self.facts.known = Known(stored, shard_of(name, tree), changed_ns)

    def _add(self, name: str, sample: ShardSample) -> bytes:
        """Note what a sample says; its leaf in the Merkle tree."""
        facts = self.facts
        caption: Hash = hash_of(sample.caption)
        if sample.metadata.get("augmented_prompt", sample.caption) != sample.caption:
            why = "its .txt and its .json have different captions"
            facts.found.add("swapped_caption", f"{name}: {sample.key}", why, mend="tars")
            caption = None
        all_facts = facts_of(map(sample.metadata.get, FACTS)) if self.planned else None
        stated = sample.metadata.get("image_sha256")
        if isinstance(stated, str) and SHA256.fullmatch(stated):
            sha256 = bytes.fromhex(stated)
        else:
            sha256 = hashlib.sha256(sample.image).digest()
        facts.members.append((sample.key, sha256, caption, all_facts, print_of(sample.image)))
        return sample_leaf(sample.key, sha256, sample.caption)


def read_facts(path: str, planned: bool) -> TarFacts:
    """What a tar holds, as far as it can be read."""
    reading = TarReading(path, planned)
    try:
        for _ in reading.samples():
            pass
    except Unreadable as error:
        reading.facts.fault = str(error)
    return reading.facts


def print_of(image: bytes) -> bytes:
    """A fast hash of an image's bytes: the same of the same ones, but anybody can make others."""
    return xxhash.xxh3_128_digest(image)


def hash_of(text: str) -> bytes:
    """A caption as it is compared."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=TEXT_BYTES).digest()


def facts_of(values: Iterable[Any]) -> bytes:
    """The values of FACTS of a sample's JSON, of a row, of a tar's JSON, as they are compared."""
    told = list(values)
    if [] in told:
        told = [None if value == [] else value for value in told]  # a tar leaves out both
    for place in range(len(OF_FOLDERS)):
        told[place] = _last_part(str(told[place]))
    try:
        texts = orjson.dumps(told[: -len(OTHERS)])
        others = orjson.dumps(told[-len(OTHERS) :])
        if b"/" in others or b"\\" in others:  # nor does a release tell any other path
            others = orjson.dumps([_without_path(value) for value in told[-len(OTHERS) :]])
    except orjson.JSONEncodeError:  # of a foreign tar: many levels; no such value is compared
        texts = others = b""
    return hashlib.blake2b(texts + others, digest_size=TEXT_BYTES).digest()


@lru_cache(16)  # a few models and prompts files
def _last_part(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _without_path(value: Any) -> Any:
    if isinstance(value, list):
        return without_folders(value)
    return None if tells_path(value) else value


def kept_path(folder: str, name: str) -> str:
    """Where a folder keeps the facts of a tar of this name."""
    return os.path.join(folder, f"{name}.facts")


def save_facts(path: str, facts: TarFacts) -> None:
    """Keep the facts of a whole tar in which nothing was found; of others nothing is kept."""
    if facts.known is None or facts.found.counts:
        return
    columns = zip(*facts.members, strict=True)
    arrays = [pa.array(column, each.type) for column, each in zip(columns, COLUMNS, strict=True)]
    schema = COLUMNS.with_metadata({KNOWN: orjson.dumps(asdict(facts.known))})
    with Draft(path, wait=True) as draft:
        with pa.ipc.new_file(draft.file, schema) as writer:
            writer.write_table(pa.table(arrays, schema=schema))
        draft.publish()


def load_facts(path: str, tar: str) -> TarFacts | None:
    """What was kept of a tar that has not changed since; else None."""
    try:
        rows = pa.ipc.open_file(read_untrusted(path, SAVED_BYTES)).read_all()
        known = Known.of(orjson.loads(rows.schema.metadata[KNOWN]))
        if not known.is_still(tar) or not rows.schema.equals(COLUMNS):
            return None
        columns = (rows[name].to_pylist() for name in COLUMNS.names)
        members = list(zip(*columns, strict=True))
        return TarFacts(members, bytes=known.file["bytes"], known=known)
    except DAMAGED:
        return None
