"""A caller that signs by hand, for tests that change what a Connection would never change."""

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

from generate.protocol.signing import Signer


def known(root: Path) -> dict[str, object]:
    """What server.json of an output root says."""
    return json.loads((Path(root) / ".server" / "server.json").read_text())


def signer(root: Path, token: str | None = None) -> Signer:
    """A Signer for the server that answers now, with its token or another."""
    server = known(root)
    line = http.client.HTTPConnection(urlsplit(server["url"]).netloc, timeout=20)
    line.request("GET", "/healthz")
    said = json.loads(line.getresponse().read())
    line.close()
    return Signer(server["token"] if token is None else token, said["epoch"], said["time"])


def request(
    root: Path,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of one call, unsigned but for the headers that are given."""
    line = http.client.HTTPConnection(urlsplit(known(root)["url"]).netloc, timeout=20)
    try:
        line.request(method, path, body, headers or {})
        response = line.getresponse()
        data = response.read()
    finally:
        line.close()
    return response.status, dict(response.getheaders()), data


def signed(
    root: Path, method: str, path: str, body: bytes | None = None, token: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    """As request(), signed with the run's token or another one."""
    headers = signer(root, token).sign(method, path, body or b"")
    return request(root, method, path, body, headers)


def page_link(root: Path) -> str:
    """A link to the page, as --status shows it on a terminal."""
    return json.loads(signed(root, "GET", "/page_link")[2])["url"]
