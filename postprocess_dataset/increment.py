"""State of a conversion, kept beside its table, so that `--update` costs what has changed.

    OUTPUT.rejects.jsonl    the samples left out, each with its reason; images without JSON too
    OUTPUT.gone.jsonl       rows whose sample was deleted; they keep their place until --rebuild,
                            and no tar takes them
    OUTPUT.state            the table's identity, and each folder's mtime when it was listed

The table is renamed first, the state last. A state of another table (a run was killed between the
two) is ignored: then every folder is listed again, and the known keys are read from the table.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.command_line import UserError
from common.files import keep_damaged, refuse_special
from common.json_text import parse_json
from common.untrusted import Refused, open_untrusted, read_untrusted
from postprocess_dataset import dataset_folder, table
from postprocess_dataset.dataset_folder import Codes
from postprocess_dataset.publish import publish_text

Line = dict[str, Any]  # of a .jsonl file
STATE_BYTES = 256 << 20  # some 50 bytes a folder: 1 MB for 20 million samples
LINE_BYTES = 16 << 20  # of a list: a path and a reason


class State(TypedDict):
    """When the folders were listed (ns), and the mtime of each at that time (ns)."""

    table: str  # its identity
    scanned_ns: int
    folders: dict[str, int]


# what a line of a list names; the state has no lines
NOTES = {"rejects.jsonl": ("json", "image"), "gone.jsonl": ("__key__",), "state": ()}
NO_STATE = State(table="", scanned_ns=0, folders={})


def load_state(output: str) -> State:
    """The state of the table as it stands, else NO_STATE."""
    try:
        state: State = orjson.loads(read_untrusted(f"{output}.state", STATE_BYTES, text=True))
        if is_state(state) and state["table"] == table.identity(output):
            return state
    except (OSError, ValueError):
        pass  # none, or damaged: list every folder
    return NO_STATE


def is_state(state: Any) -> bool:
    """Whether it has the parts of a state."""
    if not isinstance(state, dict) or state.keys() != State.__annotations__.keys():
        return False
    folders = state["folders"]
    times = [state["scanned_ns"], *(folders.values() if isinstance(folders, dict) else [None])]
    return all(type(time) is int for time in times)


def save_state(output: str, scanned_ns: int, folders: dict[str, int]) -> None:
    """What load_state() will return for the table as it now is."""
    state = State(table=table.identity(output), scanned_ns=scanned_ns, folders=folders)
    publish_text(f"{output}.state", json.dumps(state))


def load_lines(path: str, *names: str) -> list[Line]:
    """The objects of a .jsonl file, none when there is no such file.

    Each has text under one of the `names`, and nothing else there, else UserError.
    """
    return list(_lines(path, names))


def _lines(path: str, names: tuple[str, ...]) -> Iterator[Line]:
    """One after the other: the file may be of any size, and of zero bytes."""
    try:
        descriptor = open_untrusted(path)
    except FileNotFoundError:
        return
    with open(descriptor, "rb") as file:
        number = 0
        while content := file.readline(LINE_BYTES + 1):
            number += 1
            try:
                line = _parsed(content) if len(content) <= LINE_BYTES else None
            except ValueError:
                line = None
            if not isinstance(line, dict) or not _names(line, names):
                raise UserError(
                    f"{path}: line {number} is not what was written there; --update the table"
                )
            yield line


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return parse_json(content)  # a name that is not UTF-8 has half surrogate pairs


def _names(line: Line, names: tuple[str, ...]) -> bool:
    """Whether a line has text under one of these names at least, and nothing else there."""
    stated = [line[name] for name in names if name in line]
    return bool(stated) and all(isinstance(text, str) and text for text in stated)


def keep_others(output: str) -> list[str]:
    """Give what is no list or state of ours, and will be replaced, another name; says so in lines.

    OSError: a link, a pipe or a device lies there.
    """
    said = []
    for suffix, names in NOTES.items():
        path = f"{output}.{suffix}"
        refuse_special(path)
        if os.path.lexists(path) and not _is_ours(path, names):
            said.append(f"{path} was not written by this script: it is {keep_damaged(path)} now")
    return said


def _is_ours(path: str, names: tuple[str, ...]) -> bool:
    try:
        if not names:
            return is_state(orjson.loads(read_untrusted(path, STATE_BYTES, text=True)))
        for _ in _lines(path, names):
            pass
    except (UserError, ValueError, Refused):
        return False
    return True


def save_lines(path: str, lines: Iterable[Line]) -> None:
    """Replace a .jsonl file."""
    publish_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def server_time_ns(folder: str, output: str) -> int:
    """The clock that stamps the mtimes of `folder`.

    Read from a file made now on the same file system, outside of the folder if possible. If nothing
    can be written there, this machine's clock, which is right to within MARGIN_NS.
    """
    device = os.stat(folder).st_dev
    for place in (os.path.dirname(os.path.abspath(output)), os.path.dirname(folder), folder):
        try:
            if os.stat(place).st_dev == device:
                with tempfile.NamedTemporaryFile(
                    prefix=".clock.", suffix=".tmp", dir=place
                ) as probe:
                    return os.fstat(probe.fileno()).st_mtime_ns
        except OSError:
            continue
    return time.time_ns()


class Known:
    """The keys a table holds, folder by folder.

    Row groups that hold no row of a folder are not read.
    """

    def __init__(self, output: str) -> None:
        # (file, row group, first and last subdirectory in it)
        self.groups: list[tuple[str, int, str, str]] = []
        self.rows = 0
        facts = table.facts(output) or {}
        self.scores: list[str] = facts.get("scores", [])
        schema = table.schema(self.scores)
        column = schema.names.index("subdirectory")
        for path in table.files(output):
            if not pq.read_schema(path).equals(schema):
                raise table.NotUpdatable(f"{path}: its columns are not those of this script")
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                bounds = metadata.row_group(group).column(column).statistics
                if not bounds or not bounds.has_min_max:
                    raise table.NotUpdatable(f"{path}: not a table of this script")
                self.groups.append((path, group, bounds.min, bounds.max))
            self.rows += metadata.num_rows

    def subdirectories(self) -> set[str]:
        """All folders of rows."""
        return {
            name
            for path, group, *_ in self.groups
            for name in self._read(path, group, ["subdirectory"])["subdirectory"]
            .unique()
            .to_pylist()
        }

    def _read(self, path: str, group: int, columns: list[str]) -> pa.Table:
        with pq.ParquetFile(path) as file:
            return file.read_row_group(group, columns=columns, use_threads=False)

    def keys(self, subdirectory: str) -> tuple[Codes, set[str]]:
        """(sorted codes, stems of other names) of a folder's rows."""
        codes = [dataset_folder.no_codes()]
        others: set[str] = set()
        for path, group, first, last in self.groups:
            if not first <= subdirectory <= last:
                continue
            found = self._read(path, group, ["subdirectory", "__key__"])
            here = pc.equal(found["subdirectory"], subdirectory)
            keys = found["__key__"].filter(here).combine_chunks()
            keys = pc.utf8_slice_codeunits(keys, len(subdirectory) + 1)
            numbers = pc.extract_regex(keys, f"^{dataset_folder.STEM}$")
            standard = numbers.is_valid()
            codes.append(dataset_folder.codes_of(numbers.filter(standard)))
            for key in keys.filter(pc.invert(standard)).to_pylist():
                others.add(table.stem_of(f"/{key}")[1])
        return np.sort(np.concatenate(codes)), others


class Earlier:
    """All that an earlier run knew, by folder.

    Nothing when `known` is None (a first conversion, or one that begins anew).
    """

    def __init__(self, output: str, known: Known | None) -> None:
        state = load_state(output) if known else NO_STATE
        rejects: list[Line] = []
        deleted: list[Line] = []
        self.damaged = ""  # why it was ignored
        try:
            if known:
                rejects = load_lines(f"{output}.rejects.jsonl", "json", "image")
                deleted = load_lines(f"{output}.gone.jsonl", "__key__")
        except UserError as error:
            self.damaged = str(error)
            state = NO_STATE  # every folder is listed again, so both lists are made anew
            rejects = []
        self.known = known
        self.scanned_ns = state["scanned_ns"]
        self.mtimes = state["folders"]
        self.folders = set(self.mtimes) or (known.subdirectories() if known else set())
        self.inside: dict[str, list[str]] = {}
        for subdirectory in sorted(self.mtimes):
            self.inside.setdefault(os.path.dirname(subdirectory), []).append(subdirectory)
        self.rejects: dict[str, list[Line]] = {}
        self.deleted: dict[str, list[Line]] = {}
        for line in rejects:
            name = os.path.dirname(line.get("json") or line["image"])
            self.rejects.setdefault(name, []).append(line)
        for line in deleted:
            self.deleted.setdefault(os.path.dirname(line["__key__"]), []).append(line)

    def keys(self, subdirectory: str) -> tuple[Codes, set[str]]:
        """(sorted codes, stems of other names) of a folder's rows."""
        return self.known.keys(subdirectory) if self.known else (dataset_folder.no_codes(), set())
