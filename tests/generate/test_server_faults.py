"""T4, T5, T6, T8: paused clients, lost replies, a full disk, broken GPUs, poison prompts.

And everything failing at once.
"""

import http.client
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from generate.protocol.answers import AllDone, Wait
from tests.fakes.running_server import check_files, finish, until


def finished(server, crowds, seconds=120):
    """Wait until nothing is waiting or leased; clients that die are replaced."""

    def over():
        for crowd in crowds:
            crowd.reap()
            crowd.fill()
        storm = server.dataset()
        assert not storm or storm["sum_ok"]
        return storm if storm and not storm["waiting"] + storm["leased"] else None

    return until(over, "the end of the work", seconds, 0.3)


def test_a_paused_client_that_wakes_up_harms_nothing(start):
    """T4: SIGSTOP past the TTL; another client finishes its work; then it goes on where it was."""
    server = start(ttl_s=2, beat_s=0.3)
    folder = server.root / "generated_images" / "storm"
    paused = start.crowd(1, "--total", 12, "--images", 3, "--chunk_size", 4, FAKE_BATCH_S="0.15")
    until(lambda: len(list(folder.glob("*/*.jpg"))) > 3, "its first images")
    paused.processes[0].send_signal(signal.SIGSTOP)
    others = start.crowd(2, "--total", 12, "--images", 3, host="other")
    until(lambda: server.dataset()["done"] == 12, "the others to finish")
    before = {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((".tmp", "COMPLETE"))
    }
    paused.processes[0].send_signal(signal.SIGCONT)
    assert paused.processes[0].wait(30) == 0, paused.logs()
    after = {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((".tmp", "COMPLETE"))
    }
    assert after == before
    check_files(folder, 12, 3)
    assert server.dataset()["given_back"].get("expired") and not server.dataset()["set_aside"]
    assert all(process.wait(30) == 0 for process in others.processes)


class DroppingProxy:
    """Forwards to the server; where drop(n), drops the n-th POST's reply, durable by then."""

    def __init__(self, port, drop):
        self.target, self.drop, self.posts, self.dropped = port, drop, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.forward, args=(line,), daemon=True).start()

    def forward(self, line):
        with line, socket.create_connection(("127.0.0.1", self.target)) as server:
            dropping = False
            while True:
                for ready in select.select([line, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is server:
                        if dropping:
                            self.dropped += 1
                            return
                        line.sendall(data)
                    else:
                        if data.startswith(b"POST"):
                            self.posts += 1
                            dropping = self.drop(self.posts)
                        server.sendall(data)


def test_lost_replies_change_nothing(start, monkeypatch):
    """T5, I6: every other reply is lost after the commit; each call has the effect of one."""
    server = start(ttl_s=30)
    record = server.json
    proxy = DroppingProxy(int(record["url"].rsplit(":")[-1].strip("/")), lambda n: n % 2 == 1)
    # the network itself loses replies: the address that is dialed stays the server's
    through = proxy.listener.getsockname()
    monkeypatch.setattr(
        http.client.HTTPConnection,
        "connect",
        lambda line: setattr(line, "sock", socket.create_connection(through, line.timeout)),
    )
    client = server.client(total=12)
    seen, released, failed = [], False, False
    while not isinstance(answer := client.get_indices(3), AllDone):
        if isinstance(answer, Wait):
            time.sleep(0.1)
            continue
        seen += answer.indices
        if not released:
            released = True
            assert client.release(answer.lease)
            assert not client.release(answer.lease)  # another call than the one before
            seen.clear()
            continue
        if not failed:
            failed = True
            assert set(
                client.fail(
                    answer.lease, [{"index": answer.indices[0], "reason": "image", "error": "x"}]
                ).values()
            ) == {"retry elsewhere"}
            seen.remove(answer.indices.pop(0))
        assert set(finish(client, answer).values()) == {"accepted"}
    assert sorted(seen) == list(range(12)) and proxy.dropped > 5
    monkeypatch.undo()
    assert server.dataset()["done"] == 12 and server.dataset()["sum_ok"]


@pytest.fixture
def small_disk(tmp_path):
    """(prefix words, the path as we see it, grow()) of a tmpfs of 500 kB in a mount namespace.

    None where that is not allowed.
    """
    root = tmp_path / "out"
    root.mkdir()
    command = f"mount -t tmpfs -o size=500k tmpfs {root} && echo mounted && exec sleep 600"
    holder = (
        subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", command],
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
        )
        if shutil.which("unshare")
        else None
    )
    if holder is None or holder.stdout.readline() != "mounted\n":
        yield None
        return
    enter = ["nsenter", f"--target={holder.pid}", "--mount", "--"]
    yield (
        enter,
        Path(f"/proc/{holder.pid}/root{root}"),
        lambda: subprocess.run([*enter, "mount", "-o", "remount,size=50m", str(root)], check=True),
    )
    holder.kill()
    holder.wait()


def test_a_full_disk_blames_nobody(start, tmp_path, small_disk):
    """T6: the disk is full for a while; nothing fails or is torn, and the run ends well."""
    full = tmp_path / "full"
    if small_disk:
        enter, root, grow = small_disk
        environment = {}
    else:
        full.touch()
        enter, root, grow, environment = (
            [],
            tmp_path / "out",
            full.unlink,
            {"FAKE_DISK_FULL": str(full)},
        )
    server = start("--probe_s", 1, prefix=enter, seen_at=root, ttl_s=3)
    crowd = start.crowd(
        3,
        "--total",
        60,
        "--images",
        2,
        root=root,
        prefix=enter,
        as_root=tmp_path / "out",
        **environment,
    )
    until(
        lambda: (
            os.statvfs(root).f_bavail < 4
            or any(error["reason"] == "disk" for error in server.status()["errors"])
        ),
        "the disk to be full",
    )
    time.sleep(4)
    assert server.dataset()["set_aside"] == 0 and server.dataset()["done"] < 60
    grow()
    assert finished(server, [crowd])["set_aside"] == 0
    assert server.dataset()["done"] == 60 and not server.status()["quarantined"]
    check_files(root / "generated_images" / "storm", 60, 2)


def test_one_bad_gpu_and_two_poison_prompts(start):
    """T8, I9, I10: the GPU is quarantined and costs no index anything.

    Of the prompts one raises an error and one kills its process: both fail, and nobody else's
    worker is quarantined for them.
    """
    server = start("--probe_s", 30, ttl_s=2, beat_s=0.3)
    poison = {
        "FAKE_CUDA_ERROR": "prompt 7(,|$)",
        "FAKE_SEGFAULT": "prompt 13(,|$)",
        "FAKE_BATCH_S": "0.02",
    }
    good = start.crowd(4, "--total", 150, "--images", 2, **poison)
    bad = start.crowd(
        1, "--total", 150, "--images", 2, host="bad", FAKE_CUDA_ERROR=".", FAKE_BATCH_S="0.02"
    )
    storm = finished(server, [good, bad], 150)
    assert (storm["set_aside"], storm["done"]) == (2, 148)
    document = server.status()
    assert {row["index"] for row in document["set_aside"]["rows"]} == {7, 13}
    assert {row["host"] for row in document["quarantined"]} == {"bad0"}
    crowded = server.root / "generated_images" / "storm" / "000000"
    assert (crowded / "7_0.failed").exists() and not (crowded / "7_0.jpg").exists()
    assert "CUDA error" in str(
        next(row for row in document["set_aside"]["rows"] if row["index"] == 7)["errors"]
    )

    # the user has removed the prompts' fault and says so
    good.end()
    bad.end()
    status, answer = server.post("/admin", {"retry_failed": ""})
    assert status == 200 and answer["done"] == ["2 failed prompts will be tried again"]
    assert server.post("/admin", {"release_quarantine": "bad0"})[1]["done"] == [
        "1 workers are trusted again"
    ]
    fixed = start.crowd(2, "--total", 150, "--images", 2, host="fixed")
    assert finished(server, [fixed])["done"] == 150
    check_files(server.root / "generated_images" / "storm", 150, 2)


def test_everything_fails_for_a_while_and_nobody_is_blamed(start, tmp_path):
    """The run is halted but for probes, nothing fails, and work goes on by itself after it."""
    broken = tmp_path / "broken"
    broken.write_text(os.uname().nodename)
    server = start("--probe_s", 1, ttl_s=3)
    crowd = start.crowd(
        4,
        "--total",
        60,
        "--images",
        2,
        FAKE_CUDA_ERROR=".",
        FAKE_BAD_HOSTS=str(broken),
        FAKE_BATCH_S="0.02",
    )
    until(
        lambda: server.dataset() and server.status()["weather"]["state"] == "storm",
        "the world's failure to be seen",
    )
    time.sleep(2)
    assert server.dataset()["set_aside"] == 0 and not server.status()["quarantined"]
    broken.write_text("")
    storm = finished(server, [crowd])
    assert (storm["done"], storm["set_aside"]) == (60, 0)
    assert not list((server.root / "generated_images" / "storm").glob("*/*.failed"))
