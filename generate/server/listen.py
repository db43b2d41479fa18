"""Where the server listens, and under which name other nodes reach it."""

import errno
import socket

from common.command_line import UserError

FIRST_PORT = 5000
PORTS = 100


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket: on `port`, or for None on the first free one from 5000.

    UserError if a given port is in use, or the host is none of this machine's.
    """
    wanted = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS), 0]
    for number in wanted:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(1024)
            return listener
        except OSError as error:
            listener.close()
            if port is not None and error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"port {port} is in use on {socket.gethostname()}; without --port the next "
                    f"free one from {FIRST_PORT} is taken"
                ) from None
            if port is not None:
                raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from None
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UserError(f"cannot listen on {host}: {error.strerror}; see --host") from None
    raise UserError(f"no free port on {host}")


def address(host: str) -> str:
    """The name under which other nodes reach this one.

    The given host, else the node's name, else (it is not in the DNS) its address.
    """
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
            # sends nothing; asks the routing table which address leads outside
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
