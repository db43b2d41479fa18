"""Commits of the ledger, and memory that follows the disk when one fails."""

import contextlib
from collections.abc import Iterator

from generate.server.blame import Blame
from generate.server.live_leases import LiveLeases
from generate.server.store import Store


class Transactions:
    def __init__(self, store: Store, blame: Blame, live: LiveLeases) -> None:
        self.store = store
        self.blame = blame
        self.live = live

    @contextlib.contextmanager
    def begin(self, now: float) -> Iterator[None]:
        """One commit for all within (or within the outermost); an exception undoes all of it.

        Leases that the disk does not have are then forgotten, those that it still has get a fresh
        TTL, and streaks of failures are counted anew.
        """
        try:
            with self.store.transaction():
                yield
        except BaseException:
            if not self.store.depth:
                self.live.reload(now, self.store.all("SELECT lease, client_id, bare FROM leases"))
                self.blame.forget_streaks()
            raise
