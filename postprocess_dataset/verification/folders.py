"""One pass over the folders of data sets: every file is read, by worker processes.

seen = FolderPass(["/data/HPDv2"], "/data", evidence, judge).run(found)
seen.samples, seen.licences, seen.done["HPDv2"][12]      # prompts of block 12 that are done
"""

import contextlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.definition_files import definition_files
from common.files import parse_yaml
from common.packed_folder import exists
from common.untrusted import DEFINITION_BYTES, read_text
from postprocess_dataset.dataset_folder import BLOCK
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.progress import Progress
from postprocess_dataset.verification.chunk import Checked, Chunk, Judge, Licences, check_chunk
from postprocess_dataset.verification.evidence import Evidence, absent
from postprocess_dataset.verification.names import Names, list_names
from postprocess_dataset.workers import forked, start

CHUNK = 1000  # samples of a task; their texts are screened together
INLINE = 2000  # samples: fewer are checked without worker processes
WORKERS = 8


@dataclass
class Seen:
    """What the pass counted.

    done: {data set: {block: bits of its complete prompts}}. short: images missing since the LLMs
    gave fewer texts. failed: samples given up.
    """

    samples: int = 0
    bytes: int = 0
    short: int = 0
    failed: int = 0
    licences: Licences = field(default_factory=Counter)
    done: dict[str, dict[int, int]] = field(default_factory=dict)
    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)


class FolderPass:
    """folders: absolute paths of data set folders below `base`.

    given_up: {data set: prompts that failed permanently}, from the ledger. hashed_in_tars: the
    evidence has the tars' members, whose writer has compared sha256: an image that is the same in
    its tar, byte for byte, is not hashed again.
    """

    def __init__(
        self,
        folders: Sequence[str],
        base: str,
        evidence: Evidence,
        judge: Judge,
        given_up: dict[str, list[int]],
        hashed_in_tars: bool = False,
    ) -> None:
        self.folders = sorted(folders)
        self.given_up = given_up
        self.hashed_in_tars = hashed_in_tars
        self.base = base
        self.evidence = evidence
        self.judge = judge
        self.count = min(WORKERS, len(os.sched_getaffinity(0)))
        self.seen = Seen()
        self.found = Findings()
        self.progress = Progress("samples")

    def run(self) -> tuple[Seen, Findings]:
        """Read everything. OSError: the disk."""
        with contextlib.ExitStack() as stack:
            pool: Executor | None = None
            waiting: deque[tuple[str, Future[Checked] | Checked]] = deque()
            queued = 0
            for dataset, chunk in self._chunks():
                size = sum(len(names.samples) for _, names in chunk.prompts) + len(chunk.stems)
                queued += size
                if pool is None and queued > INLINE:
                    pool = stack.enter_context(forked(self.count))
                if self.hashed_in_tars:
                    images = self.evidence.images_in_tars(chunk.keys)
                    chunk = replace(chunk, in_tars=images)
                if pool is None:
                    waiting.append((dataset, check_chunk(self.judge, chunk)))
                else:
                    waiting.append((dataset, start(pool, check_chunk, self.judge, chunk)))
                while len(waiting) > 2 * self.count:
                    self._add(*waiting.popleft())
            while waiting:
                self._add(*waiting.popleft())
        self.progress.close()
        return self.seen, self.found

    def _add(self, dataset: str, result: "Future[Checked] | Checked") -> None:
        checked = result.result() if isinstance(result, Future) else result
        self.found.merge(checked.found)
        self.evidence.add_samples(checked.facts)
        self.seen.samples += checked.samples
        self.seen.failed += checked.given_up
        self.seen.bytes += checked.bytes
        self.seen.short += checked.wanted
        self.seen.licences.update(checked.licences)
        done = self.seen.done.setdefault(dataset, {})
        for index in checked.done:
            done[index // BLOCK] = done.get(index // BLOCK, 0) | 1 << index % BLOCK
        self.progress.add(checked.samples, checked.bytes)

    def _chunks(self) -> Iterator[tuple[str, Chunk]]:
        for folder in self.folders:
            dataset = os.path.relpath(folder, self.base)
            definition = self._definition(folder)
            waiting = [folder]
            prompts = 0
            unknown = False
            while waiting:
                path = waiting.pop()
                subdirectory = os.path.relpath(path, self.base)
                names = list_names(path, subdirectory, self.found)
                waiting += [f"{path}/{name}" for name in reversed(names.folders)]
                prompts += len(names.prompts) + len(names.lost)
                if names.unknown:
                    unknown = True
                    self.evidence.unknown.append(f"{subdirectory}/")
                self.evidence.add_samples(
                    absent(f"{subdirectory}/{index}_{augmentation}")
                    for index, images in names.lost.items()
                    for augmentation in images
                )
                for chunk in cut(path, subdirectory, names, definition is not None):
                    yield dataset, chunk
            if definition:
                self.seen.definitions[dataset] = definition
            unseen = [
                index
                for index in self.given_up.get(dataset, ())
                if not exists(f"{folder}/{index // BLOCK:06d}/{index}.prompts")
            ]
            total = definition.get("total") if definition else None
            left = total - prompts - len(unseen) if isinstance(total, int) else 0
            if left > 0 and not unknown:
                why = f"of {total:,} prompts {left:,} have no file at all"
                self.found.add("missing", dataset, why, left)

    def _definition(self, folder: str) -> dict[str, Any] | None:
        """The newest dataset.yaml; None of a folder that has none (the published script's)."""
        path = Path(folder)
        try:
            if not (found := definition_files(path)):
                return None
            path = found[-1][1]
            newest = parse_yaml(read_text(str(path), DEFINITION_BYTES))
        except (OSError, ValueError) as error:
            self.found.add("torn", str(path), " ".join(str(error).split())[:200])
            return {}
        if not isinstance(newest, dict):
            self.found.add("torn", str(path), "holds no fields")
            return {}
        return newest


def cut(path: str, subdirectory: str, names: Names, has_captions: bool) -> Iterator[Chunk]:
    """Split a folder into chunks of about CHUNK samples, in the order of its prompts."""
    some = []
    size = 0
    for index, prompt in sorted(names.prompts.items()):
        some.append((index, prompt))
        size += max(1, len(prompt.samples))
        if size >= CHUNK:
            yield Chunk(path, subdirectory, some, (), has_captions)
            some = []
            size = 0
    if some:
        yield Chunk(path, subdirectory, some, (), has_captions)
    for tar in names.tars:
        yield Chunk(path, subdirectory, (), tars=[tar])
    stems = sorted(names.others)
    for first in range(0, len(stems), CHUNK):
        yield Chunk(path, subdirectory, (), stems[first : first + CHUNK], has_captions)
