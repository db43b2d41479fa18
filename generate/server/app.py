"""The job server's process: it starts, serves until SIGTERM, and ends.

serve(ServerSettings(Path("outputs/generate_images"), LeaseLimits()))
"""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn, TextIO

from common.command_line import UserError
from common.console import start_log
from common.files import open_log
from common.untrusted import Refused
from generate.server import background, identity, routes, signed_calls, wsgi
from generate.server.ledger.ledger import Ledger
from generate.server.ledger.live_leases import LeaseLimits
from generate.server.page.status import tunnel
from generate.server.state import Server, ServerSettings

log = logging.getLogger("image_server")


def _log_file(path: Path) -> TextIO | None:
    """The file of the log; None where standard output is it, or the disk gives none.

    Refused: it is no plain file.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # not there yet; closed output
        if os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat()):
            return None
    try:
        return io.TextIOWrapper(open_log(path), "utf-8", "backslashreplace", line_buffering=True)
    except Refused:
        raise
    except OSError:  # no inode, or no right: standard output has the lines
        return None


def run(args: argparse.Namespace) -> NoReturn:
    """Serve as the options of image_server.py say."""
    limits = LeaseLimits(
        ttl_s=args.ttl_s,
        heartbeat_s=args.beat_s,
        max_strikes=args.max_marks,
        max_failures=args.max_failures,
        probe_s=args.probe_s,
    )
    settings = ServerSettings(
        output_root=Path(os.path.abspath(args.output_root)),
        limits=limits,
        host=args.host,
        port=args.port,
        take_over=args.take_over,
        stop_when_done=args.stop_when_done,
    )
    serve(settings)


def serve(settings: ServerSettings) -> NoReturn:
    """Serve until SIGTERM; the process ends here. UserError: it cannot start."""
    wsgi.allow_connections()
    identity.open_folder(settings.output_root)
    start_log("image_server", _log_file(settings.output_root / "image_server.out"))
    try:
        server = Server(settings)
        server.announce()
    except OSError as error:  # a full disk, or rights
        raise UserError(f"cannot start: {error}") from None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log.info(
        "job server %s of %s: %s (process %d, epoch %d)",
        server.version,
        server.output_root,
        server.url,
        os.getpid(),
        server.epoch,
    )
    lost = server.ledger.read(lambda ledger: ledger.store.lost)
    if lost:
        log.warning(
            "the ledger is not the last server's (%s): what is done is read from the folders; "
            "paid LLMs stay off until --llm_spent_usd",
            lost,
        )
    if sys.stdout.isatty():
        print(f"the page of this run: {server.page_link()}")
        print(f"from elsewhere: {tunnel(server.about())}")
    background.start(server)
    wsgi.serve(
        routes.application(server),
        server.listener,
        signed_calls.LARGEST_BODY,
        signed_calls.admits(server),
    )
    if server.ledger.lock.acquire(timeout=10):  # after the answer that is being made durable
        server.ledger.read(Ledger.close)
    log.info("stopped; leases are kept, and clients wait for the next server")
    logging.shutdown()
    os._exit(0)  # do not wait for threads that a hanging file system blocks
