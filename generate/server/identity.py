"""Small files in <output root>/.server: the run's id and token, epochs, server.json.

folder = open_folder(output_root)          # mode 0700
run = run_identity(folder)                 # RunIdentity: made once, kept over restarts
claim = claim_epoch(folder)                # higher than any before; the server that sees it stops
write_server_json(folder, {...})           # mode 0600 from the first instant

Each file may be deleted, torn or restored from a backup. run.json is then made again from
server.json, or with a new id; the running server writes server.json again; epochs continue above
the highest known one.
"""

import json
import logging
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.files import create_whole, is_away, keep_damaged, read_json, sync_folder, write_whole
from generate.protocol.connection import (
    Closed,
    Connection,
    CopiedRoot,
    ServerAway,
    lives_here,
    read_server_json,
)
from generate.protocol.output_root import GENERATED_IMAGES, make_server_folder

OWNER_ONLY = 0o600  # server.json and run.json hold the token
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
EPOCH = re.compile(r"[0-9]{1,12}")
log = logging.getLogger("image_server")


@dataclass(frozen=True)
class RunIdentity:
    """The name of a run and its secret."""

    run_id: str
    token: str


def open_folder(output_root: str | os.PathLike[str]) -> Path:
    """The server's folder, made with mode 0700. UserError if the output root cannot be written."""
    folder = make_server_folder(output_root)
    if (folder / "epochs").is_symlink():  # each start would make a file where it leads
        raise UserError(f"{folder / 'epochs'} is a link; remove it")
    try:
        (folder / "epochs").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder / 'epochs'} cannot be used: {error.strerror}; move it away"
        ) from None
    return folder


def run_identity(folder: Path) -> RunIdentity:
    """Made by the first server of this output root."""
    path = folder / "run.json"
    _leave_original(folder)
    try:
        run = _identity_in(path)
        if run:
            return run
        log.warning("%s is damaged; it is kept as %s", path, keep_damaged(path).name)
    except FileNotFoundError:
        pass
    try:
        run = _identity_in(folder / "server.json")
    except FileNotFoundError:
        run = None
    run = run or RunIdentity(secrets.token_hex(8), secrets.token_urlsafe(32))
    if create_whole(path, json.dumps(asdict(run)) + "\n", mode=OWNER_ONLY):
        return run
    return run_identity(folder)  # another server was faster: take its file


def _leave_original(folder: Path) -> None:
    """Give a copied output root an id of its own, so that no client of the original uses it."""
    try:
        read_server_json(folder.parent)
    except CopiedRoot as error:
        log.warning("%s", error)
        for name in ("run.json", "server.json"):
            (folder / name).unlink(missing_ok=True)
    except ServerAway:
        pass


def new_token(folder: Path) -> str:
    """Replace the run's token, and return the new one; its run_id stays."""
    run = replace(run_identity(folder), token=secrets.token_urlsafe(32))
    write_whole(folder / "run.json", json.dumps(asdict(run)) + "\n", mode=OWNER_ONLY)
    return run.token


def write_metrics_secret(folder: Path, secret: str) -> None:
    """The secret for Prometheus' bearer_token_file; it opens /metrics and nothing else."""
    write_whole(folder / "metrics_secret", secret, mode=OWNER_ONLY)


def _identity_in(path: Path) -> RunIdentity | None:
    """The identity that a file holds; None if it is damaged. OSError: it cannot be read."""
    try:
        record = read_json(path)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    run_id = str(record.get("run_id", ""))
    token = str(record.get("token", ""))
    if not RUN_ID.fullmatch(run_id) or not TOKEN.fullmatch(token):
        return None
    return RunIdentity(run_id, token)


# ---------------------------------------------------------------- epochs


class Claim:
    """The epoch of one server start: a file that this server alone has made."""

    def __init__(self, folder: Path, epoch: int, descriptor: int) -> None:
        self.folder = folder
        self.epoch = epoch
        # Held open, so that its inode cannot be given to another file of that name.
        self._descriptor = descriptor
        self._opened = os.fstat(descriptor)
        self._path = os.path.join(folder, "epochs", str(epoch))  # looked up at each answer

    def is_lost(self) -> bool:
        """Whether the file was deleted or replaced, together with the ledger as a rule."""
        return is_away(self._path, self._opened)


def claim_epoch(folder: Path, above: int = 0) -> Claim:
    """The number of this start, claimed by an exclusive file outside of the ledger.

    So the name of a lease never repeats, not even after an older copy has replaced the ledger.
    UserError: the last number that there is was claimed, by hand.
    """
    epochs = folder / "epochs"
    while True:
        epoch = max(*_claimed(epochs), above) + 1
        if not EPOCH.fullmatch(str(epoch)):
            raise UserError(
                f"{epochs}: the file {epoch - 1} is the last number that a start can have; no "
                "server made it: remove it"
            )
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            descriptor = os.open(epochs / str(epoch), flags, OWNER_ONLY)
        except FileExistsError:
            continue
        sync_folder(epochs)
        return Claim(folder, epoch, descriptor)


def _claimed(epochs: Path) -> list[int]:
    """The epochs of all starts; they begin with 1."""
    return [0, 0, *(int(name) for name in os.listdir(epochs) if EPOCH.fullmatch(name))]


def known_epoch(folder: Path) -> int:
    """The highest epoch that is known without the files in epochs/; 0: none.

    If those were lost and there are data sets, servers have run here under unknown epochs. Then it
    is the Unix time in seconds, which no count of starts reaches. The file of that epoch tells the
    ledger, and so the LLM accounts, of the loss.
    """
    try:
        known = read_server_json(folder.parent).epoch
    except ServerAway:
        known = 0
    epochs = folder / "epochs"
    data_sets = any((folder.parent / GENERATED_IMAGES).glob("*/dataset*.yaml"))
    if max(_claimed(epochs)) == 0 and (data_sets or known):
        known = max(known, int(time.time()))
        note_lost_history(folder, known)
    return known


def note_lost_history(folder: Path, epoch: int) -> None:
    """Note that a server has run under this epoch, so that the ledger may be an older copy."""
    create_whole(folder / "epochs" / str(epoch), "0\n", mode=OWNER_ONLY)


def superseded(folder: Path, epoch: int) -> bool:
    """Whether a later server was started here. Epochs have no gaps: one file name is looked up."""
    return os.path.exists(f"{folder}/epochs/{epoch + 1}")


# ---------------------------------------------------------------- server.json


def refuse_if_running(output_root: Path) -> None:
    """UserError naming the server that runs for this output root already, if one does.

    Also one that lives on this host and closes new connections: somebody holds too many of them.
    """
    try:
        Connection(output_root).close()
    except Closed:
        if not lives_here(output_root):
            return
    except ServerAway:
        return
    server = read_server_json(output_root)
    raise UserError(
        f"a server for {output_root} runs already: {server.url} (process {server.pid} on "
        f"{server.hostname}); --status shows it, --take_over takes its place"
    )


def write_server_json(folder: Path, record: dict[str, Any]) -> None:
    """Publish the address and the token for the clients; readable by the owner alone."""
    write_whole(folder / "server.json", json.dumps(record) + "\n", mode=OWNER_ONLY)


def keep_server_json(folder: Path, record: dict[str, Any]) -> bool:
    """Write server.json again if it was lost, changed or is an older one; whether it was."""
    try:
        found = read_server_json(folder.parent)
        names = ["run_id", "token"]
        if found.epoch == record["epoch"]:  # its own: clients must find it there
            names += ["url", "pid"]
        same = all(getattr(found, name) == record[name] for name in names)
        if same and found.epoch >= record["epoch"]:
            return False
    except ServerAway:
        pass
    path = folder / "server.json"
    if os.path.lexists(path) and not path.is_file():  # a pipe, a folder: nothing to write over
        keep_damaged(path)
    write_server_json(folder, record)
    return True
