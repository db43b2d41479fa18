"""The job server's process: its state under one lock, its threads, and waitress in front of the routes."""

import collections
import contextlib
import logging
import os
import resource
import signal
import socket
import sqlite3
import sys
import threading
import time
from datetime import datetime, timezone

from common import slurm
from generate.server import identity as server_files
from generate.server import status as status_document

log = logging.getLogger("image_server")
THREADS, CONNECTIONS = (
    32,
    4096,
)  # waitress: threads wait for the ledger's disk; a connection for each of 1,000 clients' three threads
OPEN_TRIES = 60  # seconds that a server being taken over may need to let go of the ledger
STOP_AFTER_S = float(
    os.environ.get("IMAGE_SERVER_STOP_AFTER_S", 600)
)  # --stop_when_done: without a request for so long
REQUEUE_BEFORE_S = 120  # of the job's own time limit


class Turn:
    """A change that waits for the ledger, and what became of it."""

    def __init__(self, function):
        self.function, self.result, self.error, self.ended = function, None, None, False


class Server:
    """What the parts of the server share: the ledger under its lock, and who this server is."""

    def __init__(self, args, output_root):
        from generate.llms import budget as llm_accounts
        from generate.server import folder_check

        self.args, self.output_root = args, output_root
        self.folder = server_files.open_folder(output_root)
        if not args.take_over:
            server_files.refuse_if_running(output_root)
        self.listener = server_files.listen(args.host, args.port)
        self.run = server_files.run_identity(self.folder)
        self.run_id, self.token = self.run["run_id"], self.run["token"]
        self.epoch = server_files.claim_epoch(self.folder)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://{server_files.address(args.host)}:{self.port}/"
        self.started, self.asked_at = (
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            time.monotonic(),
        )
        self.lock = threading.RLock()  # the status document asks for the weather while it holds it
        self.turns = collections.deque()
        self.ledger = self.open_ledger()
        self.accounts = llm_accounts.Accounts(self.ledger.connection, client_ttl_s=1.5 * args.ttl_s)
        if self.ledger.rebuilt:
            self.accounts.rebuilt()
        self.check = folder_check.FolderCheck(self)
        self.check.folders.adopt()

    def open_ledger(self):
        """The ledger, once the server before this one has let go of it."""
        from generate.server import ledger, live_leases

        limits = live_leases.LeaseLimits(
            ttl_s=self.args.ttl_s,
            heartbeat_s=self.args.beat_s,
            max_strikes=self.args.max_marks,
            max_failures=self.args.max_failures,
            probe_s=self.args.probe_s,
        )
        for attempt in range(OPEN_TRIES):
            try:
                return ledger.Ledger(
                    self.folder / "ledger.sqlite",
                    self.epoch,
                    time.monotonic(),
                    limits,
                    utc=time.time() - time.monotonic(),
                )
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise SystemExit(
                        f"image_server: cannot open {self.folder / 'ledger.sqlite'}: {error}"
                    ) from None
            time.sleep(1)
        raise SystemExit(
            f"image_server: another process holds {self.folder / 'ledger.sqlite'} and does not let go; end the old server's process first"
        )

    def look(self, function):
        """function(ledger, now) under the ledger's lock."""
        with self.lock:
            return function(self.ledger, time.monotonic())

    def write(self, function):
        """look() for what must be durable before it is answered: those who wait together share one commit, since its fsyncs take longer
        than all the rest."""
        turn = Turn(function)
        self.turns.append(turn)
        with self.lock:
            if not turn.ended:
                self.take_turns([self.turns.popleft() for _ in range(len(self.turns))])
        if turn.error:
            raise turn.error
        return turn.result

    def take_turns(self, turns):
        now = time.monotonic()
        try:
            with self.ledger.transaction() if len(turns) > 1 else contextlib.nullcontext():
                for turn in turns:
                    turn.result = turn.function(self.ledger, now)
        except Exception:  # all of them were undone: each by itself, and only who is at fault fails
            for turn in turns:
                try:
                    turn.result = turn.function(self.ledger, now)
                except Exception as error:
                    turn.error = error
        for turn in turns:
            turn.ended = True

    def about(self):
        return {
            "url": self.url,
            "hostname": socket.gethostname(),
            "port": self.port,
            "run_id": self.run_id,
            "epoch": self.epoch,
            "pid": os.getpid(),
            "started": self.started,
            "version": 1,
        }

    def weather_extra(self):
        return self.check.progress()

    def stop_if_overtaken(self):
        if server_files.overtaken(self.folder, self.epoch):
            log.warning(
                "a later server was started for this output root: this one stops before its next answer"
            )
            os._exit(3)


def serve(args, output_root):
    """Serve until SIGTERM."""
    import waitress

    from generate.server import routes as job_calls

    server = Server(args, output_root)
    log_to(output_root / "image_server.out")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(
        signal.SIGUSR1,
        lambda *_: threading.Thread(
            target=slurm.requeue_self, args=("time limit",), daemon=True
        ).start(),
    )
    server_files.write_server_json(server.folder, {**server.about(), "token": server.token})
    log.info(
        "job server of %s: %s (process %d, epoch %d)",
        output_root,
        server.url,
        os.getpid(),
        server.epoch,
    )
    if server.ledger.lost:
        log.warning(
            "the ledger is not the last server's (%s): what is done is read from the folders; paid LLMs stay off until --llm_spent_usd",
            server.ledger.lost,
        )
    if sys.stdout.isatty():
        print(
            f"the page of this run: {server.url}?token={server.token}\nfrom elsewhere: {status_document.tunnel(server.about())}"
        )
    for name, step, every_s in background(server):
        threading.Thread(target=repeat, args=(name, step, every_s), name=name, daemon=True).start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.getLogger("waitress").setLevel(
        logging.ERROR
    )  # "task queue depth is 1" for each pair of requests that meet
    let_answers_send_themselves()
    waitress.serve(
        job_calls.application(server),
        sockets=[server.listener],
        threads=THREADS,
        connection_limit=min(CONNECTIONS, hard - 100),
        asyncore_use_poll=True,
        channel_timeout=120,
        cleanup_interval=15,
        max_request_body_size=job_calls.LARGEST_BODY * 4,
        max_request_header_size=16 << 10,
        ident=None,
        _quiet=True,
    )
    if server.lock.acquire(timeout=10):  # after the answer that is being made durable
        server.ledger.close()
    log.info("stopped; leases are kept, and clients wait for the next server")
    logging.shutdown()
    os._exit(0)  # threads that wait for a file system that hangs must not hold up the end


def let_answers_send_themselves():
    """waitress's main thread polls a connection for writing while the thread that made the answer is still sending it, and cannot help:
    it only spins, with the interpreter (128 connections: 97 beats a second with that, 2,000 without). What that thread leaves is sent as
    ever."""
    from waitress.channel import HTTPChannel
    from waitress.server import BaseWSGIServer

    class Channel(HTTPChannel):
        def writable(self):
            return (
                self.will_close
                or self.close_when_flushed
                or (self.total_outbufs_len and not self.requests)
            )

    BaseWSGIServer.channel_class = Channel


def background(server):
    """(name, function, pause in seconds) of what goes on beside the requests."""
    from generate.server import slurm_watch

    steps = [
        ("sweep", housekeeping(server), min(1.0, server.args.ttl_s / 10)),
        ("folder check", server.check.step, 0.2),
    ]
    if slurm_watch.SlurmWatch.possible():
        steps.append(
            ("slurm", slurm_watch.SlurmWatch(server).step, min(30.0, server.args.ttl_s / 4))
        )
    return steps


def housekeeping(server):
    left_s = slurm.time_left_s()
    requeue_at = time.monotonic() + left_s - REQUEUE_BEFORE_S if left_s else None

    def step():
        nonlocal requeue_at
        server.stop_if_overtaken()
        server.look(lambda ledger, now: ledger.sweep(now))
        if requeue_at and time.monotonic() > requeue_at:
            requeue_at = None
            slurm.requeue_self("time limit")  # SIGTERM follows
        if (
            server.args.stop_when_done
            and time.monotonic() - server.asked_at > STOP_AFTER_S
            and server.check.all_done()
        ):
            log.info("all is done and nobody asks any more")
            os.kill(os.getpid(), signal.SIGTERM)

    return step


def repeat(name, step, every_s):
    told = None
    while True:
        try:
            step()
            told = None
        except Exception as error:  # a thread that dies would take its promise with it; the next round may do better
            if repr(error) != told:
                told = repr(error)
                log.exception("%s: will be tried again", name)
        time.sleep(every_s)


def log_to(path):
    """Log to standard output and to the output root's image_server.out, unless that is the same file."""
    handlers = [logging.StreamHandler(sys.stdout)]
    if not path.exists() or not os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat()):
        handlers.append(logging.FileHandler(path))
    logging.basicConfig(
        level=logging.INFO,
        handlers=handlers,
        format="%(asctime)sZ %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    logging.Formatter.converter = time.gmtime
