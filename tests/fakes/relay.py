"""A relay of an attacker: passes on what comes to its port, changed if asked, and keeps a copy.

    python tests/fakes/relay.py TO_PORT [PORT [drain|answer]]     # prints its port, then all it saw

drain: the body of a call becomes another of the same length; answer: that of an answer.
"""

import os
import signal
import socket
import sys
import threading

SEEN = []


def change(data, what):
    if what == "drain":
        return data.replace(b'{"resume":true }', b'{"drain": true }')
    return data.replace(b"granted", b"GRANTED") if what == "answer" else data


def pump(source, target, what):
    while True:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        if not data:
            for line in (source, target):
                try:
                    line.shutdown(socket.SHUT_RDWR)
                except OSError:
                    line.close()
            return
        SEEN.append(data)
        target.sendall(change(data, what))


def main():
    "x".encode("idna")  # loads what name look-up needs; nobody may not read Python's own files
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)  # nobody: it can read no file of the run
    to_port, port = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    what = sys.argv[3] if len(sys.argv) > 3 else ""
    listener = socket.create_server(("127.0.0.1", port))
    print(listener.getsockname()[1], flush=True)

    def end(*_):
        sys.stdout.write(repr(b"".join(SEEN)))
        sys.stdout.flush()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        line, _ = listener.accept()
        other = socket.create_connection(("127.0.0.1", to_port))
        threading.Thread(target=pump, args=(line, other, what), daemon=True).start()
        threading.Thread(target=pump, args=(other, line, what), daemon=True).start()


if __name__ == "__main__":
    main()
