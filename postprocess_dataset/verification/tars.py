"""One pass over the tars: every member, the index, what nobody should publish.

seen = TarPass("tars", evidence, found).run()
seen.samples, seen.lost, seen.names
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from common.command_line import UserError
from common.files import read_json
from common.untrusted import open_untrusted
from postprocess_dataset.increment import NOTE_BYTES
from postprocess_dataset.manifest.hashed import Hashed
from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.manifest import Known, shard_of
from postprocess_dataset.manifest.merkle import Tree, sample_leaf
from postprocess_dataset.manifest.shards import ShardSample, Unreadable, tar_samples
from postprocess_dataset.progress import Progress
from postprocess_dataset.to_tars import shard_plan
from postprocess_dataset.verification.evidence import Evidence, Hash
from postprocess_dataset.verification.samples import facts_of, hash_of
from postprocess_dataset.workers import forked, start

INLINE = 1  # shards that are not worth the forks
WORKERS = 8


@dataclass
class SeenTars:
    """names: of the shards, in their order. lost: samples of shards that cannot be read."""

    names: list[str] = field(default_factory=list)
    samples: int = 0
    lost: int = 0
    shuffled: bool = False
    taken: int | None = None  # rows that --where took; None: all
    options: dict[str, Any] = field(default_factory=dict)  # of the plan
    known: dict[str, Known] = field(default_factory=dict)  # for the manifest, by name


@dataclass
class Shard:
    """What one tar holds: (key, sha256, hashes of caption and facts) of each sample."""

    members: list[tuple[str, Hash, Hash, Hash]] = field(default_factory=list)
    found: Findings = field(default_factory=Findings)
    fault: str = ""
    bytes: int = 0
    known: Known | None = None  # of one that is whole


class TarPass:
    """output: the folder that convert_parquet_to_wds.py wrote."""

    def __init__(self, output: str, evidence: Evidence, found: Findings) -> None:
        self.output = output
        self.evidence = evidence
        self.found = found
        self.seen = SeenTars()
        self.progress = Progress("samples in tars")

    def run(self) -> SeenTars:
        """UserError: there is no such folder, or no tar in it."""
        try:
            there = sorted(name for name in os.listdir(self.output) if name.endswith(".tar"))
        except OSError as error:
            raise UserError(f"{self.output}: {error.strerror}") from None
        index = self._index()
        planned = self._planned()
        if not there and not index and not planned:
            raise UserError(f"{self.output}: there are no tars; run convert_parquet_to_wds.py")
        for name in there:
            if name not in planned and name not in index:
                self.found.add("foreign", f"{self.output}/{name}", "neither plan nor index has it")
        ours = [name for name in planned or sorted(index) if name in there]
        self.seen.names = ours
        for number, (name, shard) in enumerate(self._shards(ours)):
            self._add(number, name, shard, index)
        for name in sorted(index.keys() - set(there)):
            self._wrong("index_without_shard", name, "index.json lists it, and it is not there")
            self.seen.lost += index[name]["nsamples"]
        self.progress.close()
        return self.seen

    def _add(self, number: int, name: str, shard: Shard, index: dict[str, Any]) -> None:
        self.found.merge(shard.found)
        self.evidence.add_members(
            (*member, number, place) for place, member in enumerate(shard.members)
        )
        count = len(shard.members)
        if shard.known:
            self.seen.known[name] = shard.known
        self.seen.samples += count
        self.progress.add(count, shard.bytes)
        stated = index.get(name)
        if shard.fault:
            self._wrong("unreadable_shard", name, shard.fault)
            self.seen.lost += max(0, (stated["nsamples"] if stated else count) - count)
        elif stated is None:
            self._wrong("index_without_shard", name, "index.json does not list it")
        elif (stated["nsamples"], stated["filesize"]) != (count, shard.bytes):
            why = f"index.json states {stated['nsamples']:,} samples, there are {count:,}"
            self._wrong("index_without_shard", name, why)

    def _wrong(self, kind: str, name: str, why: str) -> None:
        self.found.add(kind, f"{self.output}/{name}", why, mend=f"shard {name}")

    def _index(self) -> dict[str, Any]:
        """{shard: its entry} of index.json."""
        path = os.path.join(self.output, "index.json")
        try:
            listed = read_json(path, NOTE_BYTES)["shardlist"]
            return {
                entry["url"]: {name: int(entry[name]) for name in ("nsamples", "filesize")}
                for entry in listed
            }
        except FileNotFoundError:
            self._wrong("index_without_shard", "index.json", "there is none")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._wrong("index_without_shard", "index.json", f"cannot be read: {error}")
        return {}

    def _planned(self) -> list[str]:
        try:
            plan = shard_plan.load_plan(self.output)
        except UserError as error:
            self.found.add("torn", shard_plan.plan_path(self.output), str(error))
            return []
        if plan is None:
            return []
        self.seen.options = plan["options"]
        if plan["options"].get("where"):
            self.seen.taken = int(plan["kept"][0])
        self.seen.shuffled = bool(plan["options"]["split"]) or (
            plan["options"]["shuffle_seed"] is not None
        )
        return [shard["name"] for shard in plan["shards"]]

    def _shards(self, names: list[str]) -> Iterator[tuple[str, Shard]]:
        """What each holds, read by worker processes, in order."""
        paths = [os.path.join(self.output, name) for name in names]
        planned = bool(self.seen.options)
        if len(names) <= INLINE:
            yield from (
                (name, read_facts(path, planned)) for name, path in zip(names, paths, strict=True)
            )
            return
        workers = min(WORKERS, len(os.sched_getaffinity(0)), len(names))
        with ExitStack() as stack:
            pool = stack.enter_context(forked(workers))
            waiting = deque(start(pool, read_facts, path, planned) for path in paths[: 2 * workers])
            rest = iter(paths[2 * workers :])
            for name in names:
                yield name, waiting.popleft().result()
                if (path := next(rest, None)) is not None:
                    waiting.append(start(pool, read_facts, path, planned))


def read_facts(path: str, planned: bool) -> Shard:
    """What a tar holds. In a worker.

    planned: by convert_parquet_to_wds.py of a table of this project, so that its JSONs say all that
    the table says.
    """
    name = os.path.basename(path)
    shard = Shard(bytes=os.path.getsize(path))
    tree = Tree()
    changed_ns = os.stat(path).st_mtime_ns
    try:
        with os.fdopen(open_untrusted(path), "rb") as file:
            hashed = Hashed(file)
            for sample in tar_samples(hashed):
                tree.add(_add(shard, name, sample, planned))
            size, sha256 = hashed.finish()
        stored = {"path": name, "bytes": size, "sha256": sha256}
        shard.known = Known(stored, shard_of(name, tree), changed_ns)
    except Unreadable as error:
        shard.fault = str(error)
    return shard


def _add(shard: Shard, name: str, sample: ShardSample, planned: bool) -> bytes:
    """Note what a sample says; its leaf in the Merkle tree."""
    caption: bytes | None = hash_of(sample.caption)
    if sample.metadata.get("augmented_prompt", sample.caption) != sample.caption:
        why = "its .txt and its .json have different captions"
        shard.found.add("swapped_caption", f"{name}: {sample.key}", why, mend="tars")
        caption = None
    facts = facts_of(sample.metadata) if planned else None
    sha256 = hashlib.sha256(sample.image).digest()
    shard.members.append((sample.key, sha256, caption, facts))
    return sample_leaf(sample.key, sha256, sample.caption)
