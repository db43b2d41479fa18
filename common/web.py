"""Limits on what a server on the web may take from a program: time, memory, disk.

client = limited(httpx2.Client(follow_redirects=True))    # every answer then has these limits
limit_hub()                                               # the client of huggingface_hub, too

A server that says nothing gives httpx2's ReadTimeout. One that drips, or does not come to an end,
gives BadPeer. A request's body may take as long as it moves on: 20 GB over a slow line must pass.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpcore2
import httpx2

from common.command_line import UserError
from common.console import visible

CONNECT_S = 30.0
ANSWER_S = 300.0  # until a request's answer begins; a hub takes a minute to check a part of some GB
QUESTION_S = 60.0  # the same for GET and HEAD, which have a server check nothing
WINDOW_S = 60.0  # of waiting for bytes, after which they are counted
LEAST = 1000  # bytes a second; a telephone modem has 5,000
WHOLE_S = 120.0  # for an answer that is read into memory: of an API, a page of a list
MOST_IN_MEMORY = 64 << 20  # bytes
MOST_HEAD = 1 << 20  # bytes of an answer's head, with all interim answers before it
MOST_UNKNOWN = 1 << 30  # bytes of a file whose answer does not state its length
ENCODINGS = ("identity", "gzip", "deflate")
GO_ON = "see whether a proxy or a login page is in between, and give the same command again later"


class BadPeer(UserError):
    """A server answers in a way that would hold or fill this machine: see the limits above."""

    def __init__(self, host: str, what: str) -> None:
        super().__init__(f"{visible(host, 200)} {what}: {GO_ON}")


def limited(client: httpx2.Client) -> httpx2.Client:
    """The client itself, all of whose calls have the limits from here on."""
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)  # None: of a proxy's exceptions
        if pool is not None:  # httpx2 has no argument for it
            pool._network_backend = _Backend(pool._network_backend)
    hooks = client.event_hooks
    hooks["request"] = [*hooks.get("request", []), limit_request]
    hooks["response"] = [*hooks.get("response", []), limit_answer]
    client.event_hooks = hooks
    return client


def limit_request(request: httpx2.Request) -> None:
    """Limits where the caller has none; no compressed answer is asked for.

    huggingface_hub asks for some of its lists with no limit at all.
    """
    request.headers["Accept-Encoding"] = "identity"
    answer_s = QUESTION_S if request.method in ("GET", "HEAD") else ANSWER_S
    longest = {"connect": CONNECT_S, "read": answer_s, "write": ANSWER_S, "pool": None}
    given = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        name: min(given.get(name) or most, most) if most else given.get(name)
        for name, most in longest.items()
    }


def limit_answer(response: httpx2.Response) -> None:
    """Reading more of the answer than it may have raises BadPeer."""
    host = host_of(response.request.url)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ENCODINGS:
        raise BadPeer(host, f"answers in the encoding {visible(encoding, 40)}, not asked for")
    stream = response.extensions.get("network_stream")
    if isinstance(stream, _Stream):
        stream.in_head = False
    pieces = response.iter_bytes
    if "content-length" not in response.headers or encoding != "identity":
        response.iter_bytes = _at_most(host, pieces, MOST_UNKNOWN)  # type: ignore[method-assign]
    whole = response.read

    def read() -> bytes:
        most = _at_most(host, pieces, MOST_IN_MEMORY, time.monotonic() + WHOLE_S)
        response.iter_bytes = most  # type: ignore[method-assign]
        content = whole()
        if not response.has_redirect_location:  # else the answer itself is still to come
            _meter.begin()
        return content

    response.read = read  # type: ignore[method-assign]


def host_of(url: httpx2.URL) -> str:
    """The host of a URL, with its port if it is not the usual one."""
    return url.netloc.decode("ascii", "replace")


def _at_most(
    host: str, pieces: Callable[..., Iterator[bytes]], most: int, end: float = float("inf")
) -> Callable[..., Iterator[bytes]]:
    """The pieces of an answer. BadPeer: more than `most` bytes, or after the instant `end`."""

    def counted(chunk_size: int | None = None) -> Iterator[bytes]:
        read = 0
        for piece in pieces(chunk_size):
            read += len(piece)
            if read > most:
                raise BadPeer(host, f"answers with more than {most:,} bytes")
            if time.monotonic() > end:
                raise BadPeer(host, f"takes more than {WHOLE_S:.0f} s for an answer")
            yield piece

    return counted


class _Meter(threading.local):
    """How fast a thread's answers come, over their broken connections.

    huggingface_hub resumes a file that was broken off, without an end if each try brings a byte.
    """

    waited = 0.0  # seconds in which a begun answer was waited for
    got = 0  # bytes in them

    def begin(self) -> None:
        self.waited = 0.0
        self.got = 0

    def left(self) -> float:
        """Seconds until the bytes are counted."""
        return max(0.01, WINDOW_S - self.waited)

    def add(self, host: str, waited: float, got: int) -> None:
        """BadPeer: too few bytes have come."""
        self.waited += waited
        self.got += got
        if self.waited >= WINDOW_S:
            if self.got < LEAST * WINDOW_S:
                self.begin()
                raise BadPeer(host, f"sends fewer than {LEAST:,} bytes a second")
            self.begin()


_meter = _Meter()


class _Backend(httpcore2.NetworkBackend):
    """Makes connections whose reads are measured."""

    def __init__(self, inner: httpcore2.NetworkBackend) -> None:
        self.inner = inner

    def connect_tcp(self, host: str, port: int, *args: Any, **named: Any) -> "_Stream":
        return _Stream(self.inner.connect_tcp(host, port, *args, **named), f"{host}:{port}")

    def connect_unix_socket(self, path: str, *args: Any, **named: Any) -> "_Stream":
        return _Stream(self.inner.connect_unix_socket(path, *args, **named), path)

    def sleep(self, seconds: float) -> None:
        self.inner.sleep(seconds)


class _Stream(httpcore2.NetworkStream):
    """A connection. in_head: its answer's head has not yet come whole."""

    def __init__(self, inner: httpcore2.NetworkStream, host: str) -> None:
        self.inner = inner
        self.host = host
        self.in_head = True
        self.came = 0  # bytes since the last write

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        begun = self.came > 0
        end = time.monotonic() + (timeout or ANSWER_S)
        data = None
        while data is None:
            begin = time.monotonic()
            limit = min(end - begin, _meter.left()) if begun else end - begin
            try:
                data = self.inner.read(max_bytes, max(0.001, limit))
            except httpcore2.ReadTimeout:  # of the meter's window, or the caller's
                if time.monotonic() >= end:
                    raise
            finally:
                if begun:
                    _meter.add(self.host, time.monotonic() - begin, len(data or b""))
        self.came += len(data)
        if self.in_head and self.came > MOST_HEAD:
            raise BadPeer(self.host, f"answers with a head of more than {MOST_HEAD:,} bytes")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.in_head = True
        self.came = 0
        self.inner.write(buffer, timeout)

    def close(self) -> None:
        self.inner.close()

    def start_tls(self, *args: Any, **named: Any) -> "_Stream":
        return _Stream(self.inner.start_tls(*args, **named), self.host)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)
