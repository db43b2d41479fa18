"""The state that the parts of the job server share: ledger, folders, the server's identity.

server = Server(ServerSettings(Path("outputs/generate_images"), LeaseLimits()))
server.about()                                     # its address, epoch, version
"""

import logging
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from common.command_line import UserError
from common.version import version
from generate.llms.budget import Accounts
from generate.protocol.output_root import place_of
from generate.protocol.signing import Verifier
from generate.server import identity
from generate.server.data_sets import DataSets
from generate.server.folder_check import FolderCheck
from generate.server.folders import Folders
from generate.server.ledger.ledger import Ledger, open_ledger
from generate.server.ledger.live_leases import LeaseLimits
from generate.server.ledger.shared_ledger import SharedLedger
from generate.server.listen import address, listen
from generate.server.loading import Loading
from generate.server.page.page_access import PageAccess
from generate.server.storage.schema import EpochUsed
from generate.server.submissions import Submissions

log = logging.getLogger("image_server")
T = TypeVar("T")
OPEN_TRIES = 60  # seconds that a server being taken over may need to let go of the ledger


@dataclass(frozen=True)
class ServerSettings:
    """What the options of image_server.py say."""

    output_root: Path
    limits: LeaseLimits
    host: str = "::"  # all addresses, of both families
    port: int | None = None  # None: the first free one from 5000
    take_over: bool = False
    stop_when_done: bool = False


class Server:
    """The state that the parts of the server share; see the module."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.output_root = settings.output_root
        self.folder = identity.open_folder(self.output_root)
        if not settings.take_over:
            identity.refuse_if_running(self.output_root)
        self.listener = listen(settings.host, settings.port)
        run = identity.run_identity(self.folder)
        self.run_id = run.run_id
        ledger, self.claim = claim_ledger(self.folder, settings.limits)
        self.epoch = self.claim.epoch
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://{address(settings.host)}:{self.port}/"
        self._use(run.token)
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.version = version()  # asks git: once
        self._asked_at = time.monotonic()
        self._seen = 0  # the highest epoch that a client has seen
        self.ledger = SharedLedger(ledger)
        self.accounts = Accounts(ledger.store.connection, client_ttl_s=1.5 * settings.limits.ttl_s)
        if ledger.rebuilt:
            self.accounts.rebuilt()
        self.submissions = Submissions()
        self.loading = Loading(settings.limits.ttl_s)
        self.folders = Folders(self.output_root, self.ledger)
        self.data_sets = DataSets(self.folders, self.ledger)
        self.data_sets.adopt()
        self.check = FolderCheck(self.data_sets, ledger.rebuilt)

    def read(self, function: Callable[[Ledger, float], T]) -> T:
        """function(ledger, now) under the ledger's lock."""
        return self.ledger.run(function)

    def was_asked(self) -> None:
        """A client has made a call just now."""
        self._asked_at = time.monotonic()

    def idle_s(self) -> float:
        """Seconds since a client made a call."""
        return time.monotonic() - self._asked_at

    def _use(self, token: str) -> None:
        """The secrets of this run: its calls', its page's, its metrics'."""
        self.token = token
        self.verifier = Verifier(token, self.epoch)
        self.page_access = PageAccess(token, self.url)
        identity.write_metrics_secret(self.folder, self.page_access.metrics_secret)

    def rotate_token(self) -> None:
        """A new token; clients read it from server.json, links and cookies end."""
        self._use(identity.new_token(self.folder))
        self.announce()

    def announce(self) -> None:
        """Write server.json, by which clients find this server."""
        identity.write_server_json(self.folder, self._record())

    def keep_announcement(self) -> None:
        """Write server.json again if it was lost, torn or replaced by an older one."""
        if identity.keep_server_json(self.folder, self._record()):
            log.warning("server.json was lost, changed or an older one: it is written again")

    def _record(self) -> dict[str, Any]:
        place = place_of(self.output_root)
        return {**self.about(), **place, "token": self.token}

    def page_link(self) -> str:
        """A link to the page for one browser."""
        return f"{self.url}?code={self.page_access.new_code(time.time())}"

    def about(self) -> dict[str, Any]:
        """Who this server is, but for its token."""
        return {
            "url": self.url,
            "hostname": socket.gethostname(),
            "port": self.port,
            "run_id": self.run_id,
            "epoch": self.epoch,
            "pid": os.getpid(),
            "started": self.started,
            "version": self.version,
        }

    def notice(self) -> list[str]:
        """What the server is busy with beside its clients, and what to do about it."""
        if problem := self.check.problem():
            return [problem, "Its prompts wait until that is put right; the others go on."]
        progress = self.check.progress()
        return [progress] if progress else []

    def stopped(self) -> list[dict[str, Any]]:
        """The runs whose command no worker can do."""
        return self.submissions.stopped()

    def detached(self) -> frozenset[str]:
        """The data sets whose folder is gone."""
        return self.data_sets.detached

    def stop_if_superseded(self) -> None:
        if identity.superseded(self.folder, self.epoch):
            log.warning(
                "a later server was started for this output root: "
                "this one stops before its next answer"
            )
            os._exit(3)
        if self.claim.is_lost():
            start_anew(f"{self.folder} was deleted, moved or replaced")

    def keep_ledger(self) -> None:
        """If the ledger's file was deleted, write it again and start a new process on it.

        Under the lock, so that nothing is granted in between that the new file lacks.
        """
        with self.ledger.lock:
            store = self.ledger.ledger.store
            if not store.file.is_away():
                return
            saved = store.file.write_again(store.connection)
            start_anew(
                f"{store.file.path} was deleted and is written again, nothing of it is lost"
                if saved
                else f"{store.file.path} was replaced by another file"
            )

    def client_has_seen(self, epoch: int) -> None:
        """A client that knows the token has seen the server of this epoch."""
        self._seen = max(self._seen, epoch)

    def start_above_what_was_seen(self) -> None:
        """Restart with a higher epoch: this server's files are from a backup, and clients that
        have seen a later epoch refuse it.
        """
        if self._seen > self.epoch:
            identity.note_lost_history(self.folder, self._seen)
            start_anew(f"clients have seen epoch {self._seen}: {self.folder} is from a backup")


def start_anew(why: str) -> NoReturn:
    """Replace this process by a new one of the same command line, which claims a new epoch.

    If another server runs by then, the new process ends and names it.
    """
    log.warning("%s: the server restarts", why)
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--no-take_over"])


def claim_ledger(folder: Path, limits: LeaseLimits) -> tuple[Ledger, identity.Claim]:
    """The ledger, once the server before this one has let go of it, and the epoch of this start."""
    path = folder / "ledger.sqlite"
    claim = identity.claim_epoch(folder, identity.known_epoch(folder))
    for _ in range(OPEN_TRIES):
        utc = time.time() - time.monotonic()
        try:
            return open_ledger(path, claim.epoch, time.monotonic(), limits, utc), claim
        except EpochUsed as used:  # epochs are missing
            claim = identity.claim_epoch(folder, used.stored)
            continue
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise UserError(
                    f"cannot open {path}: {error}; if the disk is well, move the file away: it is "
                    "made again from the folders"
                ) from None
        if identity.superseded(folder, claim.epoch):
            raise UserError(f"a later server was started for {folder.parent} at the same time")
        time.sleep(1)
    raise UserError(
        f"another process holds {path} and does not let go; end the old server's process first"
    )
