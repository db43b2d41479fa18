"""A full disk, where images, ledger and logs share it: nobody hangs, leaves or is blamed.

The disk is a real one (a tmpfs in a mount namespace of its own) where that is allowed, and else a
client whose writes and log lines fail.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.running_client import ROOT, Run
from tests.fakes.running_server import RunningServer, until

FULL_DISK = ROOT / "tests" / "fakes" / "full_disk.py"


class SmallDisk:
    """A tmpfs at `path` for processes that are begun with `prefix`; here it is `seen`."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        mount = f"mount -t tmpfs -o size=20m,nr_inodes=3000 tmpfs {path}"
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{mount} && echo mounted && exec sleep 600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.prefix = ["nsenter", f"--target={self.holder.pid}", "--mount", "--"]
        self.seen = Path(f"/proc/{self.holder.pid}/root{path}")
        self.ballast = self.seen / "ballast"

    def mounted(self) -> bool:
        return self.holder.stdout.readline() == "mounted\n"

    def fill_blocks(self) -> None:
        with contextlib.suppress(OSError), open(self.ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def fill_inodes(self) -> None:
        self.ballast.mkdir()
        with contextlib.suppress(OSError):
            for number in range(3000):
                (self.ballast / str(number)).touch()

    def make_room(self) -> None:
        if self.ballast.is_dir():
            shutil.rmtree(self.ballast)
        else:
            self.ballast.unlink()

    def end(self) -> None:
        self.holder.kill()
        self.holder.wait()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[SmallDisk | None]:
    """None where mounting is not allowed."""
    if not shutil.which("unshare"):
        yield None
        return
    disk = SmallDisk(tmp_path / "disk")
    yield disk if disk.mounted() else None
    disk.end()


class RunOnDisk:
    """A run whose files all lie on a disk that can be filled: mounted, or injected."""

    def __init__(self, folder: Path, disk: SmallDisk | None, fill: str) -> None:
        self.disk = disk if fill != "injected" else None
        self.fill_it = getattr(self.disk, f"fill_{fill}", None)
        self.drawn = folder / "drawn"  # a line for each image; not on that disk
        root = self.disk.seen if self.disk else None
        self.prefix = self.disk.prefix if self.disk else ()
        self.run = Run(
            folder,
            total=24,
            images=4,
            seen_at=root,
            given_root=folder / "disk" if self.disk else None,
            FAKE_BATCH_S="0.1",
            FAKE_LOG=str(self.drawn),
        )
        self.server = RunningServer(
            self.run.given_root, "--probe_s", 1, ttl_s=5, prefix=self.prefix, seen_at=root
        )

    def start(self, log: Path | None = None) -> subprocess.Popen:
        """A client; its log lies on the disk, unless it is given another place."""
        python, unbuffered, *words = self.run.command()
        harness = [] if self.disk else [FULL_DISK, "files" if log else "all"]
        command = [*self.prefix, python, unbuffered, *map(str, harness), *words]
        return self.run.begin(command, log=log)

    def fill(self) -> None:
        if self.fill_it:
            self.fill_it()
        else:
            (self.run.folder / "temporary").write_text("ENOSPC")
            (self.run.folder / "temporary").rename(self.run.folder / "full")

    def make_room(self) -> None:
        if self.disk:
            self.disk.make_room()
        else:
            (self.run.folder / "full").unlink()

    def generated(self) -> int:
        return len(self.drawn.read_text().splitlines()) if self.drawn.exists() else 0

    def stands_still(self) -> bool:
        """Whether no image is generated: what was held has met the full disk, and no ledger on it
        grants more."""
        before = self.generated()
        time.sleep(2)
        return self.generated() == before

    def end(self) -> None:
        self.run.stop()
        self.server.stop()


@pytest.fixture
def on_disk(tmp_path, small_disk, request) -> Iterator[RunOnDisk]:
    made = RunOnDisk(tmp_path, small_disk, request.param)
    yield made
    made.end()


FILLS = pytest.mark.parametrize("on_disk", ["blocks", "inodes", "injected"], indirect=True)


@FILLS
def test_a_disk_that_fills_up_under_everything(on_disk):
    """In mid-run, with the logs on it: two clients wait, and finish when there is room again."""
    run = on_disk.run
    clients = [on_disk.start(), on_disk.start()]
    until(lambda: run.count() >= 8, f"images\n{run.log()}")
    on_disk.fill()
    until(on_disk.stands_still, "an end of what they held")
    assert run.count() < 24 * 4
    on_disk.make_room()
    assert [client.wait(120) for client in clients] == [0, 0], run.log()
    run.check()
    counts = on_disk.server.dataset("birds")
    assert counts["set_aside"] == 0 and counts["done"] == 24 and counts["sum_ok"]
    assert "Traceback" not in run.log()


@FILLS
def test_a_client_that_starts_on_a_full_disk(on_disk):
    """It waits and says so: a failed task would eat the array, one after the other."""
    run = on_disk.run
    first = on_disk.start()
    until(lambda: run.count() >= 4, f"images\n{run.log()}")
    first.terminate()
    first.wait(30)
    on_disk.fill()
    log = run.folder / "second.out"
    second = on_disk.start(log=log)
    says = "trying again in" if on_disk.disk else "everything is released"
    until(lambda: says in log.read_text(), f"what it waits for\n{log.read_text()}", 90)
    time.sleep(0.5)
    assert second.poll() is None and "the disk is full" in log.read_text()
    assert "hard links" not in log.read_text()
    on_disk.make_room()
    assert second.wait(120) == 0, log.read_text()
    run.check()
    assert on_disk.server.dataset("birds")["set_aside"] == 0


@pytest.mark.parametrize(
    "number, says, of",
    [
        ("ENOSPC", "the disk is full", "files"),
        ("EDQUOT", "the quota is used up", "files"),
        ("EIO", "the disk has an error", "files"),
        ("ENOSPC", "the disk is full", "a folder"),
    ],
)
def test_the_disk_fills_up(start_run, number, says, of):
    """In the middle of the run: everything is released with its reason, no prompt gets a strike.

    With room again it goes on.
    """
    run, server = start_run(total=6, images=4, FAKE_BATCH_S="0.1", server=["--probe_s", 1])
    python, unbuffered, *words = run.command()
    client = run.begin([python, unbuffered, FULL_DISK, of, *words])
    until(lambda: run.count() >= 3, f"images\n{run.log()}")
    (run.folder / "draft").write_text(number)
    (run.folder / "draft").rename(run.folder / "full")
    until(lambda: "everything is released" in run.log(), f"the failure\n{run.log()}")
    assert client.poll() is None and says in run.log()
    (run.folder / "full").unlink()
    assert client.wait(100) == 0, run.log()
    run.check()
    assert server.dataset("birds")["set_aside"] == 0 and "Traceback" not in run.log()
