"""Keep the definitions in the data set folders and in the ledger in agreement.

data_sets = DataSets(folders, ledger)
data_sets.adopt()                          # at a start
data_sets.settle("HPDv2", definition)      # a client asks; Differs or Extended if it cannot stand
data_sets.look()                           # now and then: folders that left, came back, changed

The folder's dataset.yaml goes before the ledger, which follows it; a damaged or deleted one is
written again from the ledger. A folder is known by the dataset_id in it:

- it left (deleted, renamed, moved): detached, nothing waits for it, until it is back or asked for;
- it was replaced by another one: the ledger begins anew;
- a sub-folder left, or came back: it is compared again, so that what counts is there;
- a copy or a renamed folder is named in the log and not taken in, unless a client asks for it.
"""

import logging
import os
import threading
from pathlib import Path
from typing import Any

from generate.dataset.definition import (
    GROWS,
    REMEDY,
    RULE,
    Definition,
    Differs,
    Extended,
    compare,
    extended_since,
    grown_from,
    newest_file,
    read_definition,
    remove,
    restore,
    settle,
    stored_definition,
)
from generate.dataset.layout import has_samples
from generate.protocol.output_root import GENERATED_IMAGES
from generate.server.folders import Folders
from generate.server.gone_folders import GoneFolders
from generate.server.ledger.ledger import Ledger
from generate.server.ledger.shared_ledger import SharedLedger

log = logging.getLogger("image_server")
Stamp = tuple[str, int, int, int] | None  # of the newest definition's file; None: there is none


class DataSets:
    """settle(), look() and forget() take turns, by a lock."""

    def __init__(self, folders: Folders, ledger: SharedLedger) -> None:
        self.folders = folders
        self.ledger = ledger
        self.detached: frozenset[str] = frozenset()
        self.gone = GoneFolders()
        self._settling = threading.RLock()
        self._asked: dict[str, tuple[Definition, Stamp]] = {}  # as it was last settled
        self._followed: dict[str, Stamp] = {}  # as the ledger last took it over
        self._said: dict[str, str] = {}  # why a data set could not be looked at

    # ------------------------------------------------ a start

    def adopt(self) -> None:
        """Bring the folders that lie here to the ledger; one that is damaged harms no other.

        A ledger that knows data sets is not shown new ones: a client that asks brings them in.
        """
        known = self.ledger.read(lambda ledger: ledger.store.names())
        base = self.folders.output_root / GENERATED_IMAGES
        for folder in sorted(base.iterdir()):
            name = folder.name
            try:
                if folder.is_symlink() or not folder.is_dir():
                    continue
                if name in known:
                    self._follow(name)
                elif path := newest_file(folder)[1]:
                    self._adopt_new(folder, path, bool(known))
            except (ValueError, OSError) as error:
                log.error("data set %s is left out: %s; %s; the others go on", name, error, REMEDY)

    def _adopt_new(self, folder: Path, path: Path, others: bool) -> None:
        stored = read_definition(path)
        original = stored.get("name", folder.name)
        if original != folder.name:
            log.warning(
                "data set folder %s is a copy of %s, or was renamed: it is not added",
                folder.name,
                original,
            )
        elif others:
            log.info("data set folder %s is added when a client asks for it", folder.name)
        else:
            version = newest_file(folder)[0]
            self.ledger.run(Ledger.define, stored | {"name": folder.name}, version)

    # ------------------------------------------------ a client asks

    def settle(self, name: str, asked: Definition, starting: bool = False) -> None:
        """Make the definition stand, in the folder and then in the ledger.

        starting: a run that begins; a data set of which nothing exists takes its definition.
        Differs: it cannot. Extended: it is an earlier one of this data set. ValueError: the
        folder's is damaged, and the ledger does not know the data set. OSError: the disk.
        """
        folder = self.folders.path(name)
        if self._asked.get(name) == (asked, self._stamp(name)) and name not in self.detached:
            return
        with self._settling:
            self._make_way(name, asked, starting)
            try:
                definition, changed = settle(folder, asked)
            except Differs:
                present = extended_since(folder, asked)
                if present is not None:
                    raise Extended(present) from None
                if not starting or not self._is_empty(name):
                    raise
                log.warning("data set %s has no image and no lease; it is defined anew", name)
                remove(folder)
                self.ledger.run(Ledger.forget, name)
                definition, changed = settle(folder, asked)
            except ValueError as error:  # the ledger does not know what it said
                raise ValueError(f"{error}; {REMEDY}") from None
            self._define(name, definition)
            self._asked[name] = (dict(asked), self._followed[name])
            if changed:
                total = f"{definition['total']:,}"
                per = definition["images_per_prompt"]
                log.info("data set %s: %s prompts, %d images each", name, total, per)

    def _make_way(self, name: str, asked: Definition, starting: bool) -> None:
        """Write a lost dataset.yaml again; or forget a data set whose name is used anew.

        Extended: the folder was removed after an extension, and an older client goes on.
        """
        known = self._known(name)
        folder = self.folders.path(name)
        if known is None or self._restored_if_damaged(name, known) or newest_file(folder)[1]:
            return
        try:
            compare(known, asked, "the ledger", growing=bool(asked.get("extend")))
        except Differs:
            if has_samples(folder):
                raise
            changed = self.ledger.read(lambda ledger: ledger.store.version(name)) > 1
            if changed and not starting and grown_from(known, asked):
                raise Extended(known) from None
            log.warning(
                "data set %s: its folder was deleted, and its name is used again with another "
                "definition: it is a new data set",
                name,
            )
            self.ledger.run(Ledger.forget, name)
            return
        restore(folder, known)
        log.warning("data set %s: dataset.yaml was deleted; it is written again", name)

    def _is_empty(self, name: str) -> bool:
        """Whether nothing of a data set exists, and nobody makes something."""
        if has_samples(self.folders.path(name)):
            return False
        known = self._known(name) is not None
        return not known or self.ledger.read(lambda it: it.queries.counts(name))["leased"] == 0

    # ------------------------------------------------ now and then

    def look(self) -> None:
        """Notice changes of the folders since the last look."""
        with self._settling:
            self._look()

    def _look(self) -> None:
        gone = set()
        for name in self.ledger.read(lambda ledger: ledger.store.names()):
            try:
                if not self.folders.path(name).is_dir():
                    gone.add(name)
                elif name in self.detached or self._stamp(name) != self._followed.get(name):
                    self._follow(name)
                if name not in gone:
                    self._look_inside(name)
                self._said.pop(name, None)
            except (ValueError, OSError) as error:
                why = getattr(error, "strerror", None) or str(error)
                if self._said.get(name) != why:
                    log.error("data set %s: %s; it is tried again", name, error)
                self._said[name] = why
        for name in sorted(gone - self.detached):
            log.warning(
                "data set %s: its folder is gone (deleted, renamed or moved); nothing waits for "
                "it, until it is back or a client asks for it",
                name,
            )
        for name in sorted(self.detached - gone):
            log.info("data set %s: its folder is there again", name)
        self.detached = frozenset(gone)

    def _look_inside(self, name: str) -> None:
        """Have sub-folders that left, or came back, compared again."""
        blocks = self.gone.look(name, self.folders.path(name))
        for _, block in blocks:
            log.warning("data set %s: its %06d was moved, and is compared again", name, block)
        if blocks:
            self.ledger.read(lambda ledger: ledger.comparison.compare_again(blocks))

    def forget(self, name: str) -> None:
        """Remove all that is known of a data set; its folder stays as it is."""
        with self._settling:
            self.ledger.run(Ledger.forget, name)
            self._asked.pop(name, None)
            self._followed.pop(name, None)
            self.detached -= {name}

    def _follow(self, name: str) -> None:
        """Take over what the folder's definition says now."""
        with self._settling:
            known = self._known(name)
            if known is None:
                return
            folder = self.folders.path(name)
            if not self._restored_if_damaged(name, known) and newest_file(folder)[1] is None:
                restore(folder, known)
                log.warning("data set %s: dataset.yaml was deleted; it is written again", name)
            stored = stored_definition(folder)
            if stored:
                self._define(name, stored)

    def _restored_if_damaged(self, name: str, known: Definition) -> bool:
        folder = self.folders.path(name)
        try:
            stored_definition(folder)
            return False
        except ValueError as error:
            kept = restore(folder, known)
            log.warning(
                "data set %s: %s; it is kept as %s, and written again from the ledger",
                name,
                error,
                kept and kept.name,
            )
            return True

    def _define(self, name: str, definition: Definition) -> None:
        """Have the ledger follow a definition, and compare what may have changed in the folder."""
        known = self._known(name)
        changes = (*GROWS, *RULE)
        if known and any(known.get(field) != definition.get(field) for field in changes):
            self.folders.unmark_all(name)
        version = max(newest_file(self.folders.path(name))[0], 1)
        self.ledger.run(Ledger.define, definition, version)
        stamp = self._stamp(name)
        if name in self.detached or stamp != self._followed.get(name):  # it is not the same file
            self.ledger.read(lambda ledger: ledger.comparison.begin(name))
            self.detached -= {name}
        self._followed[name] = stamp

    def _known(self, name: str) -> dict[str, Any] | None:
        """The definition that the ledger knows."""
        if not self.ledger.read(lambda ledger: ledger.store.has(name)):
            return None
        return self.ledger.read(lambda ledger: ledger.store.definition(name))

    def _stamp(self, name: str) -> Stamp:
        """Identity of the newest definition's file; costs two looks at the disk.

        None, too, where it cannot be looked at, such as a link to itself: who reads it says why.
        """
        followed = self._followed.get(name)
        folder = self.folders.path(name)
        path = folder / followed[0] if followed else None
        try:
            if path is None or _next_exists(path):
                path = newest_file(folder)[1]
            there = path.stat() if path else None
        except OSError:
            return None
        if path is None or there is None:
            return None
        return path.name, there.st_ino, there.st_mtime_ns, there.st_size


def _next_exists(path: Path) -> bool:
    """Whether there is a definition after this one."""
    words = path.name.split(".")
    number = int(words[1]) if len(words) == 3 else 1
    return os.path.lexists(path.with_name(f"dataset.{number + 1}.yaml"))
