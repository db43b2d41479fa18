"""Ports that a test takes, gives up and takes again: nobody else gets one of them meanwhile.

Port 0 and the first free one from 5000, which a job server takes without --port, are given to the
next who asks as soon as they are free: to the server of another test.
"""

import functools
import itertools
import socket

# below what the kernel gives for port 0, and below the test cluster's
BLOCKS = range(20000, 26000, 100)
_marks = []  # one socket, whose name says that the block is taken; it ends with the process


def own_port():
    """A free port, of this process's own block."""
    return next(port for port in _ports() if _is_free(port))


@functools.cache
def _ports():
    for first in BLOCKS:
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0the tests' ports from {first}")
        except OSError:
            mark.close()
            continue
        _marks.append(mark)
        return itertools.cycle(range(first, first + BLOCKS.step))
    raise OSError("the ports of every block are in use by tests that run now")


def _is_free(port):
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
