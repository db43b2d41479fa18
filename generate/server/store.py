"""The state of every index on disk, with the operations that keep promise 13's sum: waiting + leased + done + set aside = total.

    class Ledger(Store): …        # ledger.py adds the rules of leases

Data sets with their definitions, blocks of 1,000 indices with a bit each, and the comparison with the folder, which wins.
"""

import contextlib
import itertools
import json
import random
from collections import Counter
from pathlib import Path

from generate.server import schema as ledger_tables

BLOCK = (
    1000  # indices of a block: one sub-folder of the data set, one row here, 125 bytes of done bits
)
NOT_COMPARED = {
    "name",
    "prompts_file",
    "extend",
    "prefix_total",
    "prefix_sha256",
    "dataset_id",
    "created",
    "bare",
    "version",
}  # sha256 tells prompts files apart
AMONG = "dataset = ? AND idx IN (SELECT value FROM json_each(?))"  # one statement for all indices of a request, given as a JSON list
GROWS = {"total", "images_per_prompt", "prompts_sha256"}  # what an extension may change


class DefinitionDiffers(Exception):
    """A request's data set definition is not the stored one; .field .stored .given say where."""

    def __init__(self, field, stored, given):
        super().__init__(
            f"{field}: the data set was made with {stored!r}, this request says {given!r}"
        )
        self.field, self.stored, self.given = field, stored, given


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

    def __init__(self, path, epoch, options, utc):
        self.path, self.epoch, self.options = Path(path), epoch, options
        self.connection, self.lost = ledger_tables.open_database(path, epoch, utc)
        self._depth = 0
        self._checked = {}  # data set -> one byte a block: compared with the folder since this start
        self._checking = {}  # (data set, block) -> indices accepted while its folder is being read

    # ------------------------------------------------ transactions

    @contextlib.contextmanager
    def transaction(self):
        """One commit at the end of the outermost, without a sync when nothing was changed; an exception undoes all of it, and the memory
        is read anew from disk."""
        if self._depth:
            yield
            return
        self.connection.execute("BEGIN IMMEDIATE")
        self._depth, before = 1, self.connection.total_changes
        try:
            yield
            if self.connection.total_changes > before:
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

    def loss_is_known(self):
        """What depends on .lost (the LLM accounts) has taken it in: the next start need not say it again."""
        with self.transaction():
            self.run("UPDATE server SET lost = NULL")

    def note_changes(self):
        ledger_tables.note_changes(
            self.path.parent, self.epoch, self.one("SELECT changes FROM server")[0]
        )

    # ------------------------------------------------ data sets

    def names(self):
        return [name for (name,) in self.all("SELECT name FROM datasets ORDER BY name")]

    def definition(self, dataset):
        return json.loads(self.one("SELECT definition FROM datasets WHERE name = ?", dataset)[0])

    def version(self, dataset):
        return self.one("SELECT version FROM datasets WHERE name = ?", dataset)[0]

    def define(self, now, definition):
        """Makes the data set; or compares, and DefinitionDiffers names the first field; or extends it. Returns its version.

        definition: as in dataset.yaml; needs name, total, images_per_prompt; a field that is absent is not compared. More images per
        prompt, or prompts appended (whoever calls has compared the prefix), are an extension: what is then missing is found by comparing
        every block with the folder anew, before anything is granted from it. The same call again changes nothing.
        Test: test_promise_02_extension_reopens_what_is_missing.
        """
        name, total, per = definition["name"], definition["total"], definition["images_per_prompt"]
        if not self.one("SELECT 1 FROM datasets WHERE name = ?", name):
            with self.transaction():
                self.run(
                    "INSERT INTO datasets (name, definition, version, total, waiting) VALUES (?, ?, 1, ?, ?)",
                    name,
                    json.dumps(definition),
                    total,
                    total,
                )
                self._append_blocks(name, 0, total, definition.get("order_seed"))
            self._checked[name] = bytearray(-(-total // BLOCK))
            return 1
        stored = self.definition(name)
        old, old_per = stored["total"], stored["images_per_prompt"]
        for field in sorted(definition.keys() - NOT_COMPARED):
            fine = (
                definition[field] == stored.get(field)
                or (field in GROWS and total > old)
                or (field == "images_per_prompt" and per > old_per)
            )
            if not fine or total < old or per < old_per:
                raise DefinitionDiffers(field, stored.get(field), definition[field])
        if (total, per) == (old, old_per):
            return self.version(name)
        with self.transaction():
            values = (json.dumps({**stored, **definition}), total, total - old, name)
            self.run(
                "UPDATE datasets SET definition = ?, version = version + 1, total = ?, waiting = waiting + ? WHERE name = ?",
                *values,
            )
            self._append_blocks(name, old, total, stored.get("order_seed"))
        self._checked[name] = bytearray(-(-total // BLOCK))
        self._checking = {
            key: value for key, value in self._checking.items() if key[0] != name
        }  # a reading begun before measured by the old count
        return self.version(name)

    def _append_blocks(self, name, start, total, seed):
        """Rows for the blocks of indices start … total - 1, in a seeded order (in order without a seed)."""
        blocks = list(range(start // BLOCK, -(-total // BLOCK)))
        if start % BLOCK:  # the last block of the shorter list grows
            grows = min(total, (start // BLOCK + 1) * BLOCK) - start
            self.run(
                "UPDATE blocks SET size = size + ?, open = open + ? WHERE dataset = ? AND block = ?",
                grows,
                grows,
                name,
                blocks.pop(0),
            )
        if seed is not None:
            random.Random(f"{seed} {start}").shuffle(blocks)
        position = self.one(
            "SELECT COALESCE(MAX(position), -1) + 1 FROM blocks WHERE dataset = ?", name
        )[0]
        rows = (
            (
                name,
                block,
                position + n,
                min(BLOCK, total - block * BLOCK),
                min(BLOCK, total - block * BLOCK),
            )
            for n, block in enumerate(blocks)
        )
        self.connection.executemany(
            "INSERT INTO blocks (dataset, block, position, size, open) VALUES (?, ?, ?, ?, ?)", rows
        )

    # ------------------------------------------------ the state of an index

    def _is_done(self, dataset, idx):
        row = self.one(
            "SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, idx // BLOCK
        )
        return row is not None and bits_of(row[0]) >> idx % BLOCK & 1 == 1

    def _take(self, dataset, indices, lease):
        """From waiting to leased. The primary key keeps an index from being held twice (promise 3)."""
        self._move(dataset, indices, -1, "leased")
        self.run(
            "INSERT INTO held SELECT ?, value, ? FROM json_each(?)",
            dataset,
            lease,
            json.dumps(indices),
        )
        self._add(dataset, waiting=-len(indices), leased=len(indices))

    def _give_back(self, dataset, indices, reason=None):
        """From leased to waiting; counted under the reason."""
        if not indices:
            return
        self.run(f"DELETE FROM held WHERE {AMONG}", dataset, json.dumps(indices))
        self._move(dataset, indices, 1, "waiting")
        self._add(dataset, waiting=len(indices), leased=-len(indices))
        if reason:
            self.run(
                "INSERT INTO given_back VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET indices = indices + excluded.indices",
                dataset,
                reason,
                len(indices),
            )

    def _move(self, dataset, indices, by, state):
        """The troubled ones among the indices get the state; of the others their blocks' counts of open ones change."""
        among = dataset, json.dumps(indices)
        troubled = {idx for (idx,) in self.all(f"SELECT idx FROM trouble WHERE {AMONG}", *among)}
        if troubled:
            self.run(f"UPDATE trouble SET state = ? WHERE {AMONG}", state, *among)
        for block, count in Counter(idx // BLOCK for idx in indices if idx not in troubled).items():
            self.run(
                "UPDATE blocks SET open = open + ? WHERE dataset = ? AND block = ?",
                by * count,
                dataset,
                block,
            )

    def _suspect(self, dataset, idx):
        """A waiting or leased index is leased alone from now on."""
        held = self.one("SELECT 1 FROM held WHERE dataset = ? AND idx = ?", dataset, idx)
        if not self.one("SELECT 1 FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx):
            self.run(
                "INSERT INTO trouble VALUES (?, ?, ?)",
                dataset,
                idx,
                "leased" if held else "waiting",
            )
            if not held:
                self.run(
                    "UPDATE blocks SET open = open - 1 WHERE dataset = ? AND block = ?",
                    dataset,
                    idx // BLOCK,
                )

    def _clear(self, dataset, idx):
        """Nothing is held against an index any more; it is waiting, leased or set aside, and waits as all others do if it was not
        leased."""
        row = self.one("SELECT state FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)
        self.run("DELETE FROM blames WHERE dataset = ? AND idx = ?", dataset, idx)
        if row:
            self.run("DELETE FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)
            if row[0] != "leased":
                self.run(
                    "UPDATE blocks SET open = open + 1 WHERE dataset = ? AND block = ?",
                    dataset,
                    idx // BLOCK,
                )
            if row[0] == "set_aside":
                self._add(dataset, waiting=1, set_aside=-1)

    def _set_aside(self, dataset, idx):
        state = self.one("SELECT state FROM trouble WHERE dataset = ? AND idx = ?", dataset, idx)[0]
        self.run("DELETE FROM held WHERE dataset = ? AND idx = ?", dataset, idx)
        self.run(
            "UPDATE trouble SET state = 'set_aside' WHERE dataset = ? AND idx = ?", dataset, idx
        )
        self._add(dataset, set_aside=1, **{"leased" if state == "leased" else "waiting": -1})

    def _done(self, dataset, figures):
        """From leased to done. figures: {index: (images, texts the LLMs were short of)}."""
        for table in ("held", "trouble", "blames"):
            self.run(f"DELETE FROM {table} WHERE {AMONG}", dataset, json.dumps(list(figures)))
        for block, indices in itertools.groupby(sorted(figures), lambda idx: idx // BLOCK):
            group = [(1 << idx % BLOCK, *figures[idx]) for idx in indices]
            bits = bits_of(
                self.one("SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, block)[
                    0
                ]
            )
            bits |= sum(bit for bit, *_ in group)
            sums = [
                sum(values)
                for values in zip(*((images, missing > 0, missing) for _, images, missing in group))
            ]
            self.run(
                "UPDATE blocks SET done = ?, images = images + ?, short = short + ?, short_images = short_images + ?"
                " WHERE dataset = ? AND block = ?",
                blob_of(bits),
                *sums,
                dataset,
                block,
            )
            self._add(
                dataset,
                leased=-len(group),
                done=len(group),
                images=sums[0],
                short=sums[1],
                short_images=sums[2],
            )

    def _reopen(self, dataset, idx):
        """From done to waiting: by the folder check, an extension or a repair, by nothing else (promise 2)."""
        bits = bits_of(
            self.one(
                "SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, idx // BLOCK
            )[0]
        ) & ~(1 << idx % BLOCK)
        self.run(
            "UPDATE blocks SET done = ?, open = open + 1 WHERE dataset = ? AND block = ?",
            blob_of(bits),
            dataset,
            idx // BLOCK,
        )
        self._add(dataset, done=-1, waiting=1)

    # ------------------------------------------------ comparing with the folder (the folder wins)

    def next_check(self):
        """(data set, block) whose folder is to be compared next, those with open work first; None = all were since this start. Begins
        that check."""
        for next_of in (self._next_open, lambda dataset, checked: checked.find(0)):
            for dataset, checked in self._checked.items():
                if (block := next_of(dataset, checked)) >= 0:
                    self._checking[dataset, block] = set()
                    return dataset, block
        return None

    def _next_open(self, dataset, checked):
        """The first block not yet compared among the 50 from which work is given out next; -1 = none."""
        rows = (
            ()
            if checked.find(0) < 0
            else self.all(
                "SELECT block FROM blocks WHERE dataset = ? AND open > 0 ORDER BY position LIMIT 50",
                dataset,
            )
        )
        return next((block for (block,) in rows if not checked[block]), -1)

    def checks_left(self):
        return sum(checked.count(0) for checked in self._checked.values())

    def done_in(self, dataset, block):
        """The done indices of a block."""
        row = self.one("SELECT done FROM blocks WHERE dataset = ? AND block = ?", dataset, block)
        return {block * BLOCK + n for n in numbers(bits_of(row[0]))} if row else set()

    def folder_checked(self, now, dataset, block, found):
        """Takes over what the folder of a block holds: {index: (images, texts the LLMs were short of)} of the done indices. Returns
        (reopened, newly done). What was accepted since next_check() began stays done; a leased index stays leased; one that was set aside
        is done only with all its images, since its .failed marks are this ledger's own. None: the reading was outdated meanwhile (an
        extension, a repair, a retry), nothing was taken over, and next_check() will name the block again."""
        accepted = self._checking.pop((dataset, block), None)
        if accepted is None:
            return None
        first = block * BLOCK
        before, per = self.done_in(dataset, block), self.definition(dataset)["images_per_prompt"]
        around = (dataset, first, first + BLOCK - 1)
        held = {
            idx
            for (idx,) in self.all(
                "SELECT idx FROM held WHERE dataset = ? AND idx BETWEEN ? AND ?", *around
            )
        }
        trouble = dict(
            self.all(
                "SELECT idx, state FROM trouble WHERE dataset = ? AND idx BETWEEN ? AND ?", *around
            )
        )
        lost = before - found.keys() - accepted
        newly = {
            idx
            for idx in found.keys() - before - held
            if trouble.get(idx) != "set_aside" or sum(found[idx]) >= per
        }
        old = self.one(
            "SELECT images, short, short_images FROM blocks WHERE dataset = ? AND block = ?",
            dataset,
            block,
        )
        figures = [found[idx] for idx in (newly if accepted else (before | newly) & found.keys())]
        sums = (
            sum(images for images, _ in figures),
            sum(short > 0 for _, short in figures),
            sum(short for _, short in figures),
        )
        if accepted:  # their own figures are in the old sums
            sums = tuple(map(sum, zip(old, sums)))
        if lost or newly or sums != old:
            with self.transaction():
                for idx in newly & trouble.keys():
                    self._clear(dataset, idx)
                bits = sum(1 << idx - first for idx in (before | newly) - lost)
                self.run(
                    "UPDATE blocks SET done = ?, open = open + ?, images = ?, short = ?, short_images = ? WHERE dataset = ? AND block = ?",
                    blob_of(bits),
                    len(lost) - len(newly),
                    *sums,
                    dataset,
                    block,
                )
                change = {
                    name: to - was
                    for name, to, was in zip(("images", "short", "short_images"), sums, old)
                }
                self._add(
                    dataset, done=len(newly) - len(lost), waiting=len(lost) - len(newly), **change
                )
        self._checked[dataset][block] = 1
        return len(lost), len(newly)

    def _outdate(self, dataset, indices):
        """Readings of these indices' folders that are under way may tell of files that go now. Test: test_a_reading_begun_before_*."""
        for block in {idx // BLOCK for idx in indices}:
            self._checking.pop((dataset, block), None)

    def check_again(self, dataset):
        """Every block is to be compared anew, e.g. before "all done" is answered (promise 12)."""
        self._checked[dataset] = bytearray(len(self._checked[dataset]))
