"""waitress in front of the routes: its limits, and the check before it reads a body.

    serve(app, listener, largest_body, admits)      # admits(method, path, headers): "" or why not

A call without a valid signature is refused when its headers are there, so that nobody without the
token can make the server keep a body. Connections are limited for each address, and one without a
request is closed after some seconds, so that others cannot use them all up.
"""

import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Flask
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.utilities import Error

from common.open_files import need_open_files

THREADS = 32  # they wait for the ledger's disk
CONNECTIONS = 4096  # one for each of 1,000 clients' three threads
# Ledger, log, folders and the loop, and what each thread reads for an answer.
OTHER_FILES = 32 + 2 * THREADS
CONNECTIONS_OF_ONE = 1024  # address; 300 clients on one machine have 900
SILENT_S = 10  # a connection that has asked nothing is closed after so long

Admits = Callable[[str, str, Mapping[str, str]], str]


def allow_connections() -> int:
    """The limit of open files, raised for all connections. UserError: too few for all threads."""
    return need_open_files(OTHER_FILES + THREADS, OTHER_FILES + CONNECTIONS, "the job server")


def serve(app: Flask, listener: socket.socket, largest_body: int, admits: Admits) -> None:
    """Answer requests until SIGTERM ends the main loop."""
    limit = allow_connections()
    # "task queue depth is 1" for each pair of requests that meet
    logging.getLogger("waitress").setLevel(logging.ERROR)
    settings = Adjustments(
        sockets=[listener],
        threads=THREADS,
        connection_limit=min(CONNECTIONS, limit - OTHER_FILES),
        asyncore_use_poll=True,
        channel_timeout=120,
        cleanup_interval=SILENT_S // 2,
        max_request_body_size=4 * largest_body,
        max_request_header_size=16 << 10,
        ident=None,
    )
    Listener(app, listener, settings, admits).run()


class Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """The listening socket, and how many connections each address has."""

    def __init__(
        self, app: Flask, listener: socket.socket, settings: Adjustments, admits: Admits
    ) -> None:
        self.parser_class = partial(Parser, admits=admits)
        self.connections_of: Counter[str] = Counter()
        address = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(app, _sock=listener, adj=settings, bind_socket=False, sockinfo=address)

    channel_class = property(lambda self: Channel)

    def accept(self) -> tuple[socket.socket, Any] | None:
        """As waitress's; None, too, for one connection too many of an address."""
        found: tuple[socket.socket, Any] | None = super().accept()
        if found and self.connections_of[found[1][0]] >= CONNECTIONS_OF_ONE:
            found[0].close()
            return None
        return found

    def maintenance(self, now: float) -> None:
        """Beside idle connections, those that were opened and then asked nothing."""
        super().maintenance(now)
        for channel in self.active_channels.values():
            if not channel.asked and channel.creation_time < now - SILENT_S:
                channel.will_close = True


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection, counted by its address, whose answer is sent by the thread that made it."""

    asked = False

    def __init__(self, server: Listener, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
        self.parser_class = server.parser_class
        self.address: str = addr[0]
        super().__init__(server, sock, addr, adj, map=map)

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.server.connections_of[self.address] += 1

    def del_channel(self, map: Any = None) -> None:
        super().del_channel(map)
        self.server.connections_of[self.address] -= 1
        if not self.server.connections_of[self.address]:
            del self.server.connections_of[self.address]

    def service(self) -> None:
        self.asked = True
        super().service()

    def writable(self) -> bool:
        """waitress's main thread polls a connection for writing while a thread still sends on it.

        That polling only takes the interpreter's time (128 connections: 97 heartbeats a second with
        it, 2,000 without). What the thread does not send is sent as usual.
        """
        return bool(
            self.will_close
            or self.close_when_flushed
            or (self.total_outbufs_len and not self.requests)
        )


class Unauthorized(Error):  # type: ignore[misc]
    """waitress' answer 401."""

    code = 401
    reason = "Unauthorized"


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """Looks at a request's signature between its headers and its body."""

    looked = False
    error: Error | None

    def __init__(self, adj: Any, admits: Admits) -> None:
        super().__init__(adj)
        self.admits = admits

    def parse_header(self, header_plus: bytes) -> None:
        """As waitress's, which does not expect a length of more digits than Python reads."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise ParsingError(f"a header cannot be read: {error}") from None

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.headers_finished and not self.looked and not self.empty:
            self.looked = True
            if not self.error and (refusal := self._refusal()):
                self.error = Unauthorized(refusal)
                self.completed = True
            if self.error:
                self.expect_continue = False
        return consumed

    def _refusal(self) -> str:
        """Why the request is refused before its body is read; "" if it is not."""
        if self.command != "POST" and (self.content_length or self.chunked):
            return f"a {self.command} has no body here"
        return self.admits(self.command, self.request_uri, self.headers)
