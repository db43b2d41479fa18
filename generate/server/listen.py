"""The socket that the server listens on, and the address by which other nodes reach it."""

import errno
import socket

from common.command_line import UserError

FIRST_PORT = 5000
PORTS = 100
EVERYWHERE = ("", "::", "0.0.0.0")  # all addresses of the machine, of both families


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket: on `port`, or for None on the first free one from 5000.

    UserError if a given port is in use, or the host is none of this machine's.
    """
    wanted = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS), 0]
    for number in wanted:
        listener = _socket_for(host)
        try:
            everywhere = "0.0.0.0" if listener.family == socket.AF_INET else "::"
            listener.bind((everywhere if host in EVERYWHERE else host, number))
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


def _socket_for(host: str) -> socket.socket:
    """A socket of the host's family; for all addresses, of both where the machine has IPv6.

    A port that is open for IPv4 alone could be taken for IPv6 by somebody else, and a host name
    that has both addresses would lead clients to him.
    """
    both = host in EVERYWHERE
    wants_ipv6 = ":" in host or both
    try:
        listener = socket.socket(socket.AF_INET6 if wants_ipv6 else socket.AF_INET)
        if both:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe = socket.socket(socket.AF_INET6)
            probe.bind(("::1", 0))
            probe.close()
    except OSError:
        if not both:
            raise
        listener = socket.socket(socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def address(host: str) -> str:
    """The name under which other nodes reach this one.

    The given host's address, else the node's name, else (it is not in the DNS) its address. A given
    name may have an IPv6 address as well, where nobody listens and a stranger could.
    """
    if host not in EVERYWHERE:
        return f"[{host}]" if ":" in host else socket.gethostbyname(host)
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
