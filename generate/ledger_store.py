"""What the ledger has on disk: SQLite's tables, the epoch beside them, data sets and their blocks of 1,000 indices.

    ledger = open_ledger(".server", now)        # an instance of ledger.Ledger, which adds the rules of leases

Stored are one bit per index (done) and what is in flight: the cost of a request does not grow with the number of indices.
Test of each promise: tests/generate/test_ledger_promises.py; of this file's crash points: tests/generate/test_ledger_crash.py.
"""

import contextlib
import json
import os
import random
import re
import sqlite3
from pathlib import Path

BLOCK = 1000  # indices of a block: one sub-folder of the data set, one row here, 125 bytes of done bits
NOT_COMPARED = {"name", "prompts_file", "extend", "prefix_total", "prefix_sha256", "dataset_id", "created"}  # sha256 tells prompts files apart

SCHEMA = """
CREATE TABLE server (epoch INTEGER, next_lease INTEGER, changes INTEGER, draining INTEGER DEFAULT 0, weather TEXT DEFAULT '{}');
CREATE TABLE datasets (name TEXT PRIMARY KEY, definition TEXT, version INTEGER, total INTEGER,
    waiting INTEGER, leased INTEGER DEFAULT 0, done INTEGER DEFAULT 0, set_aside INTEGER DEFAULT 0,
    images INTEGER DEFAULT 0, short INTEGER DEFAULT 0, short_images INTEGER DEFAULT 0) WITHOUT ROWID;
-- open = indices neither done, held nor troubled; position = place of the block in the order in which fresh work is given out
CREATE TABLE blocks (dataset TEXT, block INTEGER, position INTEGER, size INTEGER, open INTEGER, done BLOB DEFAULT x'',
    images INTEGER DEFAULT 0, short INTEGER DEFAULT 0, short_images INTEGER DEFAULT 0, PRIMARY KEY (dataset, block)) WITHOUT ROWID;
CREATE INDEX open_blocks ON blocks (dataset, position) WHERE open > 0;
-- grace counts the restarts since the lease's last beat
CREATE TABLE leases (lease TEXT PRIMARY KEY, dataset TEXT, version INTEGER, client_id TEXT, worker_key TEXT, worker TEXT, slurm_job TEXT, slurm_restart INTEGER,
    bare INTEGER, known_good INTEGER, probe INTEGER, grace INTEGER DEFAULT 0) WITHOUT ROWID;
CREATE TABLE held (dataset TEXT, idx INTEGER, lease TEXT, PRIMARY KEY (dataset, idx)) WITHOUT ROWID;
CREATE INDEX held_by_lease ON held (lease);
-- indices with a failure or a suspicion: leased alone; state waiting, leased or set_aside
CREATE TABLE trouble (dataset TEXT, idx INTEGER, state TEXT, PRIMARY KEY (dataset, idx)) WITHOUT ROWID;
CREATE INDEX trouble_by_state ON trouble (dataset, state, idx);
-- mark NULL = provisional
CREATE TABLE blames (n INTEGER PRIMARY KEY, dataset TEXT, idx INTEGER, worker_key TEXT, worker TEXT, mark REAL, time REAL, reason TEXT, error TEXT);
CREATE INDEX blames_by_index ON blames (dataset, idx);
CREATE INDEX blames_by_worker ON blames (worker_key);
CREATE TABLE quarantine (worker_key TEXT PRIMARY KEY, worker TEXT, since REAL, until REAL, pause REAL, failures INTEGER, errors TEXT, probe TEXT) WITHOUT ROWID;
CREATE TABLE errors (reason TEXT PRIMARY KEY, count INTEGER, time REAL, error TEXT, worker TEXT) WITHOUT ROWID;
CREATE TABLE given_back (dataset TEXT, reason TEXT, indices INTEGER, PRIMARY KEY (dataset, reason)) WITHOUT ROWID;
CREATE TABLE answers (n INTEGER PRIMARY KEY, client_id TEXT, request_id TEXT, answer TEXT, UNIQUE (client_id, request_id));
"""


class LedgerBusy(Exception):
    """Another process holds the ledger's file."""


class DefinitionDiffers(Exception):
    """A request's data set definition is not the stored one; .field .stored .given say where."""

    def __init__(self, field, stored, given):
        super().__init__(f"{field}: the data set was made with {stored!r}, this request says {given!r}")
        self.field, self.stored, self.given = field, stored, given


# ---------------------------------------------------------------- the epoch: an exclusive file outside the database


def highest_epoch(folder):
    """The highest epoch ever claimed in this folder; 0 = none."""
    return max((int(name[6:]) for name in os.listdir(folder) if re.fullmatch(r"epoch\.[0-9]{1,12}", name)), default=0)


def claim_epoch(folder, at_least=0):
    """Claims the next epoch for this server: no two servers get the same, whatever happens to the database (promise 3)."""
    epoch = max(highest_epoch(folder), at_least)
    while True:
        epoch += 1
        try:
            handle = os.open(Path(folder) / f"epoch.{epoch}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        os.fsync(handle)
        os.close(handle)
        _fsync_folder(folder)
        return epoch


def superseded(folder, epoch):
    """True when a later server has claimed its epoch: this one must not answer any more (promise 15). Costs one stat."""
    return os.path.exists(Path(folder) / f"epoch.{epoch + 1}")


def _fsync_folder(folder):
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(handle)
    os.close(handle)


def _note_changes(folder, epoch, changes):
    """Leaves the number of commits outside the database, so that yesterday's copy of it is recognised (written about once a minute)."""
    handle = os.open(Path(folder) / f"epoch.{epoch}", os.O_WRONLY)
    os.pwrite(handle, f"{changes:020d}\n".encode(), 0)
    os.fsync(handle)
    os.close(handle)


def open_database(folder, take_over=False, wait_s=30.0):
    """(connection, epoch, lost): the ledger of this folder, whole, with a new epoch claimed.

    lost: None, or why what the database held is void: "deleted", "torn: …", "rolled back". LedgerBusy: another process holds it
    (with take_over its file is moved aside; its process leaves at its next reply, having seen the higher epoch).
    """
    folder = Path(folder)
    path, before = folder / "ledger.sqlite", highest_epoch(folder)
    epoch, lost = claim_epoch(folder), None
    if before and not path.exists():
        lost = "deleted"
    try:
        connection = _connect(path, wait_s)
        stored, changes = connection.execute("SELECT epoch, changes FROM server").fetchone()
        noted = int((folder / f"epoch.{before}").read_bytes() or b"0") if before else 0
        if stored < before or changes < noted:
            lost = "rolled back"
        epoch = epoch if epoch > stored else claim_epoch(folder, stored)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        if not take_over:
            raise LedgerBusy(f"{path} is held by another process") from None
        connection, lost = _set_away(path, epoch, wait_s), "taken over from a server that still holds it"
    except (sqlite3.DatabaseError, ValueError, TypeError) as error:
        connection, lost = _set_away(path, epoch, wait_s), f"torn: {error}"
    # the epoch is in the database before the first grant: a copy made before this moment is older than the epoch's file, and shows it
    connection.execute("UPDATE server SET epoch = ?, next_lease = 1, changes = changes + 1", (epoch,))
    return connection, epoch, lost


def _connect(path, wait_s):
    connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")  # a write-ahead log needs shared memory, which a network disk has not
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN EXCLUSIVE")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO server (epoch, next_lease, changes) VALUES (0, 1, 0)")
        connection.execute("COMMIT")
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        connection.execute("SELECT definition, waiting FROM datasets LIMIT 1")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_away(path, epoch, wait_s):
    """Keeps a damaged file beside the new one for the curious; its journal must go with it, or it would be played into the new file."""
    for suffix in ("-journal", ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", path.with_name(f"ledger-before-{epoch}.sqlite{suffix}"))
    _fsync_folder(path.parent)
    return _connect(path, wait_s)


# ---------------------------------------------------------------- bits


def bits_of(blob):
    return int.from_bytes(blob, "little")


def blob_of(bits):
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def numbers(bits):
    """Places of the one bits, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


class Store:
    """The tables with the operations that keep promise 13's sum: waiting + leased + done + set aside = total."""

    def __init__(self, folder, connection, epoch, lost, options):
        self.folder, self.connection, self.epoch, self.lost, self.options = folder, connection, epoch, lost, options
        self._depth = 0
        self._checked = {}  # data set -> one byte a block: compared with the folder since this start
        self._checking = {}  # (data set, block) -> indices accepted while its folder is being read

    # ------------------------------------------------ transactions

    @contextlib.contextmanager
    def transaction(self):
        """One commit at the end of the outermost; an exception undoes all of it, and the memory is read anew from disk."""
        if self._depth:
            yield
            return
        self.connection.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            self.connection.execute("UPDATE server SET changes = changes + 1")
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self.forget_memory()
            raise
        finally:
            self._depth = 0

    def forget_memory(self):
        """What memory holds beside the tables is made again from them; class Ledger has some."""

    def one(self, sql, *values):
        return self.connection.execute(sql, values).fetchone()

    def all(self, sql, *values):
        return self.connection.execute(sql, values).fetchall()

    def run(self, sql, *values):
        return self.connection.execute(sql, values).rowcount

    def _add(self, dataset, **changes):
        """Adds to the counters of a data set."""
        sets = ", ".join(f"{name} = {name} + ?" for name in changes)
        self.run(f"UPDATE datasets SET {sets} WHERE name = ?", *changes.values(), dataset)

    def note_changes(self):
        _note_changes(self.folder, self.epoch, self.one("SELECT changes FROM server")[0])

    # ------------------------------------------------ data sets

    def names(self):
        return [name for (name,) in self.all("SELECT name FROM datasets ORDER BY name")]

    def definition(self, dataset):
        return json.loads(self.one("SELECT definition FROM datasets WHERE name = ?", dataset)[0])

    def version(self, dataset):
        return self.one("SELECT version FROM datasets WHERE name = ?", dataset)[0]

    def define(self, now, definition):
        """Makes the data set, or compares a request with the stored definition: DefinitionDiffers names the first field. Returns its version.

        definition: as in dataset.yaml; needs name, total, images_per_prompt; a field that is absent is not compared.
        """
        name, total = definition["name"], definition["total"]
        if self.one("SELECT 1 FROM datasets WHERE name = ?", name):
            stored = self.definition(name)
            for field in definition.keys() - NOT_COMPARED:
                if definition[field] != stored.get(field):
                    raise DefinitionDiffers(field, stored.get(field), definition[field])
            return self.version(name)
        with self.transaction():
            stored = {key: value for key, value in definition.items() if not key.startswith(("extend", "prefix_"))}
            self.run("INSERT INTO datasets (name, definition, version, total, waiting) VALUES (?, ?, 1, ?, ?)", name, json.dumps(stored), total, total)
            self._append_blocks(name, 0, total, definition.get("order_seed"))
        self._checked[name] = bytearray(-(-total // BLOCK))
        return 1

    def _append_blocks(self, name, start, total, seed):
        """Rows for the blocks of indices start … total - 1, in a seeded order (in order without a seed)."""
        blocks = list(range(start // BLOCK, -(-total // BLOCK)))
        if start % BLOCK:  # the last block of the shorter list grows
            grows = min(total, (start // BLOCK + 1) * BLOCK) - start
            self.run("UPDATE blocks SET size = size + ?, open = open + ? WHERE dataset = ? AND block = ?", grows, grows, name, blocks.pop(0))
        if seed is not None:
            random.Random(f"{seed} {start}").shuffle(blocks)
        position = self.one("SELECT COALESCE(MAX(position), -1) + 1 FROM blocks WHERE dataset = ?", name)[0]
        rows = ((name, block, position + n, min(BLOCK, total - block * BLOCK), min(BLOCK, total - block * BLOCK)) for n, block in enumerate(blocks))
        self.connection.executemany("INSERT INTO blocks (dataset, block, position, size, open) VALUES (?, ?, ?, ?, ?)", rows)

    def extend(self, now, definition):
        """More images per prompt, or appended prompts. What is then missing is found by comparing every block with the folder anew,
        before anything is granted from it. Returns the version; the same call again changes nothing. Tested: test_promise_02_extension."""
        name, stored = definition["name"], self.definition(definition["name"])
        grows_to, old, per, old_per = definition["total"], stored["total"], definition["images_per_prompt"], stored["images_per_prompt"]
        for field in definition.keys() - NOT_COMPARED - {"total", "images_per_prompt", "prompts_sha256"}:
            if definition[field] != stored.get(field):
                raise DefinitionDiffers(field, stored.get(field), definition[field])
        if per < old_per:
            raise DefinitionDiffers("images_per_prompt", old_per, per)
        if grows_to < old:
            raise DefinitionDiffers("total", old, grows_to)
        prefix = (definition.get("prefix_total"), definition.get("prefix_sha256")) if grows_to > old else (old, definition.get("prompts_sha256"))
        if prefix != (old, stored.get("prompts_sha256")):
            raise DefinitionDiffers("prompts_sha256", stored.get("prompts_sha256"), prefix[1])
        if (grows_to, per) == (old, old_per):
            return self.version(name)
        with self.transaction():
            stored.update(total=grows_to, images_per_prompt=per, prompts_sha256=definition.get("prompts_sha256"), prompts_file=definition.get("prompts_file"))
            self.run("UPDATE datasets SET definition = ?, version = version + 1, total = ?, waiting = waiting + ? WHERE name = ?", json.dumps(stored), grows_to, grows_to - old, name)
            self._append_blocks(name, old, grows_to, stored.get("order_seed"))
        self._checked[name] = bytearray(-(-grows_to // BLOCK))
        self._checking = {key: value for key, value in self._checking.items() if key[0] != name}  # a reading begun before measured by the old count
        return self.version(name)

    # ------------------------------------------------ the state of an index

    def _is_done(self, dataset, idx):
        row = self.one("SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, idx // BLOCK)
        return row is not None and bits_of(row[0]) >> idx % BLOCK & 1 == 1

    def _take(self, dataset, indices, lease):
        """From waiting to leased."""
        for idx in indices:
            if not self.run("UPDATE trouble SET state = 'leased' WHERE dataset = ? AND idx = ?", dataset, idx):
                self.run("UPDATE blocks SET open = open - 1 WHERE dataset = ? AND block = ?", dataset, idx // BLOCK)
            self.run("INSERT INTO held VALUES (?, ?, ?)", dataset, idx, lease)
        self._add(dataset, waiting=-len(indices), leased=len(indices))

    def _give_back(self, dataset, indices, reason=None):
        """From leased to waiting; counted under the reason. The primary key keeps an index from being held twice (promise 3)."""
        for idx in indices:
            self.run("DELETE FROM held WHERE dataset = ? AND idx = ?", dataset, idx)
            if not self.run("UPDATE trouble SET state = 'waiting' WHERE dataset = ? AND idx = ?", dataset, idx):
                self.run("UPDATE blocks SET open = open + 1 WHERE dataset = ? AND block = ?", dataset, idx // BLOCK)
        self._add(dataset, waiting=len(indices), leased=-len(indices))
        if reason and indices:
            self.run("INSERT INTO given_back VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET indices = indices + excluded.indices", dataset, reason, len(indices))

    def _suspect(self, dataset, idx):
        """A waiting or leased index is leased alone from now on."""
        held = self.one("SELECT 1 FROM held WHERE dataset = ? AND idx = ?", dataset, idx)
        if not self.one("SELECT 1 FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx):
            self.run("INSERT INTO trouble VALUES (?, ?, ?)", dataset, idx, "leased" if held else "waiting")
            if not held:
                self.run("UPDATE blocks SET open = open - 1 WHERE dataset = ? AND block = ?", dataset, idx // BLOCK)

    def _clear(self, dataset, idx):
        """Nothing is held against an index any more; it is waiting, leased or set aside, and waits as all others do if it was not leased."""
        row = self.one("SELECT state FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)
        self.run("DELETE FROM blames WHERE dataset = ? AND idx = ?", dataset, idx)
        if row:
            self.run("DELETE FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)
            if row[0] != "leased":
                self.run("UPDATE blocks SET open = open + 1 WHERE dataset = ? AND block = ?", dataset, idx // BLOCK)
            if row[0] == "set_aside":
                self._add(dataset, waiting=1, set_aside=-1)

    def _set_aside(self, dataset, idx):
        state = self.one("SELECT state FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)[0]
        self.run("DELETE FROM held WHERE dataset = ? AND idx = ?", dataset, idx)
        self.run("UPDATE trouble SET state = 'set_aside' WHERE dataset = ? AND idx = ?", dataset, idx)
        self._add(dataset, set_aside=1, **{"leased" if state == "leased" else "waiting": -1})

    def _done(self, dataset, idx, images, missing):
        """From leased (or, by the folder check, from waiting or set aside) to done."""
        if self.run("DELETE FROM held WHERE dataset = ? AND idx = ?", dataset, idx):
            self._add(dataset, leased=-1)
            self._forget_trouble(dataset, idx)
        else:
            self._clear(dataset, idx)
            self.run("UPDATE blocks SET open = open - 1 WHERE dataset = ? AND block = ?", dataset, idx // BLOCK)
            self._add(dataset, waiting=-1)
        bits = bits_of(self.one("SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, idx // BLOCK)[0]) | 1 << idx % BLOCK
        sums = (images, bool(missing), missing)
        self.run(
            "UPDATE blocks SET done = ?, images = images + ?, short = short + ?, short_images = short_images + ? WHERE dataset = ? AND block = ?",
            blob_of(bits), *sums, dataset, idx // BLOCK,
        )  # fmt: skip
        self._add(dataset, done=1, images=sums[0], short=sums[1], short_images=sums[2])

    def _forget_trouble(self, dataset, idx):
        self.run("DELETE FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)
        self.run("DELETE FROM blames WHERE dataset = ? AND idx = ?", dataset, idx)

    def _reopen(self, dataset, idx):
        """From done to waiting: by the folder check, an extension or a repair, by nothing else (promise 2)."""
        bits = bits_of(self.one("SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, idx // BLOCK)[0]) & ~(1 << idx % BLOCK)
        self.run("UPDATE blocks SET done = ?, open = open + 1 WHERE dataset = ? AND block = ?", blob_of(bits), dataset, idx // BLOCK)
        self._add(dataset, done=-1, waiting=1)

    # ------------------------------------------------ comparing with the folder (the folder wins)

    def next_check(self, dataset):
        """The next block whose folder is to be compared, those with open work first; None = all were, since this start. Begins that check."""
        checked = self._checked[dataset]
        for (block,) in self.all("SELECT block FROM blocks WHERE dataset = ? AND open > 0 ORDER BY position LIMIT 50", dataset):
            if not checked[block]:
                break
        else:
            block = checked.find(0)
        if block >= 0:
            self._checking[dataset, block] = set()
        return None if block < 0 else block

    def folder_checked(self, now, dataset, block, found):
        """Takes over what the folder of a block holds: {index: (images, missing)} of the done indices. Returns (reopened, newly done).

        What was accepted since next_check() began stays done; a leased index stays leased; one set aside is done when no image is missing.
        """
        accepted = self._checking.pop((dataset, block), None)
        if accepted is None:  # the check was begun before an extension
            return 0, 0
        first = block * BLOCK
        before = {first + n for n in numbers(bits_of(self.one("SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, block)[0]))}
        held = {idx for (idx,) in self.all("SELECT idx FROM held WHERE dataset = ? AND idx BETWEEN ? AND ?", dataset, first, first + BLOCK - 1)}
        aside = {idx for (idx,) in self.all("SELECT idx FROM trouble WHERE dataset = ? AND state = 'set_aside' AND idx BETWEEN ? AND ?", dataset, first, first + BLOCK - 1)}
        lost = before - found.keys() - accepted
        newly = {idx for idx in found.keys() - before - held if idx not in aside or not found[idx][1]}
        sums = self.one("SELECT images, short, short_images FROM blocks WHERE dataset = ? AND block = ?", dataset, block)
        kept = [found[idx] for idx in before & found.keys()]
        right = (sum(images for images, _ in kept), sum(missing > 0 for _, missing in kept), sum(missing for _, missing in kept))
        if lost or newly or (sums != right and not accepted):
            with self.transaction():
                for idx in lost:
                    self._reopen(dataset, idx)
                if not accepted:
                    self.run("UPDATE blocks SET images = ?, short = ?, short_images = ? WHERE dataset = ? AND block = ?", *right, dataset, block)
                    self._add(dataset, **{name: new - old for name, new, old in zip(("images", "short", "short_images"), right, sums)})
                for idx in newly:
                    self._done(dataset, idx, *found[idx])
        self._checked[dataset][block] = 1
        return len(lost), len(newly)

    def check_again(self, dataset):
        """Every block is to be compared anew, e.g. before "all done" is answered (promise 12)."""
        self._checked[dataset] = bytearray(len(self._checked[dataset]))

    def checked_share(self, dataset):
        checked = self._checked[dataset]
        return checked.count(1) / len(checked)

    def repair(self, now, dataset, indices):
        """Done indices wait again, since somebody is about to draw them anew. Returns how many were done."""
        with self.transaction():
            done = [idx for idx in sorted(set(indices)) if self._is_done(dataset, idx)]
            for idx in done:
                self._reopen(dataset, idx)
                self._checked[dataset][idx // BLOCK] = 0
        return len(done)
