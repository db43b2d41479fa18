"""The job server under load, beside a trivial route of the same server in the same run.

    python benchmarks/job_server.py            # about 6 minutes; --quick: about one

128 keep-alive connections, each with one request under way all the time, against the real server
process on loopback. The generator's own cost is in every figure, so the shares of the trivial route
are what counts. Recovery: the ledger is deleted and built again, in this process.
"""

import json
import os
import selectors
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.command_line import Options
from generate.dataset.definition import settle
from generate.dataset.layout import folder_name
from generate.server.ledger.granting import WorkRequest
from generate.server.ledger.ledger import Ledger
from generate.server.ledger.live_leases import LeaseLimits
from generate.server.state import Server, ServerSettings
from tests.fakes.ledger_run import A, Run
from tests.fakes.running_server import RunningServer, until
from tests.fakes.signed_caller import signer
from tests.fakes.storm_client import definition

CONNECTIONS = 128


class Load:
    """CONNECTIONS keep-alive connections."""

    def __init__(self, server, connections=CONNECTIONS):
        self.signer = signer(server.root)  # one for all: the benchmark has one thread
        self.port = int(server.json["url"].rsplit(":")[-1].strip("/"))
        self.connections = connections

    def request(self, path, body=None):
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        signs = self.signer.sign(method, path, data) if data else {}
        words = "".join(f"{name}: {value}\r\n" for name, value in signs.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{words}Content-Length: {len(data)}\r\n\r\n"
        return head.encode() + data

    def run(self, seconds, make):
        """{connection: [(seconds of a request, status, body), …]}.

        make(connection, its answers so far) is the next request.
        """
        waits, sent, buffers = selectors.DefaultSelector(), {}, {}
        answers = {n: [] for n in range(self.connections)}
        # anew for each run: the server closes connections that were idle meanwhile
        lines = [socket.create_connection(("127.0.0.1", self.port)) for _ in answers]
        for n, line in enumerate(lines):
            waits.register(line, selectors.EVENT_READ, n)
            sent[n], buffers[n] = time.perf_counter(), b""
            line.sendall(make(n, []))
        end = time.perf_counter() + seconds
        busy = len(lines)
        while busy:
            for key, _ in waits.select(1):
                n = key.data
                piece = key.fileobj.recv(1 << 16)
                if not piece:
                    raise SystemExit("the server has closed a connection")
                buffers[n] += piece
                head, _, body = buffers[n].partition(b"\r\n\r\n")
                if not body or len(body) < int(
                    head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                ):
                    continue
                now = time.perf_counter()
                answers[n].append((now - sent[n], int(head[9:12]), body))
                buffers[n] = b""
                if now < end:
                    sent[n] = now
                    key.fileobj.sendall(make(n, answers[n]))
                else:
                    waits.unregister(key.fileobj)
                    key.fileobj.close()
                    busy -= 1
        return answers


def rate(answers, seconds, wanted=200):
    every = [answer for some in answers.values() for answer in some]
    wrong = [answer for answer in every if answer[1] != wanted]
    assert not wrong, wrong[0]
    return len(every) / seconds


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def memory_mb(server):
    return (
        int(
            next(
                line
                for line in open(f"/proc/{server.process.pid}/status")
                if line.startswith("VmRSS")
            ).split()[1]
        )
        / 1024
    )


class Bench:
    def __init__(self, total, seconds):
        self.total, self.seconds = total, seconds
        self.root = Path(tempfile.mkdtemp(prefix="job_server_"))
        self.server = RunningServer(self.root / "out", ttl_s=600, beat_s=60)
        self.wanted = {
            "total_indices": total,
            "output_dir": str(self.server.root / "generated_images" / "storm"),
            "expected_samples_per_index": 2,
            "chunk_size": 10,
            "dataset": definition("storm", total, 2),
            "slurm_job_id": None,
            "worker": {"host": "n", "gpu": "g"},
        }
        self.names = iter(range(10**9))
        self.load = Load(self.server)
        until(
            lambda: self.server.post("/get_indices", self.ask())[0] == 200, "the first grant", 600
        )
        until(
            lambda: self.server.status()["weather"]["state"] != "rebuilding",
            "the comparison with the folder",
            1200,
            0.5,
        )

    def ask(self):
        name = f"client-{next(self.names)}"
        return self.wanted | {"client_id": name, "request_id": name}

    def lease(self, n, answers):
        """In turns a lease of ten indices and its release: both are on disk before the answer."""
        if len(answers) % 2 == 0:
            return self.load.request(
                "/get_indices",
                self.wanted
                | {
                    "client_id": f"client-{self.run}-{n}",
                    "request_id": f"{self.run}-{n}-{len(answers)}",
                },
            )
        who = {
            "client_id": f"client-{self.run}-{n}",
            "request_id": f"{self.run}-{n}-{len(answers)}",
        }
        return self.load.request("/release", who | {"lease": json.loads(answers[-1][2])["lease"]})

    def leases(self):
        self.run = next(self.names)
        return rate(self.load.run(self.seconds, self.lease), self.seconds)

    def trivial(self):
        return rate(
            self.load.run(self.seconds, lambda *_: self.load.request("/healthz")), self.seconds
        )

    def held(self):
        """A lease for each connection."""
        answers = [
            (*self.server.post("/get_indices", ask), ask["client_id"])
            for ask in (self.ask() for _ in range(CONNECTIONS))
        ]
        return [
            {
                "client_id": name,
                "leases": [answer["lease"]],
                "state": "drawing",
                "drawing": answer["indices"][:4],
                "images": 1,
            }
            for _, answer, name in answers
        ]

    def beats(self):
        held = self.held()
        return rate(
            self.load.run(self.seconds, lambda n, _: self.load.request("/beat", held[n])),
            self.seconds,
        )

    def beats_under_load(self):
        """Milliseconds of a beat, median and p99, while every eighth connection takes leases."""
        held, self.run = self.held(), next(self.names)
        answers = self.load.run(
            self.seconds,
            lambda n, answers: (
                self.lease(n, answers) if n % 8 == 0 else self.load.request("/beat", held[n])
            ),
        )
        times = [answer[0] for n, some in answers.items() if n % 8 for answer in some]
        return 1000 * statistics.median(times), 1000 * percentile(times, 0.99)

    def end(self):
        self.server.stop()
        shutil.rmtree(self.root)


def recovery(prompts, images):
    """Print what the rebuild of a lost ledger takes, beside a bare scan of the names."""
    root = Path(tempfile.mkdtemp(prefix="job_server_"))
    folder = root / "out" / "generated_images" / "storm"
    folder.mkdir(parents=True)
    settle(folder, definition("storm", prompts, images))
    text = {"text": "t", "llm_model_name": None, "backend": None}
    record = {"original_prompt": "t", "source": [], "texts": [text] * images, "short": None}
    for index in range(prompts):
        base = folder / folder_name(index)
        base.mkdir(exist_ok=True)
        (base / f"{index}.prompts").write_text(json.dumps({"prompt_index": index} | record))
        for end in [f"{aug}.{kind}" for aug in range(images) for kind in ("jpg", "json")]:
            os.close(os.open(base / f"{index}_{end}", os.O_CREAT | os.O_WRONLY))
    scans, names, marks = [], [], []
    for _ in range(3):
        scans.append(timed(scan, folder))
        for mark in folder.glob("*/COMPLETE"):
            mark.unlink()
        names.append(rebuilt(root / "out", prompts))
        marks.append(rebuilt(root / "out", prompts))  # the rebuild before has left the marks
    shutil.rmtree(root)
    bare_s, bare_cpu = medians(scans)
    for name, rows in (
        (f"recovery: {prompts * images:,} samples, {images} a prompt", names),
        ("the same with COMPLETE marks", marks),
        ("a bare scan of the names", scans),
    ):
        wall_s, cpu = medians(rows)
        ratios = f"{cpu / bare_cpu:.1f} of a bare scan's; {wall_s:.2f} s, {wall_s / bare_s:.1f}"
        print(f"{name:42s} {cpu:8.2f} s of CPU, {ratios}")


def medians(rows):
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def timed(function, *args):
    """(seconds, CPU seconds) of a call."""
    began = time.monotonic(), time.process_time()
    function(*args)
    return time.monotonic() - began[0], time.process_time() - began[1]


def scan(folder):
    return sum(1 for base in os.scandir(folder) if base.is_dir() for _ in os.scandir(base))


def rebuilt(root, prompts):
    """(seconds, CPU seconds) of the comparison with the folders after the ledger was lost."""
    for path in (root / ".server").glob("ledger*"):
        path.unlink()
    server = Server(ServerSettings(root, LeaseLimits(), host="127.0.0.1", port=0))
    server.listener.close()
    taken = timed(server.check.step)
    assert server.ledger.read(lambda ledger: ledger.queries.counts("storm"))["done"] == prompts
    server.ledger.read(Ledger.close)
    return taken


def recoveries(quick):
    """As published, 200 images a prompt; and with 10, where captions take most of the time."""
    samples = 100_000 if quick else 1_000_000
    recovery(samples // 200, 200)
    recovery(samples // 10, 10)


def ledger_alone():
    """Milliseconds of CPU of a lease of ten prompts and its release, without server and network."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for order, seed in (("random order", 42), ("order of the file", None)):
            place = Path(folder) / order
            place.mkdir()
            runs[order] = Run(place, total=1_000_000, seed=seed), []
        for turn in range(6):
            for run, times in runs.values():
                before = time.process_time()
                for n in range(300):
                    who, now = f"c{n % 128}", run.now + turn
                    asked = WorkRequest("d", who, f"{turn} {n}", A, size=10)
                    grant = run.ledger.lease(now, asked)
                    run.ledger.release(now, who, f"{turn} {n} back", grant.lease, "released")
                times.append((time.process_time() - before) / 300 * 1000)
        for order, (_, times) in runs.items():
            text = f"ledger alone: lease and release, {order}"
            print(f"{text:50s} {statistics.median(times[1:]):.2f} ms of CPU")


def main():
    parser = Options(__doc__)
    parser.flag("--quick", "small sizes")
    parser.flag("--ledger", "the ledger alone: CPU of a lease")
    parser.flag("--recovery", "the recovery alone")
    args = parser.parse_args()
    if args.recovery:
        recoveries(args.quick)
        return
    if args.ledger:
        ledger_alone()
        return
    quick = args.quick
    seconds, large = (3, 1_000_000) if quick else (8, 100_000_000)
    small_bench, large_bench = Bench(100_000, seconds), Bench(large, seconds)
    rows = []
    for _ in range(1 if quick else 3):  # in turns, so that a busy machine weighs on all alike
        rows.append(
            [small_bench.trivial(), small_bench.leases(), small_bench.beats(), large_bench.leases()]
        )
    trivial, leases, beats, far_leases = (
        statistics.median(row[k] for row in rows) for k in range(4)
    )
    middle, p99 = small_bench.beats_under_load()
    print(f"{CONNECTIONS} keep-alive connections, {os.cpu_count()} cores, generator included")
    print_rate("trivial route", trivial, trivial)
    print_rate("heartbeats", beats, trivial)
    print_rate("leases and releases, 100,000 indices", leases, trivial)
    print_rate(f"leases and releases, {large:,} indices", far_leases, trivial)
    print(f"{'the larger run costs':42s} {leases / far_leases:8.2f} x the smaller one's leases")
    print(f"{'a heartbeat beside 16 taking leases':42s} {middle:8.1f} ms median, {p99:.1f} ms p99")
    grown = memory_mb(large_bench.server) - memory_mb(small_bench.server)
    bits = large / 8 / 2**20
    print(f"{f'memory for {large:,} more':42s} {grown:8.1f} MB, {bits:.1f} MB would be a bit each")
    small_bench.end()
    large_bench.end()
    recoveries(quick)


def print_rate(what, rate_s, trivial):
    print(f"{what:42s} {rate_s:8,.0f} requests/s   {rate_s / trivial:.2f}")


if __name__ == "__main__":
    main()
