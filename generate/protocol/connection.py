"""A connection to the job server: its address, its proof of identity, signed calls.

    connection = Connection(output_root)         # ServerAway, WrongServer
    status, answer = connection.post("/beat", {...})
    connection.close()

The address is read from `<output root>/.server/server.json` for each connection, since the server
may come back on another node. A connection first has its other end prove, by an HMAC over a nonce
and the address that was dialed, that it is this run's server there; then every call and every
answer is signed (signing.py). The token itself never travels.
"""

import http.client
import json
import os
import secrets
import socket
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.console import visible
from common.files import read_json
from common.json_text import parse_json
from generate.protocol.output_root import is_copy
from generate.protocol.signing import Signer, proof_of, same, seen_proof

Answer = dict[str, Any]

CONNECT_S = 10  # for a connection and its proof
ANSWER_S = 60  # an answer waits for the server's disk, which may be busy
LARGEST_ANSWER = 4 << 20
LONGEST_REASON = 300  # characters of a stranger's words in an error
LAST_EPOCH = 10**11  # a count of starts, or a Unix time in seconds


class ServerAway(Exception):
    """No server of this run answered in time; the text says where it was looked for."""


class Closed(ServerAway):
    """What answers there closed the connection: it has too many of this address, or ends."""


class WrongServer(ServerAway):
    """What answers at that address is not this run's server, or an older one of it."""


class OlderServer(WrongServer):
    """This run's server, with a lower epoch than one that was seen before.

    A server that was replaced notices it and stops at once. If one goes on, its .server folder was
    restored from a backup, or made anew.
    """


class CopiedRoot(ServerAway):
    """The output root is a copy of another: that one's server must not be reached from here."""


class Refused(Exception):
    """The server understood and said no (400, 409, 413); the text names the field."""


class Extended(Refused):
    """The data set was extended since the definition of the request was made."""


@dataclass(frozen=True)
class ServerRecord:
    """What server.json says of the last server started for an output root."""

    url: str
    token: str
    run_id: str
    epoch: int
    pid: int | None = None
    hostname: str = "?"
    output_root: str | None = None
    inode: int | None = None


def read_server_json(output_root: str | os.PathLike[str]) -> ServerRecord:
    """The record of the last server started for this output root; ServerAway if there is none."""
    path = Path(output_root) / ".server" / "server.json"
    try:
        record = read_json(path)
    except FileNotFoundError:
        raise ServerAway(
            f"no job server was started for {output_root}: "
            f"python generate/image_server.py --output_root {output_root}"
        ) from None
    except (OSError, ValueError) as error:
        raise ServerAway(f"{path} cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(record, dict):
        raise ServerAway(f"{path} cannot be read: it holds no object")
    known: dict[str, Any] = {name: record.get(name) for name in ServerRecord.__dataclass_fields__}
    wrong = [name for name in ("url", "token", "run_id") if not _plain(known[name])]
    if wrong or type(known["epoch"]) is not int or not 0 <= known["epoch"] <= LAST_EPOCH:
        raise ServerAway(f"{path} cannot be read: no {wrong[0] if wrong else 'epoch'} in it")
    if is_copy(output_root, known["output_root"], known["inode"]):
        raise CopiedRoot(
            f"{output_root} is a copy of {known['output_root']}, whose job server is left alone; "
            f"start one here: python generate/image_server.py --output_root {output_root}"
        )
    return ServerRecord(**known)


def lives_here(output_root: str | os.PathLike[str]) -> bool:
    """Whether the process of the last server lives on this host: it holds its epoch's file open.

    False as well for a server of another user, into whose process nobody can look.
    """
    try:
        server = read_server_json(output_root)
        if server.hostname != socket.gethostname() or type(server.pid) is not int:
            return False
        epoch = Path(output_root) / ".server" / "epochs" / str(server.epoch)
        files = list(Path(f"/proc/{server.pid}/fd").iterdir())
    except (ServerAway, OSError):
        return False
    return any(_is_open_as(file, epoch) for file in files)


def _is_open_as(file: Path, path: Path) -> bool:
    try:
        return file.samefile(path)
    except OSError:  # closed meanwhile; no such epoch
        return False


def _plain(value: object) -> bool:
    """Whether a value can be sent: a text of plain characters."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and value != ""


class Connection:
    """A connection to the server that server.json names, which has proved its identity.

    .url, .run_id, .epoch. It never reconnects: another program may have the port by then.
    """

    def __init__(self, output_root: str | os.PathLike[str], epoch: int = 0) -> None:
        """ServerAway: nobody there. WrongServer: not this run's. OlderServer: below `epoch`."""
        server = read_server_json(output_root)
        self.url = server.url
        self.run_id = server.run_id
        self.line, self.socket = self._connect(server)
        self.epoch, at = self._prove(server, output_root, epoch)
        if self.epoch < epoch:
            self.close()
            raise OlderServer(
                f"the job server at {self.url} is an older one (epoch {self.epoch}, not {epoch}): "
                "it stops by itself, or its .server folder was restored from a backup: then start "
                "this client again (what it has published stays)"
            )
        self._signer = Signer(server.token, self.epoch, at)

    def _connect(self, server: ServerRecord) -> tuple[http.client.HTTPConnection, "_Socket"]:
        try:
            address = urllib.parse.urlsplit(server.url)
            line = http.client.HTTPConnection(
                address.hostname or "", address.port, timeout=CONNECT_S
            )
            line.connect()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._no_answer(server.hostname, error) from None
        line.auto_open = 0
        timed = _Socket(fileno=line.sock.detach())
        line.sock = timed
        return line, timed

    def _prove(
        self, server: ServerRecord, output_root: str | os.PathLike[str], seen: int
    ) -> tuple[int, float]:
        """(epoch, the server's time) of a server that proves itself.

        seen: the highest epoch that was seen here. By it a server from a backup learns of its age.
        """
        nonce = secrets.token_hex(16)
        known = seen_proof(server.token, nonce, server.run_id, seen)
        question = f"/healthz?nonce={nonce}&seen={seen}&seen_proof={known}"
        self.socket.answer_within(CONNECT_S)
        try:
            status, data, _ = self._ask("GET", question, None, {})
            answer = _object(data)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._no_answer(server.hostname, error) from None
        except ValueError:
            status, answer = 0, {}
        epoch, at = answer.get("epoch"), answer.get("time")
        if status == 200 and type(epoch) is int and isinstance(at, float):
            wanted = proof_of(server.token, nonce, server.run_id, epoch, server.url, at)
            if same(str(answer.get("proof")), wanted):
                return epoch, at
        self.close()
        raise WrongServer(
            f"what answers at {self.url} is not the job server of {output_root}: it was stopped, "
            "and another program has its port; or its token was changed just now (--rotate_token)"
        )

    def _no_answer(self, hostname: str, error: Exception) -> ServerAway:
        why = str(error) or type(error).__name__
        kind = Closed if isinstance(error, ConnectionResetError | BrokenPipeError) else ServerAway
        return kind(f"the job server at {self.url} on {hostname} does not answer: {why}")

    def post(self, path: str, body: Answer) -> tuple[int, Answer]:
        """(status, answer). OSError, HTTPException, ValueError: the connection is useless now."""
        return self._call("POST", path, json.dumps(body).encode())

    def get(self, path: str) -> tuple[int, Answer]:
        """As post, without a body."""
        return self._call("GET", path, b"")

    def _call(self, method: str, path: str, body: bytes) -> tuple[int, Answer]:
        headers = self._signer.sign(method, path, body)
        if body:
            headers["Content-Type"] = "application/json"
        self.socket.answer_within(ANSWER_S)
        status, answer, answered = self._ask(method, path, body or None, headers)
        self._signer.check(status, answer, answered)
        return status, _object(answer)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        try:
            self.line.request(method, path, body, headers)
            with self.line.getresponse() as response:
                data = response.read(LARGEST_ANSWER)
                return response.status, data, dict(response.headers.items())
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:  # it quotes a line of the answer, up to 64 kB
            why = visible(str(error) or type(error).__name__, LONGEST_REASON)
            raise http.client.HTTPException(why) from None

    def close(self) -> None:
        self.line.close()


def _object(data: bytes) -> Answer:
    answer = parse_json(data)
    if not isinstance(answer, dict):
        raise ValueError("not an object")
    return answer


class _Socket(socket.socket):
    """A socket with one deadline for the whole answer, so that a slow sender cannot block us."""

    _deadline = float("inf")

    def answer_within(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self.settimeout(seconds)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        return super().recv_into(*args, **kwargs)
