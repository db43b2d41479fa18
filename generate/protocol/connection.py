"""The line between the job server and whoever calls it: server.json, the proof, one connection.

    connection = Connection(output_root)         # ServerAway, WrongServer
    status, answer = connection.post("/beat", {...})
    connection.close()

The address is read from `<output root>/.server/server.json` for each connection, since the server
may come back on another node. A connection first has its other end prove, by an HMAC over a nonce,
that it knows the run's token; only then does the token go over it.
"""

import hashlib
import hmac
import http.client
import json
import os
import secrets
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Answer = dict[str, Any]

CONNECT_S = 10  # for a connection and its proof
ANSWER_S = 60  # an answer waits for the server's disk, which may be busy
LARGEST_ANSWER = 4 << 20


class ServerAway(Exception):
    """No server of this run answered in time; the text says where it was looked for."""


class WrongServer(ServerAway):
    """What answers at that address is not this run's server, or an older one of it."""


class Refused(Exception):
    """The server understood and said no (400, 409, 413); the text names the field."""


@dataclass(frozen=True)
class ServerRecord:
    """What server.json says of the last server started for an output root."""

    url: str
    token: str
    run_id: str
    epoch: int
    pid: int | None = None
    hostname: str = "?"


def read_server_json(output_root: str | os.PathLike[str]) -> ServerRecord:
    """The record of the last server started for this output root; ServerAway if there is none."""
    path = Path(output_root) / ".server" / "server.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise ServerAway(
            f"no job server was started for {output_root}: "
            f"python generate/image_server.py --output_root {output_root}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ServerAway(f"{path} cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(record, dict):
        raise ServerAway(f"{path} cannot be read: it holds no object")
    known: dict[str, Any] = {name: record.get(name) for name in ServerRecord.__dataclass_fields__}
    wrong = [name for name in ("url", "token", "run_id") if not isinstance(known[name], str)]
    if wrong or type(known["epoch"]) is not int:
        raise ServerAway(f"{path} cannot be read: no {wrong[0] if wrong else 'epoch'} in it")
    return ServerRecord(**known)


def proof_of(token: str, nonce: str, run_id: str, epoch: object) -> str:
    """What /healthz?nonce=… answers: who says it knows the token, and does not give it away."""
    words = f"{nonce}:{run_id}:{epoch}"
    return hmac.new(token.encode(), words.encode(), hashlib.sha256).hexdigest()


class Connection:
    """One proven connection to the server that server.json names: .url, .token, .run_id, .epoch.

    It never reconnects by itself: the port may be someone else's by then.
    """

    def __init__(self, output_root: str | os.PathLike[str], epoch: int = 0) -> None:
        """ServerAway: nobody there. WrongServer: not this run's, or its epoch is below `epoch`."""
        server = read_server_json(output_root)
        self.url = server.url
        self.token = server.token
        self.run_id = server.run_id
        self.line = self._connect(server)
        nonce = secrets.token_hex(16)
        status, answer = self._healthz(nonce, server.hostname)
        self.epoch: int = answer.get("epoch", 0)
        proof = proof_of(self.token, nonce, self.run_id, self.epoch)
        if (
            status != 200
            or type(self.epoch) is not int
            or not hmac.compare_digest(str(answer.get("proof")).encode(), proof.encode())
        ):
            self.close()
            raise WrongServer(
                f"what answers at {self.url} is not the job server of {output_root}: "
                "it was stopped, and another program has its port"
            )
        if self.epoch < epoch:
            self.close()
            raise WrongServer(
                f"the job server at {self.url} is an older one "
                f"(epoch {self.epoch}, seen: {epoch}); it will notice and stop"
            )
        if self.line.sock:
            self.line.sock.settimeout(ANSWER_S)

    def _connect(self, server: ServerRecord) -> http.client.HTTPConnection:
        try:
            address = urllib.parse.urlsplit(server.url)
            line = http.client.HTTPConnection(
                address.hostname or "", address.port, timeout=CONNECT_S
            )
            line.connect()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._no_answer(server.hostname, error) from None
        line.auto_open = 0
        return line

    def _healthz(self, nonce: str, hostname: str) -> tuple[int, Answer]:
        try:
            return self._ask("GET", f"/healthz?nonce={nonce}", None, {})
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._no_answer(hostname, error) from None
        except ValueError:
            return 0, {}

    def _no_answer(self, hostname: str, error: Exception) -> ServerAway:
        why = str(error) or type(error).__name__
        return ServerAway(f"the job server at {self.url} on {hostname} does not answer: {why}")

    def post(self, path: str, body: Answer) -> tuple[int, Answer]:
        """(status, answer). OSError, HTTPException, ValueError: the connection is useless now."""
        headers = self._headers() | {"Content-Type": "application/json"}
        return self._ask("POST", path, json.dumps(body), headers)

    def get(self, path: str) -> tuple[int, Answer]:
        """As post, without a body."""
        return self._ask("GET", path, None, self._headers())

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def _ask(
        self, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> tuple[int, Answer]:
        self.line.request(method, path, body, headers)
        with self.line.getresponse() as response:
            answer = json.loads(response.read(LARGEST_ANSWER))
            if not isinstance(answer, dict):
                raise ValueError("not an object")
            return response.status, answer

    def close(self) -> None:
        self.line.close()
