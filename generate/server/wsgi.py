"""waitress in front of the routes: its threads and connections, and one of its habits cured."""

import logging
import resource
import socket

import waitress
from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer

THREADS = 32  # they wait for the ledger's disk
CONNECTIONS = 4096  # one for each of 1,000 clients' three threads


def serve(app: Flask, listener: socket.socket, largest_body: int) -> None:
    """Answer requests until SIGTERM ends the main loop."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # "task queue depth is 1" for each pair of requests that meet
    logging.getLogger("waitress").setLevel(logging.ERROR)
    BaseWSGIServer.channel_class = Channel
    waitress.serve(
        app,
        sockets=[listener],
        threads=THREADS,
        connection_limit=min(CONNECTIONS, most - 100),
        asyncore_use_poll=True,
        channel_timeout=120,
        cleanup_interval=15,
        max_request_body_size=4 * largest_body,
        max_request_header_size=16 << 10,
        ident=None,
        _quiet=True,
    )


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection whose answer is sent by the thread that made it.

    waitress's main thread polls a connection for writing while that thread is still sending, and
    cannot help: it only spins, with the interpreter (128 connections: 97 heartbeats a second with
    that, 2,000 without). What that thread leaves is sent as ever.
    """

    def writable(self) -> bool:
        return bool(
            self.will_close
            or self.close_when_flushed
            or (self.total_outbufs_len and not self.requests)
        )
