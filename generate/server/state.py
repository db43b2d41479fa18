"""What the parts of the job server share: the ledger, the folders, and who this server is.

server = Server(ServerSettings(Path("outputs/generate_images"), LeaseLimits()))
server.about()                                     # its address, epoch, version
"""

import logging
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from common.command_line import UserError
from common.version import version
from generate.llms.budget import Accounts
from generate.protocol.signing import Verifier
from generate.server import identity
from generate.server.folder_check import FolderCheck
from generate.server.folders import Folders
from generate.server.ledger import Ledger, open_ledger
from generate.server.listen import address, listen
from generate.server.live_leases import LeaseLimits
from generate.server.page_access import PageAccess
from generate.server.shared_ledger import SharedLedger

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
    """What the parts of the server share: the ledger, the folders, and who this server is."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.output_root = settings.output_root
        self.folder = identity.open_folder(self.output_root)
        if not settings.take_over:
            identity.refuse_if_running(self.output_root)
        self.listener = listen(settings.host, settings.port)
        run = identity.run_identity(self.folder)
        self.run_id = run["run_id"]
        self.epoch = identity.claim_epoch(self.folder)
        self._use(run["token"])
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://{address(settings.host)}:{self.port}/"
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.version = version()  # asks git: once
        self._asked_at = time.monotonic()
        ledger = wait_for_ledger(self.folder / "ledger.sqlite", self.epoch, settings.limits)
        self.ledger = SharedLedger(ledger)
        self.accounts = Accounts(ledger.store.connection, client_ttl_s=1.5 * settings.limits.ttl_s)
        if ledger.rebuilt:
            self.accounts.rebuilt()
        self.folders = Folders(self.output_root, self.ledger)
        self.folders.adopt()
        self.check = FolderCheck(self.folders, self.ledger)

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
        self.page_access = PageAccess(token)
        identity.write_metrics_secret(self.folder, self.page_access.metrics_secret)

    def rotate_token(self) -> None:
        """A new token; clients read it from server.json, links and cookies end."""
        self._use(identity.new_token(self.folder))
        self.announce()

    def announce(self) -> None:
        """Write server.json, by which clients find this server."""
        identity.write_server_json(self.folder, {**self.about(), "token": self.token})

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

    def notice(self) -> str | None:
        """What the server is busy with beside its clients, for the page."""
        return self.check.progress()

    def stop_if_superseded(self) -> None:
        if identity.superseded(self.folder, self.epoch):
            log.warning(
                "a later server was started for this output root: "
                "this one stops before its next answer"
            )
            os._exit(3)


def wait_for_ledger(path: Path, epoch: int, limits: LeaseLimits) -> Ledger:
    """The ledger, once the server before this one has let go of it."""
    for _ in range(OPEN_TRIES):
        utc = time.time() - time.monotonic()
        try:
            return open_ledger(path, epoch, time.monotonic(), limits, utc)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise UserError(f"cannot open {path}: {error}") from None
        time.sleep(1)
    raise UserError(
        f"another process holds {path} and does not let go; end the old server's process first"
    )
