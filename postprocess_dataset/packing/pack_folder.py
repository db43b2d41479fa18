"""Pack a sub-folder of a data set: write tars, publish its mark PACKED, remove the loose files.

    packed = Packing(Path("HPDv2/000012")).run()      # Packed(prompts=1000, files=402_000, …)

The order makes a kill at any instant safe: the tars are written and read back; the mark names them;
only then the loose files are removed. Before the mark is there the loose files count, afterwards
the tars do (common/packed_folder.py). A `.failed` stays loose: `--retry_failed` removes it.

All of a folder marked COMPLETE is packed. Since 256 folders are open at a time, prompts of an open
one are packed, too, once all their captions are images and nobody has touched them for a minute.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from common.files import sync_folder
from common.given_up import is_given_up
from common.number_ranges import ranges
from common.packed_folder import (
    COLLECTED,
    EARLY_FILES,
    FILE,
    MARK,
    PackedFolder,
    packed,
    shortfall,
    text_count,
)
from common.untrusted import Refused, open_untrusted
from postprocess_dataset.packing.loose_file import OTHER_BYTES, generation_of, read_loose
from postprocess_dataset.packing.publish_mark import publish_mark
from postprocess_dataset.packing.read_back import read_back
from postprocess_dataset.packing.unnamed_tars import remove_unnamed_tars
from postprocess_dataset.tar_header import END, file_in_tar

TAR_BYTES = 1 << 30  # a tar ends after so many bytes, and the next one begins
QUIET_S = 60.0  # a prompt of an open folder is packed if it was not touched for so long
AHEAD_S = 3600.0  # a later time than that is of a clock that was wrong
Identity = tuple[int, int, int]  # of a file: inode, size, time of change


@dataclass
class Packed:
    """The result for a folder. left: why prompts stay loose."""

    prompts: int = 0
    files: int = 0  # packed now
    removed: int = 0  # loose files
    left: list[str] = field(default_factory=list)
    busy: bool = False  # another process packs it


@dataclass
class LoosePrompt:
    """The loose files of a prompt that go into a tar: names in their order."""

    index: int
    names: list[str] = field(default_factory=list)
    images: set[int] = field(default_factory=set)
    captions: int | None = None
    generation: int = 0
    short: dict[str, Any] | None = None


class Packing:
    """One folder, one run.

    tar_bytes: a new tar begins after so many. early_files, quiet_s: of a folder that is not
    COMPLETE, prompts are packed that take at least so many files and are that old.
    """

    def __init__(
        self,
        folder: Path,
        tar_bytes: int = TAR_BYTES,
        early_files: int = EARLY_FILES,
        quiet_s: float = QUIET_S,
    ) -> None:
        self.early_files = early_files
        self.quiet_s = quiet_s
        self.complete = False
        self.folder = folder
        self.tar_bytes = tar_bytes
        self.result = Packed()
        self.identities: dict[str, Identity] = {}
        self.sound: dict[Path, bool] = {}  # tars that were hashed
        self.tars: list[dict[str, Any]] = []  # new entries of the mark
        self.entries: dict[str, Any] = {}
        self.names: list[str] = []  # in the new tars

    def run(self) -> Packed:
        """OSError: the disk, or a link; the loose files are all there then.

        Through a link the files of another folder would be packed, and removed there.
        """
        if self.folder.is_symlink():
            raise Refused("it is a link to a folder, which is not followed", self.folder)
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._pack()
        except BlockingIOError:
            self.result.busy = True
        finally:
            os.close(handle)
        return self.result

    def _pack(self) -> None:
        mark = packed(self.folder)
        if mark is None and os.path.lexists(self.folder / MARK):
            why = "it is no mark: nothing is packed here until it is moved away"
            raise Refused(why, self.folder / MARK)
        names = self._loose()
        if mark:  # a packer that was killed after its mark left loose files
            left_behind = {name for name in names if self._is_left_behind(mark, name)}
            self._remove(sorted(left_behind), {})
            names = [name for name in names if name not in left_behind]
        remove_unnamed_tars(self.folder, mark)
        self.complete = (self.folder / "COMPLETE").exists()
        prompts = list(self._prompts(names))
        if not self.complete:
            prompts = [prompt for prompt in prompts if self._is_finished(prompt, mark)]
            if sum(len(prompt.names) for prompt in prompts) < self.early_files:
                return
        first = len(mark.record["tars"]) if mark else 0
        self._write_tars(iter(prompts), mark, first)
        if not self.entries:
            return
        if any(self._identity(name) != known for name, known in self.identities.items()):
            self.result.left.append(f"{self.folder}: its files change at this moment; later")
            return
        none: dict[str, Any] = {"format": 1, "tars": [], "prompts": {}}
        before = mark.record if mark else none
        record = before | {
            "tars": before["tars"] + self.tars,
            "prompts": before["prompts"] | self.entries,
        }
        publish_mark(self.folder, record, self.names)
        self.result.prompts = len(self.entries)
        self.result.files = len(self.identities)
        self._remove(list(self.identities), self.identities)

    def _is_left_behind(self, mark: PackedFolder, name: str) -> bool:
        """Whether a loose file is packed already, but for a .samples made after an extension.

        One that differs from its packed copy goes as well, unless the tar is damaged.
        """
        member = mark.find(name)
        if member is None:
            return False
        try:
            found = read_loose(self.folder, name)
        except OSError:  # a late copy that is too large, or no text: it differs
            found = None
        if member.read(OTHER_BYTES) == found:
            return True
        return not name.endswith(COLLECTED) and self._is_sound(mark, member.path)

    def _is_sound(self, mark: PackedFolder, tar: Path) -> bool:
        """Whether a tar has the sha256 that the mark states; one that has not is named once."""
        if tar not in self.sound:
            with os.fdopen(open_untrusted(tar), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            stated = [entry.get("sha256") for entry in mark.record["tars"]]
            if digest not in stated:
                why = f"{tar} is damaged (not the sha256 of {MARK}); loose files of it stay"
                self.result.left.append(why)
            self.sound[tar] = digest in stated
        return self.sound[tar]

    def _loose(self) -> list[str]:
        with os.scandir(self.folder) as entries:
            return [
                entry.name
                for entry in entries
                if (match := FILE.fullmatch(entry.name))
                and match[3] != "failed"
                and entry.is_file(follow_symlinks=False)
            ]

    def _prompts(self, names: list[str]) -> Iterator[LoosePrompt]:
        """Prompt by prompt. An image without JSON, or a JSON without image, stays loose."""
        there = set(names)
        by_index: dict[int, list[tuple[int, str]]] = {}
        for name in names:
            match = FILE.fullmatch(name)
            assert match is not None, "names are of this form"
            partner = {"jpg": ".json", "json": ".jpg"}.get(match[3])
            if partner and f"{name.rsplit('.', 1)[0]}{partner}" not in there:
                if self.complete:  # else it is being written
                    self.result.left.append(f"{self.folder / name}: no {partner} beside it")
                continue
            by_index.setdefault(int(match[1]), []).append((int(match[2] or -1), name))
        for index, found in sorted(by_index.items()):
            images = {aug for aug, name in found if name.endswith(".jpg")}
            yield LoosePrompt(index, [name for _, name in sorted(found)], images)

    def _is_finished(self, prompt: LoosePrompt, mark: PackedFolder | None) -> bool:
        """Whether each caption of its newest .prompts is an image or given up, for some time."""
        before = mark.prompts.get(prompt.index) if mark else None
        newest = max((generation_of(name) for name in prompt.names), default=0)
        count = before.captions if before else None
        try:
            if newest:
                name = f"{prompt.index}.prompts{newest if newest > 1 else ''}"
                data = read_loose(self.folder, name)
                count = len(orjson.loads(data)["texts"])
            ages = [time.time() - (self.folder / name).lstat().st_mtime for name in prompt.names]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if count is None or any(-AHEAD_S < age < self.quiet_s for age in ages):
            return False
        images = prompt.images | (before.images if before else set())
        return all(
            aug in images or is_given_up(self.folder / f"{prompt.index}_{aug}.failed")
            for aug in range(count)
        )

    def _write_tars(
        self, prompts: Iterator[LoosePrompt], mark: PackedFolder | None, first: int
    ) -> None:
        waiting = next(prompts, None)
        while waiting is not None:
            number = first + len(self.tars)
            name = f"part-{number:05d}.tar"
            temporary = self.folder / f".{name}.tmp"
            temporary.unlink(missing_ok=True)  # of a packer that was killed
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o666), "r+b") as file:
                digest = hashlib.sha256()
                size = 0
                files: dict[str, bytes] = {}
                while waiting is not None and size < self.tar_bytes:
                    if contents := self._files(waiting, mark):
                        data = b"".join(map(file_in_tar, contents.keys(), contents.values()))
                        files |= {n: hashlib.sha256(d).digest() for n, d in contents.items()}
                        file.write(data)
                        digest.update(data)
                        span = [number, size, len(data)]
                        self.entries[str(waiting.index)] = self._entry(waiting, span, mark)
                        size += len(data)
                    waiting = next(prompts, None)
                file.write(bytes(END))
                digest.update(bytes(END))
                read_back(file, temporary, digest.hexdigest(), files)
            self.names += files
            if not size:
                temporary.unlink()
                return
            os.rename(temporary, self.folder / name)
            sync_folder(self.folder)
            self.tars.append({"name": name, "bytes": size + END, "sha256": digest.hexdigest()})

    def _files(self, prompt: LoosePrompt, mark: PackedFolder | None) -> dict[str, bytes]:
        """The files of a prompt for a tar; none if something is wrong with it, which is named.

        A .samples that does not hold the JSONs is removed, not packed: it is made from them.
        """
        identities = {}
        contents: dict[str, bytes] = {}
        try:
            for name in prompt.names:
                identities[name] = self._identity(name)
                contents[name] = read_loose(self.folder, name)
            self._check(prompt, contents)
        except FileNotFoundError:
            return {}  # taken away just now
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.result.left.append(f"{self.folder}: prompt {prompt.index} stays loose: {error}")
            return {}
        self.identities |= identities
        before = mark.prompts.get(prompt.index) if mark else None
        images = prompt.images | (before.images if before else set())
        return {
            name: data
            for name, data in contents.items()
            if not name.endswith(COLLECTED) or _holds(data, contents, len(images))
        }

    def _check(self, prompt: LoosePrompt, contents: dict[str, bytes]) -> None:
        """ValueError: an image is not the one of its JSON, or no mark can state the texts."""
        for aug in prompt.images:
            stem = f"{prompt.index}_{aug}"
            record = orjson.loads(contents[f"{stem}.json"])
            if (record["prompt_index"], record["augmentation_idx"]) != (prompt.index, aug):
                raise ValueError(f"{stem}.json is of another sample")
            wanted = record.get("image_sha256")
            if wanted and hashlib.sha256(contents[f"{stem}.jpg"]).hexdigest() != wanted:
                raise ValueError(f"{stem}.jpg is not the image of its JSON (sha256 differs)")
        for name in prompt.names:
            generation = generation_of(name)
            if generation and generation >= prompt.generation:
                captions = orjson.loads(contents[name])
                prompt.generation = text_count(generation)
                prompt.captions = text_count(len(captions["texts"]))
                prompt.short = shortfall(captions["short"])

    def _entry(
        self, prompt: LoosePrompt, span: list[int], mark: PackedFolder | None
    ) -> dict[str, Any]:
        """A prompt's entry in the mark: with what was packed of it before."""
        before = mark.prompts.get(prompt.index) if mark else None
        newer = before is None or prompt.generation > before.generation
        source = prompt if newer or before is None else before
        return {
            "at": [list(old) for old in before.spans] + [span] if before else [span],
            "images": ranges(prompt.images | (before.images if before else set())),
            "failed": "",
            "captions": source.captions,
            "generation": source.generation,
            "short": source.short,
        }

    def _identity(self, name: str) -> Identity:
        try:
            there = os.lstat(self.folder / name)
        except FileNotFoundError:
            return (0, 0, 0)
        return there.st_ino, there.st_size, there.st_mtime_ns

    def _remove(self, names: list[str], identities: dict[str, Identity]) -> None:
        """Remove the loose files that the mark lists, unless they were replaced meanwhile."""
        for name in names:
            if name in identities and self._identity(name) != identities[name]:
                continue
            (self.folder / name).unlink(missing_ok=True)
            self.result.removed += 1
        if names:
            sync_folder(self.folder)


def _holds(collected: bytes, contents: dict[str, bytes], images: int) -> bool:
    """Whether a .samples holds these JSONs, and as many as there are images."""
    lines = collected.splitlines(keepends=True)
    jsons = {data for name, data in contents.items() if name.endswith(".json")}
    return len(lines) == images and jsons <= set(lines)
