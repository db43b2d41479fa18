"""MANIFEST.json: the files of a release and their hashes, by which anyone can check a download.

    root = write_manifest("release")            # sha256 of every file, a Merkle root for each shard
    download = check_manifest("release", progress)

The root stands for all of it, and for the findings that the publisher allows: who has it from the
publisher needs to trust nothing else. What is allowed never covers a file that differs. A shard's
own root is over its samples (merkle.py), so that the tars and the parquet of the same rows have the
same one, and that one image can be proved to be in the release.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any

from common.files import write_whole
from common.jpeg import C2PA, read_jpeg
from common.json_form import COUNT, SHA256, TIME_NS, has_form, in_form
from common.json_text import parse_json
from common.untrusted import Refused, open_untrusted, read_untrusted, real_folders
from postprocess_dataset.manifest.hashed import Hashed
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.merkle import Tree, file_leaf, sample_leaf
from postprocess_dataset.manifest.shards import (
    ShardSample,
    Unreadable,
    not_finite,
    parquet_samples,
    tar_samples,
)
from postprocess_dataset.private_fields import private_fields, private_parts
from postprocess_dataset.progress import Progress

NAME = "MANIFEST.json"
FORMAT = "text-to-image-manifest-2"
MANIFEST_BYTES = 1 << 30
# What a sample may say, if its publisher knows of it. All other kinds are damage of the download.
OF_SAMPLES = ("private_field", "nan_score")
NOT_LISTED = {NAME, "verification.json"}  # in the release folder itself; below it they are files
File = dict[str, Any]
Shard = dict[str, Any]
FILE = {"path": str, "bytes": COUNT, "sha256": SHA256}
SHARD = {"path": str, "samples": COUNT, "merkle_root": SHA256}
KNOWN = {"file": FILE, "shard": SHARD, "changed_ns": TIME_NS}  # as of each tar


def files_below(folder: str) -> Iterator[str]:
    """Paths below a release folder in their order; names with a leading dot are not of it."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        found += [
            os.path.relpath(os.path.join(place, name), folder)
            for name in (*names, *links)
            if not name.startswith(".")
        ]
    return iter(sorted(set(found) - NOT_LISTED))


@dataclass(frozen=True)
class Known:
    """A file that was read already, and when it had been changed then; shard: if it is one."""

    file: File
    shard: Shard | None
    changed_ns: int

    @classmethod
    def of(cls, document: Any) -> "Known":
        """As it was written by asdict(). ValueError: it has another form."""
        in_form(document, KNOWN)
        return cls(document["file"], document["shard"], document["changed_ns"])

    def under(self, path: str) -> "Known":
        """The same of a file of another name."""
        shard = {**self.shard, "path": path} if self.shard else None
        return Known({**self.file, "path": path}, shard, self.changed_ns)

    def is_still(self, path: str) -> bool:
        """Whether the file there is the one that was read, by size and time of change."""
        there = os.stat(path)
        return (self.file["bytes"], self.changed_ns) == (there.st_size, there.st_mtime_ns)


def write_manifest(
    folder: str,
    progress: Progress | None = None,
    allowed: Iterable[str] = (),
    known: Mapping[str, Known] | None = None,
) -> str:
    """Write FOLDER/MANIFEST.json and return the root, in hex.

    allowed: kinds of findings (kinds.py) that the publisher knows of, "private_field" for example:
    who checks the download is told of them, and they do not count against it. known: files that
    need not be read once more, by path. Unreadable: a shard is damaged. OSError: a file cannot be
    read, or is a link to elsewhere.
    """
    files = []
    shards = []
    for path in files_below(folder):
        before = (known or {}).get(path)
        whole = os.path.join(folder, path)
        if before and before.is_still(whole):
            files.append(before.file)
            shards += [before.shard] if before.shard else []
            continue
        try:
            file, shard = look(folder, path, Findings(), progress)
        except Unreadable as error:
            raise Unreadable(f"{whole}: {error}") from None
        files.append(file)
        shards += [shard] if shard else []
    allowed = sorted(allowed)
    root = root_of(files, allowed)
    document: dict[str, Any] = {"format": FORMAT, "root": root, "allowed": allowed}
    document |= {"files": files, "shards": shards}
    write_whole(os.path.join(folder, NAME), json.dumps(document, indent=1) + "\n")
    return root


def root_of(files: list[File], allowed: Iterable[str]) -> str:
    """The root over what is allowed, and over all files in the order of their paths."""
    tree = Tree()
    tree.add(f"allowed\0{','.join(sorted(allowed))}".encode())
    for file in sorted(files, key=lambda file: str(file["path"])):
        tree.add(file_leaf(file["path"], file["bytes"], file["sha256"]))
    return tree.root().hex()


def _file(folder: str, path: str) -> File:
    with os.fdopen(open_untrusted(os.path.join(folder, path), real_folders([folder])), "rb") as f:
        return _hashed(f, path)


def _hashed(opened: BufferedReader, path: str) -> File:
    digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"path": path, "bytes": opened.tell(), "sha256": digest}


def _size(folder: str, path: str) -> int:
    descriptor = open_untrusted(os.path.join(folder, path), real_folders([folder]))
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def look(
    folder: str, path: str, found: Findings, progress: Progress | None = None
) -> tuple[File, Shard | None]:
    """A file, and the shard that it is, if it is one. A tar is read once.

    found: what nobody should publish. Unreadable: it is damaged. OSError: it cannot be read, or is
    a link to elsewhere.
    """
    whole = os.path.join(folder, path)
    with os.fdopen(open_untrusted(whole, real_folders([folder])), "rb") as opened:
        if path.endswith(".tar"):
            hashed = Hashed(opened)
            shard = _shard(path, tar_samples(hashed), found, progress)
            size, sha256 = hashed.finish()
            return {"path": path, "bytes": size, "sha256": sha256}, shard
        file = _hashed(opened, path)
        if not path.endswith(".parquet"):
            return file, None
        samples = parquet_samples(opened)  # of this very file, whatever has its name by now
        return file, _shard(path, samples, found, progress) if samples is not None else None


def _shard(
    path: str, samples: Iterable[ShardSample], found: Findings, progress: Progress | None
) -> Shard:
    tree = Tree()
    for sample in samples:
        where = f"{path}: {sample.key}"
        if private := [*private_fields(sample.metadata), *_parts(sample.image, where, found)]:
            found.add("private_field", where, ", ".join(private))
        for name in not_finite(sample.metadata):
            found.add("nan_score", where, f"{name} is no number")
        tree.add(sample_leaf(sample.key, hashlib.sha256(sample.image).digest(), sample.caption))
        if progress:
            progress.add(1, len(sample.image))
    return shard_of(path, tree)


def _parts(image: bytes, where: str, found: Findings) -> list[str]:
    """What the bytes of a published image tell; its publisher's signature is meant to."""
    try:
        return [part for part in private_parts(read_jpeg(image)) if part != C2PA]
    except ValueError as error:
        found.add("torn", where, str(error))
        return []


def shard_of(path: str, tree: Tree) -> Shard:
    """A shard's entry, of the leaves of its samples."""
    return {"path": path, "samples": tree.count, "merkle_root": tree.root().hex()}


@dataclass
class Download:
    """What a download holds: samples of each shard, and what its publisher says of it."""

    root: str
    allowed: tuple[str, ...]
    samples: dict[str, int] = field(default_factory=dict)
    found: Findings = field(default_factory=Findings)


def check_manifest(folder: str, progress: Progress) -> Download:
    """A download, checked by its manifest alone.

    ValueError, FileNotFoundError: there is no manifest, or it is damaged.
    """
    manifest = read_manifest(folder)
    allowed = tuple(kind for kind in manifest["allowed"] if kind in OF_SAMPLES)
    download = Download(manifest["root"], allowed)
    found = download.found
    listed = {file["path"]: file for file in manifest["files"]}
    if manifest["root"] != root_of(manifest["files"], manifest["allowed"]):
        found.add("index_without_shard", NAME, "its root is not the one of what it says")
    for path in files_below(folder):
        if path not in listed:
            found.add("foreign", path, f"{NAME} does not list it")
    stated = {shard["path"]: shard for shard in manifest["shards"]}
    for path, file in sorted(listed.items()):
        shard = _intact_shard(folder, file, found, progress)
        if shard is None:
            continue
        download.samples[path] = shard["samples"]
        if stated.get(path) != shard:
            found.add("index_without_shard", NAME, f"states other samples or roots of {path}")
    for path in sorted(stated.keys() - listed.keys()):
        found.add("index_without_shard", path, f"{NAME} lists it as a shard and not as a file")
    return download


def _intact_shard(folder: str, stated: File, found: Findings, progress: Progress) -> Shard | None:
    """The shard that a file is; None where it is none, or not the file that is listed."""
    path = stated["path"]
    inside = Findings()
    damage = ""
    shard = None
    try:
        size = _size(folder, path)
        if size != stated["bytes"]:  # not read: it may be a sparse file of terabytes
            found.add("torn", path, f"has {size:,} bytes, {stated['bytes']:,} are stated")
            return None
        try:
            there, shard = look(folder, path, inside, progress)
        except Unreadable as error:
            damage = str(error)
            there = _file(folder, path)
    except FileNotFoundError:
        found.add("missing", path, f"{NAME} lists it")
        return None
    except OSError as error:
        found.add("foreign", path, f"is not taken: {error.strerror}")
        return None
    if there["sha256"] != stated["sha256"]:
        found.add("wrong_hash", path, "sha256 differs")
        return None
    if damage:
        found.add("unreadable_shard", path, damage)
    found.merge(inside)
    return shard


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest. ValueError: it is damaged. FileNotFoundError: there is none."""
    return parse(read_content(folder), os.path.join(folder, NAME))


def read_content(folder: str) -> bytes:
    """The bytes of the manifest. Errors as of read_manifest()."""
    place = os.path.join(folder, NAME)
    try:
        return read_untrusted(place, MANIFEST_BYTES, real_folders([folder]), text=True)
    except Refused as error:
        raise ValueError(f"{place} is damaged: {error.strerror}") from None


def parse(content: bytes, place: str) -> dict[str, Any]:
    """The manifest in these bytes; every path in it lies below the folder. ValueError: damaged."""
    try:
        manifest = parse_json(content, unique=True)
        good = (
            manifest["format"] == FORMAT
            and has_form([manifest["root"], *manifest["allowed"]], [str])
            and isinstance(manifest["allowed"], list)
            and all(_is_file(file) for file in manifest["files"])
            and all(has_form(shard["path"], str) for shard in manifest["shards"])
        )
    except (KeyError, TypeError):
        good = False
    except ValueError as error:
        raise ValueError(f"{place} is damaged: {type(error).__name__}: {error}") from None
    if not good:
        raise ValueError(f"{place} is damaged: it is no manifest of this form ({FORMAT})")
    found: dict[str, Any] = manifest
    return found


def _is_file(file: File) -> bool:
    path = file["path"]
    if not has_form(path, str):
        return False
    parts = path.split("/")
    inside = not path.startswith("/") and not {"", ".", ".."} & set(parts) and "\0" not in path
    return inside and type(file["bytes"]) is int and has_form(file["sha256"], str)
