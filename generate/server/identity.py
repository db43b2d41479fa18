"""Who runs here, under which name, since which epoch: the small files in <output root>/.server.

folder = open_folder(output_root)          # mode 0700
run = run_identity(folder)                 # {"run_id", "token"}: made once, kept over restarts
epoch = claim_epoch(folder)                # higher than any before; the server that sees it stops
write_server_json(folder, {...})           # mode 0600 from the first instant
"""

import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.files import create_whole, sync_folder, write_whole
from generate.protocol.connection import Connection, ServerAway, read_server_json
from generate.protocol.output_root import GENERATED_IMAGES, server_folder

OWNER_ONLY = 0o600  # server.json and run.json hold the token


def open_folder(output_root: str | os.PathLike[str]) -> Path:
    """The server's folder, made with mode 0700. UserError if the output root cannot be written."""
    folder = server_folder(output_root)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        (folder / "epochs").mkdir(exist_ok=True)
        (Path(output_root) / GENERATED_IMAGES).mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"cannot write to the output root {output_root}: {error.strerror}; "
            "choose another with --output_root"
        ) from None
    return folder


def run_identity(folder: Path) -> dict[str, str]:
    """{"run_id", "token"}, made by the first server of this output root."""
    path = folder / "run.json"
    if not path.exists():
        made = {"run_id": secrets.token_hex(8), "token": secrets.token_urlsafe(32)}
        # False: another server was faster, and its word stands
        create_whole(path, json.dumps(made) + "\n", mode=OWNER_ONLY)
    run: dict[str, str] = json.loads(path.read_text())
    return run


def new_token(folder: Path) -> str:
    """Replace the run's token, and return the new one; its run_id stays."""
    run = run_identity(folder) | {"token": secrets.token_urlsafe(32)}
    write_whole(folder / "run.json", json.dumps(run) + "\n", mode=OWNER_ONLY)
    return run["token"]


def write_metrics_secret(folder: Path, secret: str) -> None:
    """The secret for Prometheus' bearer_token_file; it opens /metrics and nothing else."""
    write_whole(folder / "metrics_secret", secret, mode=OWNER_ONLY)


def claim_epoch(folder: Path) -> int:
    """The number of this start, claimed by an exclusive file outside of the ledger.

    So a lease's name never comes twice, not even after the ledger was replaced by an older copy.
    """
    epochs = folder / "epochs"
    while True:
        epoch = max((int(name) for name in os.listdir(epochs) if name.isdigit()), default=0) + 1
        try:
            os.close(os.open(epochs / str(epoch), os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY))
        except FileExistsError:
            continue
        sync_folder(epochs)
        return epoch


def superseded(folder: Path, epoch: int) -> bool:
    """Whether a later server was started here. Epochs have no gaps, so one name tells."""
    return (folder / "epochs" / str(epoch + 1)).exists()


def refuse_if_running(output_root: Path) -> None:
    """UserError naming the server that runs for this output root already, if one does."""
    try:
        there = Connection(output_root)
    except ServerAway:
        return
    there.close()
    server = read_server_json(output_root)
    raise UserError(
        f"a server for {output_root} runs already: {there.url} (process {server.pid} on "
        f"{server.hostname}); --status shows it, --take_over takes its place"
    )


def write_server_json(folder: Path, record: dict[str, Any]) -> None:
    """Publish the address and the token for the clients; readable by the owner alone."""
    write_whole(folder / "server.json", json.dumps(record) + "\n", mode=OWNER_ONLY)
