"""Commits of the ledger; when one fails, what is in memory follows the disk."""

import contextlib
import sqlite3
from collections.abc import Iterator

from generate.server.ledger.blame import Blame
from generate.server.ledger.live_leases import LiveLeases
from generate.server.storage.store import Store


class Transactions:
    """Commits to the store; keeps live leases and fault attribution in agreement with it."""

    def __init__(self, store: Store, blame: Blame, live: LiveLeases) -> None:
        self.store = store
        self.blame = blame
        self.live = live

        self.memory_is_right = True

    @contextlib.contextmanager
    def begin(self, now: float) -> Iterator[None]:
        """One commit for all within (or within the outermost); an exception undoes all of it.

        Leases that the disk does not have are then forgotten, those that it still has get a fresh
        TTL, and streaks of failures are counted anew: at once, or as soon as the disk can be read.
        """
        if not self.memory_is_right:
            self._follow_the_disk(now)
        try:
            with self.store.transaction():
                yield
        except BaseException:
            if not self.store.depth:
                self.memory_is_right = False
                with contextlib.suppress(sqlite3.Error):
                    self._follow_the_disk(now)
            raise

    def _follow_the_disk(self, now: float) -> None:
        self.live.reload(now, self.store.all("SELECT lease, client_id, bare FROM leases"))
        self.blame.forget_streaks()
        self.memory_is_right = True
