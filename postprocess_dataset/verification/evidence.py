"""The records of folder, table and tars for each sample, side by side in a temporary database.

    with Evidence("/scratch") as evidence:
        evidence.add_samples(…), evidence.add_rows(…), evidence.add_members(…)
        evidence.compare(found)

Each of the three is read once, in its own order. SQLite sorts the records on the disk, so that
memory does not grow with the data set: 64 MB of memory, about 200 bytes of disk for each sample.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, Self

from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.tar_facts import Hash

SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE samples (key TEXT, sha256 BLOB, caption BLOB, facts BLOB, picture BLOB,
    print BLOB);
CREATE TABLE rows (key TEXT, sha256 BLOB, caption BLOB, facts BLOB, idx INTEGER);
CREATE TABLE members (key TEXT, sha256 BLOB, caption BLOB, facts BLOB, print BLOB,
    shard INTEGER, place INTEGER);
CREATE TABLE scores (key TEXT, sha256 BLOB);
"""
AT_ONCE = 1000  # keys of one query
MEMBER_KEY = "CREATE INDEX IF NOT EXISTS member_key ON members (key)"
INDEXES = f"""
CREATE INDEX sample_key ON samples (key);
CREATE INDEX row_key ON rows (key);
{MEMBER_KEY};
CREATE INDEX score_key ON scores (key);
CREATE INDEX sample_picture ON samples (picture) WHERE picture IS NOT NULL;
"""
Sample = tuple[str, Hash, Hash, Hash, Hash, Hash]  # key, sha256, caption, facts, picture, print
Row = tuple[str, Hash, Hash, Hash, int]  # …, idx
Member = tuple[str, Hash, Hash, Hash, Hash, int, int]  # …, print, shard, place in it


class Tars(Protocol):
    """What the pass over the tars has seen.

    names: of the shards. lost: samples of missing shards, which are reported already. taken: how
    many rows --where took for them; None: all.
    """

    names: list[str]
    samples: int
    lost: int
    shuffled: bool
    taken: int | None


def absent(key: str) -> Sample:
    """The record of a sample that is missing, which is reported already."""
    return (key, None, None, None, None, None)


class Evidence:
    """folder: where the temporary database lies.

    unknown: beginnings of keys that cannot be judged, since their packed folder has no mark.
    """

    def __init__(self, folder: str) -> None:
        # A file without a name: the system removes it, however the process ends.
        os.environ["SQLITE_TMPDIR"] = os.path.abspath(folder)
        self.database = sqlite3.connect("")
        self.database.executescript(SCHEMA)
        self.unknown: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.database.close()

    def add_samples(self, samples: Iterable[Sample]) -> None:
        """Of the folders."""
        self.database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?)", samples)

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Of the table."""
        self.database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", rows)

    def add_members(self, members: Iterable[Member]) -> None:
        """Of the tars."""
        self.database.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?)", members)

    def add_scores(self, rows: Iterable[tuple[str, Hash]]) -> None:
        """Of the table of scores: if a key occurs twice, the last row counts."""
        self.database.executemany("INSERT INTO scores VALUES (?, ?)", rows)

    def images_in_tars(self, keys: Sequence[str]) -> dict[str, tuple[bytes, bytes]]:
        """{key: (print, sha256)} of those samples that tars hold; add_members() comes first."""
        self.database.execute(MEMBER_KEY)
        found: dict[str, tuple[bytes, bytes]] = {}
        for first in range(0, len(keys), AT_ONCE):
            some = keys[first : first + AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._all(
                f"SELECT key, print, sha256 FROM members WHERE key IN ({marks})", *some
            )
            found |= {key: (image, sha256) for key, image, sha256 in rows}
        return found

    def _all(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        return iter(self.database.execute(query, values))

    def sort(self) -> None:
        """Make the indexes: after everything was added, before any comparison."""
        self.database.executescript(INDEXES)

    def pictures(self, found: Findings) -> None:
        """Report samples that have the same picture."""
        for first, last, count in self._all(
            "SELECT min(key), max(key), count(*) FROM samples WHERE picture IS NOT NULL "
            "GROUP BY picture HAVING count(*) > 1 ORDER BY 1"
        ):
            more = f" and {count - 2:,} more" if count > 2 else ""
            found.add("duplicate_image", first, f"as {last}{more}", count - 1)

    def table(self, found: Findings, deleted: set[str], whole: bool) -> None:
        """Compare the rows with the samples.

        deleted: keys that the table lists as deleted. whole: all rows could be read; if not, no
        sample is reported as missing from the table.
        """
        for key, count in self._twice("rows"):
            where = f"table: {key}"
            found.add("doubled", where, f"{count} rows", count - 1, mend="table")
        for (key,) in self._all(
            "SELECT DISTINCT key FROM rows WHERE key NOT IN (SELECT key FROM samples) ORDER BY key"
        ):
            if key not in deleted and not key.startswith(tuple(self.unknown)):
                found.add("row_without_image", f"table: {key}")
        absent = "SELECT key FROM samples WHERE picture IS NOT NULL AND key NOT IN "
        for (key,) in self._all(f"{absent} (SELECT key FROM rows) ORDER BY key") if whole else ():
            found.add("missing", f"table: {key}", "the folder has it, no row", mend="table")
        self._differ("rows", "table", found, "table")

    def scores(self, found: Findings, whole: bool) -> None:
        """Compare the table of scores with the samples. whole: all of it could be read."""
        absent = "SELECT key FROM samples WHERE picture IS NOT NULL AND key NOT IN "
        for (key,) in self._all(f"{absent} (SELECT key FROM scores) ORDER BY key") if whole else ():
            found.add("missing", f"scores: {key}", "score_images.py has not scored it")
        for (key,) in self._all(
            "SELECT DISTINCT key FROM scores WHERE key NOT IN (SELECT key FROM samples) "
            "ORDER BY key"
        ):
            found.add("row_without_image", f"scores: {key}", "score it again into an empty folder")
        for key, *_ in self._all(
            "SELECT c.key, max(c.rowid), c.sha256 IS NOT s.sha256 AS differs FROM scores c "
            "JOIN samples s ON s.key = c.key WHERE s.sha256 IS NOT NULL "
            "GROUP BY c.key HAVING differs ORDER BY c.key"
        ):
            found.add("wrong_hash", f"scores: {key}", "they are of another image")

    def tars(self, found: Findings, tars: "Tars") -> None:
        """Compare the members of tars with the samples, and with the table if it has rows."""
        lost, names = tars.lost, tars.names
        for key, count in self._twice("members"):
            found.add("doubled", f"tars: {key}", f"{count} times", count - 1, mend="tars")
        for key, shard in self._all(
            "SELECT key, min(shard) FROM members WHERE key NOT IN (SELECT key FROM samples) "
            "GROUP BY key ORDER BY key"
        ):
            if not key.startswith(tuple(self.unknown)):
                found.add("foreign", f"{names[shard]}: {key}", "the folder has no such sample")
        absent = "FROM samples WHERE picture IS NOT NULL AND key NOT IN (SELECT key FROM members)"
        if tars.taken is not None:
            missing = tars.taken - lost - tars.samples
            why = f"--where took {tars.taken:,} rows"
        else:
            ((count,),) = self._all(f"SELECT count(*) {absent}")
            missing = count - lost
            why = "no tar holds it"
        if missing > 0:
            first = next(self._all(f"SELECT key {absent} ORDER BY key LIMIT 1"), ("",))[0]
            where = f"tars: {first}" if tars.taken is None else "tars"
            found.add("missing", where, why, missing, mend="tars")
        differs = "o.sha256 != s.sha256 OR o.print != s.print"
        self._differ("members", "tars", found, "tars", differs)
        if not tars.shuffled:
            self._order(found, names)

    def not_in_folder(self, tars: "Tars") -> set[str]:
        """Tars that hold an image or a caption which is not, or no longer, whole in the folder."""
        return {
            tars.names[shard]
            for (shard,) in self._all(
                "SELECT DISTINCT m.shard FROM members m LEFT JOIN samples s ON s.key = m.key "
                "WHERE s.picture IS NULL OR m.sha256 != s.sha256 OR m.print != s.print "
                "OR m.caption IS NOT s.caption"
            )
        }

    def all_proved(self, tars: "Tars") -> bool:
        """Whether each image in the tars is, byte for byte, one whose sha256 is its JSON's."""
        ((count,),) = self._all(
            "SELECT count(*) FROM members m JOIN samples s ON s.key = m.key "
            "WHERE m.sha256 = s.sha256 AND m.print = s.print"
        )
        return bool(count == tars.samples)

    def _twice(self, place: str) -> Iterator[tuple[Any, ...]]:
        return self._all(
            f"SELECT key, count(*) FROM {place} GROUP BY key HAVING count(*) > 1 ORDER BY key"
        )

    def _differ(
        self,
        place: str,
        shown: str,
        found: Findings,
        mend: str,
        other_image: str = "o.sha256 != s.sha256",
    ) -> None:
        """Report where table or tars differ from a sample that is intact."""
        for kind, what, differs in (
            ("wrong_hash", "sha256", other_image),
            ("swapped_caption", "caption", "o.caption != s.caption"),
            ("swapped_caption", "another fact", "o.caption = s.caption AND o.facts != s.facts"),
        ):
            for (key,) in self._all(
                f"SELECT DISTINCT o.key FROM {place} o JOIN samples s ON s.key = o.key "
                f"WHERE {differs} ORDER BY o.key"
            ):
                found.add(kind, f"{shown}: {key}", f"{what} differs from the folder's", mend=mend)

    def _order(self, found: Findings, names: Sequence[str]) -> None:
        """Report tars that were not shuffled and are not in the order of the table."""
        once = "(SELECT key FROM {} GROUP BY key HAVING count(*) = 1)"
        for shard, key in self._all(
            "SELECT shard, key FROM (SELECT m.key, m.shard, m.place, r.idx, "
            "LAG(r.idx) OVER (ORDER BY m.shard, m.place) AS before "
            "FROM members m JOIN rows r ON r.key = m.key "
            f"WHERE m.key IN {once.format('members')} AND m.key IN {once.format('rows')}) "
            "WHERE idx < before ORDER BY shard, place"
        ):
            found.add("wrong_order", f"{names[shard]}: {key}", "not the table's", mend="tars")
