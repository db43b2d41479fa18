"""What the job server keeps in <output root>/.server beside the ledger: who runs here, under which name, and since which epoch.

folder = open_folder(output_root)          # mode 0700
run = run_identity(folder)                 # {"run_id", "token"}: made once, kept over restarts and moves
epoch = claim_epoch(folder)                # higher than any before; the server that sees a higher one stops
write_server_json(folder, {...})           # mode 0600 from the first instant
"""

import json
import os
import secrets
import socket
import tempfile
from pathlib import Path

from generate.protocol.connection import Connection, ServerAway, read_server_json

FOLDER = ".server"


def open_folder(output_root):
    """The folder, made with mode 0700. SystemExit, with one line, if the output root cannot be written."""
    folder = Path(output_root) / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        (folder / "epochs").mkdir(exist_ok=True)
        (Path(output_root) / "generated_images").mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SystemExit(
            f"image_server: cannot write to the output root {output_root}: {error.strerror}; choose another with --output_root"
        ) from None
    return folder


def run_identity(folder):
    """{"run_id", "token"}, made by the first server of this output root; its mode is 0600 from the instant it exists."""
    path = folder / "run.json"
    if not path.exists():
        try:
            _write(
                path, {"run_id": secrets.token_hex(8), "token": secrets.token_urlsafe(32)}, os.link
            )
        except FileExistsError:
            pass  # another server was faster, and its word stands
    return json.loads(path.read_text())


def claim_epoch(folder):
    """The number of this start. Claimed by an exclusive file outside of the ledger, so that a lease's name never comes twice, not even
    after the ledger was replaced by yesterday's copy."""
    folder = folder / "epochs"
    while True:
        epoch = max((int(name) for name in os.listdir(folder) if name.isdigit()), default=0) + 1
        try:
            os.close(os.open(folder / str(epoch), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            continue
        sync_folder(folder)
        return epoch


def overtaken(folder, epoch):
    """Whether a later server was started here. Epochs have no gaps, so one name tells."""
    return (folder / "epochs" / str(epoch + 1)).exists()


def refuse_if_running(output_root):
    """SystemExit naming the server that runs for this output root already, if one does."""
    try:
        there = Connection(output_root)
    except ServerAway:
        return
    there.close()
    server = read_server_json(output_root)
    raise SystemExit(
        f"image_server: a server for {output_root} runs already: {there.url} (process {server.pid} on {server.hostname}); "
        "--status shows it, --take_over takes its place"
    )


def write_server_json(folder, record):
    write_json(folder / "server.json", record)


def write_json(path, record):
    _write(path, record, os.replace)


def _write(path, record, publish):
    """Publish a JSON file, readable by its owner alone from the instant it exists."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- where it listens


def listen(host, port):
    """A listening socket: on `port`, or for None on the first free one from 5000. SystemExit if a given port is in use."""
    wanted = [port] if port is not None else [*range(5000, 5100), 0]
    for number in wanted:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(1024)
            return listener
        except OSError as error:
            listener.close()
            if port is not None:
                in_use = f"port {port} is in use on {socket.gethostname()}; without --port the next free one from 5000 is taken"
                why = (
                    in_use
                    if error.errno == 98
                    else f"cannot listen on {host}:{port}: {error.strerror}"
                )
                raise SystemExit(f"image_server: {why}") from None
            if error.errno not in (98, 13):
                raise SystemExit(
                    f"image_server: cannot listen on {host}: {error.strerror}; see --host"
                ) from None
    raise SystemExit(f"image_server: no free port on {host}")


def address(host):
    """The name under which other nodes reach this one: the given host, else the node's name, else (not in the DNS) its address."""
    if host not in ("", "0.0.0.0", "::"):
        return f"[{host}]" if ":" in host else host
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
        return name
    except OSError:
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # sends nothing; asks the routing table which address leads outside
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
