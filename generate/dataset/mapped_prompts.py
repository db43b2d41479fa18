"""A large prompts file, converted once into a file that all clients of a node map into memory.

    items = open_prompts("HPDv2.parquet", server_folder(output_root) / "prompts")
    items[12_345]                       # read from the map, which the kernel keeps once for all
    prompts_sha256(items), prompts_sha256(items, 1000)
    without_variations(items)           # how many of them

.server/prompts/HPDv2-<16 digits>.arrow     Arrow IPC: one column, the canonical JSON of each item
.server/prompts/HPDv2-<16 digits>.json      its source and size, and figures of all items

The digits are of the prompts file's path, size and time: another file has another map. What few
prompts take is held in memory: the list that read_prompts() gives.

Whoever makes a map removes those of earlier states of the same prompts file that no process has
open: nobody can ask for them again.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast, overload

from common.command_line import UserError
from common.files import open_plain, read_json, write_whole, written_whole
from common.json_text import parse_json
from generate.dataset.prompts_file import (
    Item,
    canonical,
    find_prompts,
    list_sha256,
    stream_prompts,
)

log = logging.getLogger(__name__)

SMALL = 8 << 20  # bytes of a prompts file: 60,000 prompts, 25 MB in memory
MOST_HELD = 4 * SMALL  # characters of all prompts: 8 kB of parquet can be millions of the same one
ITEM = 200  # of them for what else an item takes, and TEXT for each text in it
TEXT = 60
ROWS = 8192  # items of a batch
FORMAT = 1  # of the map
FACTS_BYTES = 64 << 20


class MappedPrompts(Sequence[Item]):
    """The items of a map. facts: total, sha256, without_variations, wishes (positions)."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        import pyarrow as pa  # 60 MB, for large prompts files alone

        self.path = path
        self.facts = facts
        self.file = open(path, "rb")  # noqa: SIM115 (open, and so in use, as long as this)
        _lock(self.file, fcntl.LOCK_SH)
        try:
            self.reader = pa.ipc.open_file(pa.memory_map(os.fspath(path)))
        except pa.ArrowInvalid as error:
            raise UserError(f"{path} is damaged: {error}; delete it") from None

    def __len__(self) -> int:
        return int(self.facts["total"])

    @overload
    def __getitem__(self, which: int) -> Item: ...
    @overload
    def __getitem__(self, which: slice) -> list[Item]: ...

    def __getitem__(self, which: int | slice) -> Item | list[Item]:
        if isinstance(which, slice):
            return [self[number] for number in range(*which.indices(len(self)))]
        number = which + len(self) if which < 0 else which
        if not 0 <= number < len(self):
            raise IndexError(which)
        batch = self.reader.get_batch(number // ROWS)
        return cast(Item, parse_json(batch.column(0)[number % ROWS].as_py()))

    def __iter__(self) -> Iterator[Item]:
        for number in range(self.reader.num_record_batches):
            for text in self.reader.get_batch(number).column(0).to_pylist():
                yield parse_json(text)

    def sha256(self, count: int) -> str:
        """list_sha256() of the first `count` items."""
        digest = hashlib.sha256()
        for number in range(-(-count // ROWS)):
            column = self.reader.get_batch(number).column(0)
            offsets, texts = (memoryview(buffer) for buffer in column.buffers()[1:])
            last = min(len(column), count - number * ROWS)
            digest.update(texts[: int.from_bytes(offsets[8 * last : 8 * last + 8], "little")])
        return digest.hexdigest()


def open_prompts(path: str | os.PathLike[str], folder: Path) -> Sequence[Item]:
    """The items of a prompts file. UserError as of read_prompts(), or when no map can be made.

    folder: where maps are kept.
    """
    path = find_prompts(path)
    there = path.stat()
    if there.st_size <= SMALL and (held := _held(path)):
        return held
    told = [os.path.realpath(path), there.st_size, there.st_mtime_ns, FORMAT]
    digits = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    final = folder / f"{path.stem}-{digits}.arrow"
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        facts = _facts(final)
        if facts is None:
            with _alone(folder / f"{path.stem}-{digits}.lock"):
                facts = _facts(final)
                if facts is None:
                    _remove_earlier(path, final)  # first: there may not be room for both
                    facts = _make(path, final)
        return MappedPrompts(final, facts)
    except OSError as error:
        raise UserError(f"{final}: the prompts cannot be put there: {error.strerror}") from None


def _held(path: Path) -> list[Item] | None:
    """The items of a file; None: they take more than a small file has."""
    items = []
    left = MOST_HELD
    for item in stream_prompts(path):
        items.append(item)
        left -= _size(item)
        if left < 0:
            return None
    return items


def _size(item: Item) -> int:
    """What an item takes in memory: prompt, source, variations, negative prompt, …"""
    size = ITEM
    for value in item.values():
        texts = value if isinstance(value, list) else [value]
        size += sum(TEXT + len(text) for text in texts if isinstance(text, str))
    return size


def _facts(final: Path) -> dict[str, Any] | None:
    """The facts beside a map, if the map is whole; else None."""
    try:
        facts = read_json(final.with_suffix(".json"), FACTS_BYTES)
        if facts["bytes"] == final.stat().st_size:
            return cast(dict[str, Any], facts)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # none, or damaged: it is made again
    return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """A lock: other processes that want the same map wait. Without locks each makes its own."""
    with open(path, "wb", opener=open_plain) as file:
        if not _lock(file, fcntl.LOCK_EX):
            log.warning("%s: this file system has no locks", path)
        yield


def _lock(file: IO[bytes], how: int) -> bool:
    """False: this file system has no locks. BlockingIOError: another process has one."""
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return False
    return True


def _remove_earlier(path: Path, final: Path) -> None:
    """Remove maps of what this prompts file was before. One that is open somewhere stays."""
    source = os.path.realpath(path)
    for beside in final.parent.glob("*.json"):
        earlier = beside.with_suffix(".arrow")
        facts = _facts(earlier)
        if earlier == final or facts is None or facts.get("prompts_file") != source:
            continue
        # to be written, as a network file system asks for an exclusive lock
        with contextlib.suppress(BlockingIOError, FileNotFoundError), open(earlier, "rb+") as file:
            if _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                log.info("%s is removed: the prompts file has changed since", earlier)
                for each in (beside, earlier, earlier.with_suffix(".lock")):
                    each.unlink(missing_ok=True)


def _make(path: Path, final: Path) -> dict[str, Any]:
    """Make the map of a prompts file; what is written beside it last."""
    import pyarrow as pa

    log.info("%s is made ready for all clients of this run: %s", path, final)
    digest = hashlib.sha256()
    schema = pa.schema([("item", pa.large_binary())])
    facts: dict[str, Any] = {"prompts_file": os.path.realpath(path), "without_variations": 0}
    kinds: dict[tuple[object, ...], int] = {}
    total = 0
    with written_whole(final) as file, pa.ipc.new_file(file, schema) as writer:
        rows: list[bytes] = []
        for item in stream_prompts(path):
            facts["without_variations"] += "variations" not in item
            if "size" in item or "negative_prompt" in item:
                kinds.setdefault((item.get("size"), "negative_prompt" in item), total)
            rows.append(canonical(item))
            digest.update(rows[-1])
            total += 1
            if len(rows) == ROWS:
                writer.write_batch(pa.record_batch([pa.array(rows, pa.large_binary())], schema))
                rows = []
        if rows:
            writer.write_batch(pa.record_batch([pa.array(rows, pa.large_binary())], schema))
    facts |= {"total": total, "sha256": digest.hexdigest(), "wishes": sorted(kinds.values())}
    facts["bytes"] = final.stat().st_size
    if MappedPrompts(final, facts).sha256(total) != facts["sha256"]:
        raise OSError(errno.EIO, "what was read back is not what was written", os.fspath(final))
    write_whole(final.with_suffix(".json"), json.dumps(facts) + "\n")
    return facts


def prompts_sha256(items: Sequence[Item], count: int | None = None) -> str:
    """list_sha256() of the items, or of the first `count`."""
    if not isinstance(items, MappedPrompts):
        return list_sha256(items if count is None else items[:count])
    return str(items.facts["sha256"]) if count in (None, len(items)) else items.sha256(count or 0)


def without_variations(items: Sequence[Item]) -> int:
    """How many items have no variations, so that an LLM is asked."""
    if isinstance(items, MappedPrompts):
        return int(items.facts["without_variations"])
    return sum("variations" not in item for item in items)


def items_to_check(items: Sequence[Item]) -> Iterator[tuple[int, Item]]:
    """(position, item) of items that a model may refuse; of a map one for each kind of override."""
    if isinstance(items, MappedPrompts):
        for position in items.facts["wishes"]:
            yield position, items[position]
    else:
        yield from enumerate(items)
