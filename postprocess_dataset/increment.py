"""What an earlier conversion knew, kept beside its table, so that `--update` costs what has changed.

    OUTPUT.rejects.jsonl    the samples left out, each with its reason; images without JSON too
    OUTPUT.gone.jsonl       rows whose sample is no longer there; they keep their place until --rebuild, and no tar takes them
    OUTPUT.state            the table's identity, and each folder's mtime when it was listed

The table is renamed first, the state last. A state that tells of another table (a run was killed between the two) is not believed, and
then every folder is listed once more; what is known is read from the table itself.
"""

import json
import os

from postprocess_dataset import dataset_folder, table
from postprocess_dataset.publish import publish_text


def load_state(output):
    """{"scanned_ns", "folders": {subdirectory: mtime_ns}} of the table as it stands, else an empty one."""
    try:
        with open(f"{output}.state") as f:
            state = json.load(f)
        if state["table"] == table.identity(output):
            return state
    except (OSError, ValueError, KeyError):
        pass  # none, or torn by other hands: list every folder
    return {"scanned_ns": 0, "folders": {}}


def save_state(output, scanned_ns, folders):
    publish_text(
        f"{output}.state",
        json.dumps({"table": table.identity(output), "scanned_ns": scanned_ns, "folders": folders}),
    )


def load_lines(path):
    """The objects of a .jsonl file, none when there is no such file."""
    try:
        with open(path) as f:
            return [json.loads(line) for line in f]
    except FileNotFoundError:
        return []


def save_lines(path, lines):
    publish_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def server_time_ns(folder, output):
    """The clock that stamps the mtimes of `folder`: that of a file made now on the same file system, outside of it if that can be.

    Where nothing can be written it is this machine's clock, which is right to within MARGIN_NS.
    """
    import tempfile
    import time

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


class Earlier:
    """All that an earlier run knew, by folder; nothing when `known` is None (a first conversion, or one that begins anew)."""

    def __init__(self, output, known):
        state = load_state(output) if known else {"scanned_ns": 0, "folders": {}}
        self.known, self.scanned_ns, self.mtimes = known, state["scanned_ns"], state["folders"]
        self.folders = set(self.mtimes) or (known.subdirectories() if known else set())
        self.inside = {}  # folder: [its sub-folders]
        for subdirectory in sorted(self.mtimes):
            self.inside.setdefault(os.path.dirname(subdirectory), []).append(subdirectory)
        self.rejects, self.gone = {}, {}
        for line in load_lines(f"{output}.rejects.jsonl") if known else ():
            self.rejects.setdefault(os.path.dirname(line.get("json") or line["image"]), []).append(
                line
            )
        for line in load_lines(f"{output}.gone.jsonl") if known else ():
            self.gone.setdefault(os.path.dirname(line["__key__"]), []).append(line)

    def keys(self, subdirectory):
        """(sorted codes, set of other stems) of a folder's rows."""
        import numpy as np

        return self.known.keys(subdirectory) if self.known else (np.empty(0, np.int64), set())


class Known:
    """The keys a table holds, folder by folder; row groups that hold no row of a folder are not read."""

    def __init__(self, output):
        import pyarrow.parquet as pq

        self.groups = []  # (file, row group, first and last subdirectory in it)
        self.rows = 0
        for path in table.files(output):
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                bounds = (
                    metadata.row_group(group)
                    .column(table.schema().names.index("subdirectory"))
                    .statistics
                )
                self.groups.append((path, group, bounds.min, bounds.max))
            self.rows += metadata.num_rows

    def subdirectories(self):
        return {
            name
            for path, group, *_ in self.groups
            for name in self._read(path, group, ["subdirectory"])["subdirectory"]
            .unique()
            .to_pylist()
        }

    def _read(self, path, group, columns):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            return file.read_row_group(group, columns=columns, use_threads=False)

    def keys(self, subdirectory):
        """(sorted codes, set of other stems) of a folder's rows."""
        import numpy as np
        import pyarrow.compute as pc

        codes, odd = [np.empty(0, np.int64)], set()
        for path, group, first, last in self.groups:
            if not first <= subdirectory <= last:
                continue
            found = self._read(path, group, ["subdirectory", "__key__"])
            keys = (
                found["__key__"]
                .filter(pc.equal(found["subdirectory"], subdirectory))
                .combine_chunks()
            )
            keys = pc.utf8_slice_codeunits(keys, len(subdirectory) + 1)
            numbers = pc.extract_regex(keys, f"^{dataset_folder.STEM}$")
            plain = numbers.is_valid()
            odd.update(
                table.stem_of("/" + key)[1] for key in keys.filter(pc.invert(plain)).to_pylist()
            )
            numbers = numbers.filter(plain)
            prompts, augmentations = (
                pc.cast(numbers.field(n), "int64").to_numpy(zero_copy_only=False) for n in (0, 1)
            )
            codes.append(prompts * dataset_folder.CODE + augmentations)
        return np.sort(np.concatenate(codes)), odd
