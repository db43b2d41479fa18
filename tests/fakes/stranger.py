"""A program of somebody else on a port where clients look for their job server."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stranger_on(port: int, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """talk: called with each connection, one after the other, which is closed after it."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:  # closed
                    return
                with line:
                    talk(line)

        threading.Thread(target=serve, daemon=True).start()
        yield


def reply_with(said: bytes) -> bytes:
    """An answer of HTTP with this body."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
