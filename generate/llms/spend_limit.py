"""The spend limit of this process on paid backends: spent + reserved never exceeds the grant.

limit = SpendLimit(accounts)            # None: the job server grants, through take()
if limit.fits(0.02): limit.reserve(0.02)
limit.settle(0.02, 0.013)

The worst case of a call is reserved before it starts (guarantee 16).
"""

import logging
import os
import sqlite3
import time
from typing import Any

from common.command_line import UserError
from common.sqlite_files import refuse_special
from generate.llms.budget import Accounts

LOG = logging.getLogger(__name__)
CALLS_AHEAD = 4  # worst-case calls that are asked for in advance
REFILL_EVERY_S = 0.2


class OwnAccounts:
    """The accounts of a process that runs without a job server: limits and money of its own.

    path: an SQLite file or ":memory:". A grant is on disk before it is used.
    """

    def __init__(self, path: str, limits: dict[str, Any]) -> None:
        """UserError: the file is no database of these accounts."""
        try:
            self.accounts = self._open(path)
            for client_id, client in list(self.accounts.clients.items()):
                if not client.closed:  # it was killed: all of its grant counts as spent
                    self.accounts.forget(time.monotonic(), client_id)
            self.accounts.register(limits)
            self.accounts.set_budget(limits["budget_usd"])
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{path} should say what was spent, and cannot be used: {error}; move it away"
            ) from None
        self.client_id = f"{os.getpid()}-{time.time_ns()}"
        self.asked = float("-inf")

    def _open(self, path: str) -> Accounts:
        if path != ":memory:":
            refuse_special(path)
        # Made here, used in the thread of the event loop alone.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        return Accounts(connection, client_ttl_s=float("inf"), raised_by="--llm_budget_usd")

    def share(self, report: dict[str, Any]) -> dict[str, Any] | None:
        """Accounts.share() after that report; None less than 0.2 s after the last one."""
        now = time.monotonic()
        if now - self.asked < REFILL_EVERY_S and not report["closed"]:
            return None
        self.asked = now
        self.accounts.report(now, self.client_id, report)
        return self.accounts.share(now, self.client_id)

    def close(self) -> None:
        """Close the database."""
        self.accounts.connection.close()


class SpendLimit:
    """granted_usd and paid_off come from the job server, or from own accounts."""

    def __init__(self, own: OwnAccounts | None = None, call_usd: float = 0.0) -> None:
        self.own = own
        self.call_usd = call_usd  # the dearest call so far; the first guess comes from outside
        self.granted_usd = 0.0
        self.spent_usd = 0.0
        self.reserved_usd = 0.0
        self.paid_off: str | None = "no money was granted yet"  # why nothing paid may be called
        self.reports = 0
        self._refill()

    @property
    def wanted_usd(self) -> float:
        """How much is to be granted ahead of what was spent."""
        return CALLS_AHEAD * self.call_usd

    @property
    def exhausted(self) -> str | None:
        """Why this process can make no paid call any more: its own cap is reached."""
        return self.paid_off if self.own else None

    def fits(self, usd: float) -> bool:
        """Whether a call that may cost so much can be made now."""
        self.call_usd = max(self.call_usd, usd)
        if self._left() < usd:
            self._refill()
        return not self.paid_off and self._left() >= usd

    def reserve(self, usd: float) -> None:
        """Reserve the worst case of a call."""
        self.reserved_usd += usd

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Book a finished call: what was reserved for it, and what it cost."""
        self.reserved_usd -= reserved_usd
        self.spent_usd += spent_usd

    def take(self, share: dict[str, Any]) -> None:
        """Take over what Accounts.share() grants; in any order, any number of times."""
        self.granted_usd = max(self.granted_usd, float(share.get("granted_usd") or 0.0))
        paid_off = share.get("paid_off")
        if paid_off != self.paid_off:
            self.paid_off = paid_off
            if paid_off and self.call_usd:
                LOG.warning("LLMs: the paid backends pause: %s", paid_off)

    def report(self, closed: bool) -> dict[str, Any]:
        """Running totals of money, for Accounts.report(). "reported" tells which is the latest."""
        self.reports += 1
        return {
            "reported": self.reports,
            "usd": self.spent_usd,
            "granted_usd": self.granted_usd,
            "reserved_usd": self.reserved_usd,
            "wanted_usd": self.wanted_usd,
            "call_usd": self.call_usd,
            "closed": closed,
        }

    def close(self) -> None:
        """Give back to the own accounts what was not spent."""
        if self.own:
            self._refill(closed=True)
            self.own.close()
            self.own = None

    def _left(self) -> float:
        return self.granted_usd - self.spent_usd - self.reserved_usd

    def _refill(self, closed: bool = False) -> None:
        share = self.own.share(self.report(closed)) if self.own else None
        if share:
            self.take(share)
