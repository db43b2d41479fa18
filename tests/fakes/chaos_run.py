"""A run in one process, for histories of what people do to folders: server, clients, an LLM's log.

The server is the product's, asked through its own routes without a network, under a clock that
stands until it is turned on. The client's work is done by the product's modules, a step at a
time: captions, images, reports. `kill` drops either at once.
"""

import contextlib
import os
import shutil
import sqlite3
import stat
import threading
import time
from pathlib import Path

import flask
from PIL import Image

from generate.client import job_client
from generate.client.captioner import Captioner
from generate.client.job_client import JobClient
from generate.client.recipes import Recipes
from generate.client.work import ClientSettings, Index, Work
from generate.client.worker import WorkerIdentity
from generate.dataset.definition import stored_definition
from generate.dataset.disk import fault
from generate.dataset.layout import FOLDER, stem
from generate.dataset.samples import Place, publish_sample, utc_now
from generate.dataset.scan import IndexFiles, scan_folder
from generate.pipelines.pipeline import GeneratorSettings
from generate.protocol.answers import AllDone, Grant
from generate.protocol.connection import Refused, ServerAway
from generate.server import state
from generate.server.background import Housekeeping
from generate.server.ledger.granting import COMPARED_S
from generate.server.ledger.ledger import Ledger
from generate.server.ledger.live_leases import LeaseLimits
from generate.server.orders import Orders
from generate.server.routes import guarded
from generate.server.state import Server, ServerSettings
from generate.server.work_calls import WorkCalls
from tests.fakes.chaos_connection import Connection, FakeLLM
from tests.fakes.folder_checker import FolderChecker

TTL_S = 10
KNOWN = "SELECT 1 FROM datasets WHERE name = ?"


class ServerEnds(Exception):
    """The server has ended itself, or replaced itself by a new process."""


class ChaosClient:
    """One client: it takes a lease, and goes on with it a step at a time."""

    def __init__(self, run):
        self.run = run
        self.job = JobClient(run.root, run.definition, WorkerIdentity("node"), server_timeout_s=0)
        recipes = Recipes(GeneratorSettings("tiny", height=8, width=8).resolved())
        self.work = Work(threading.Event(), recipes)
        self.images_per_prompt = run.definition["images_per_prompt"]
        self.total = run.definition["total"]
        settings = ClientSettings(run.folder, self.images_per_prompt, recipes)
        self.captioner = Captioner(self.work, FakeLLM(run), settings)
        self.lease = None
        self.indices = []
        self.over = False  # it has left: refused, or all done
        self.refusal = ""

    def step(self, images):
        """A lease if there is none, then up to so many images, then the report of what is done."""
        try:
            if not self.indices:
                self._take()
            for _ in range(images):
                if not self._image():
                    break
            self._report()
        except Refused as error:
            self.over = True
            self.refusal = str(error)
        except ServerAway:
            pass  # it would try again
        except OSError as error:
            self._give_back(error)

    def _give_back(self, error):
        """As the feeder and the publisher do: a sub-folder's fault, or that of one file."""
        reason, text = fault(error)
        assert reason in ("folder", "prompt"), text
        with contextlib.suppress(ServerAway):
            self.job.release(self.lease, "folder" if reason == "folder" else "released")
        for index in self.indices:
            self.work.forget(index)
        self.indices = []

    def _take(self):
        answer = self.job.get_indices(3)
        if isinstance(answer, AllDone):
            self.over = True
        if not isinstance(answer, Grant):
            return
        self.lease = answer.lease
        found = {}
        for block in {number // FOLDER for number in answer.indices}:
            found |= scan_folder(self.run.folder, block, only=set(answer.indices))
        self.indices = [
            Index(n, answer.lease, self.run.item(n), found.get(n, IndexFiles()), 1)
            for n in answer.indices
        ]
        self.work.add_lease(answer.lease, self.indices, answer.canary)
        while self.work.unasked:
            self.captioner.find(self.work.unasked.popleft())
        self.captioner.take_answers()

    def _image(self):
        batch = self.work.take([*self.work.ready][:1])
        if not batch:
            return False
        [sample] = batch
        if sample.aug is None:
            self.work.passed(sample)
            return True
        index = sample.index
        record = index.record
        metadata = {
            "prompt_index": index.number,
            "augmentation_idx": sample.aug,
            "original_prompt": record["original_prompt"],
            "augmented_prompt": sample.text,
            "is_augmented": sample.aug > 0,
            "model_name": "fake",
            "llm_model_name": record["texts"][sample.aug]["llm_model_name"],
            "height": 8,
            "width": 8,
            "input_file": f"{self.run.name}.json",
            "image_path": f"{index.number // 1000:06d}/{stem(index.number, sample.aug)}.jpg",
            "generation_timestamp": utc_now(),
        }
        shade = hash((index.number, sample.aug)) % 200
        image = Image.new("RGB", (8, 8), (shade, 255 - shade, 90))
        image.putpixel((0, 0), (255, 255, 255))
        publish_sample(self.run.folder, image, metadata, Place(index.lease))
        self.work.published(sample)
        return True

    def _report(self):
        """As the publisher does: what is over is completed, or reported as failed."""
        while not self.work.ended.empty():
            index = self.work.ended.get()
            if index.failures:
                reason, error = next(iter(index.failures.values()))
                result = {"index": index.number, "reason": reason, "error": error}
                self.job.fail(index.lease, [result])
            else:
                images = len(index.record["texts"])
                result = {"index": index.number, "images": images, "short": 0}
                self.job.complete(index.lease, [result])
            self.work.forget(index)
            self.indices.remove(index)


class ChaosRun:
    """The output root and who lives in it. Prompts differ by their number alone."""

    name = "birds"

    def __init__(self, root, monkeypatch, total=4, images=3):
        self.root = Path(root) / "out"
        self.root.mkdir()
        self.now_s = time.monotonic()
        monkeypatch.setattr(time, "monotonic", self.clock)  # a slow machine changes no history
        # a crash of the machine is not asked here, and a sync may take 100 ms on a busy disk
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        self.server = None
        self.lost_all = False
        self.clients = []
        Connection.run = self
        monkeypatch.setattr(job_client, "Connection", Connection)
        monkeypatch.setattr(state, "start_anew", self._start_anew)
        monkeypatch.setattr(state.identity, "refuse_if_running", lambda root: None)
        monkeypatch.setattr(job_client.time, "sleep", lambda seconds: None)
        self.define(total, images)
        self.start_server()

    def define(self, total, images, **changes):
        self.definition = {
            "name": self.name,
            "prompts_file": f"{self.name}.json",
            "prompts_sha256": sha_of(total),
            "total": total,
            "images_per_prompt": images,
            "order_seed": None,
            "run_seed": 0,
            "model": "fake",
            **changes,
        }

    @property
    def folder(self):
        return self.root / "generated_images" / self.name

    def item(self, index):
        return {"prompt": f"a red fox number {index} in the snow", "source": ["test"]}

    def clock(self):
        return self.now_s

    # ------------------------------------------------ who lives

    def start_server(self):
        self.kill_server()
        limits = LeaseLimits(ttl_s=TTL_S)
        self.server = Server(ServerSettings(self.root, limits, host="127.0.0.1", port=0))
        self.server.ledger.clock = self.clock
        self.server.accounts.connection.execute("PRAGMA synchronous = OFF")
        self.server.announce()
        work = WorkCalls(self.server)
        calls = {
            "get_indices": work.get_indices,
            "complete": work.complete,
            "fail": work.fail,
            "release": work.release,
            "admin": Orders(self.server).take,
        }
        self.app = flask.Flask("chaos")
        self.app.testing = True  # an exception that nobody expected ends the history
        for name, call in calls.items():
            self.app.add_url_rule(f"/{name}", name, guarded(self.server, call), methods=["POST"])
        self.tick()

    def kill_server(self):
        """As SIGKILL: what is not committed is lost, nothing is said."""
        if self.server:
            self.server.listener.close()
            self.server.accounts.connection.close()
            os.close(self.server.claim._descriptor)  # a process that dies keeps no file open
            self.server = None

    def tick(self):
        """What the server's threads do now and then."""
        if self.server:
            try:
                Housekeeping(self.server).step()
                self.server.check.step()
            except ServerEnds:
                self.start_server()

    def _start_anew(self, why):
        raise ServerEnds(why)

    def order(self, **order):
        """(status, answer) of an order to the server that lives."""
        answer = self.app.test_client().post("/admin", json=order)
        return answer.status_code, answer.get_json()

    def turn_clock(self, seconds):
        """Let time pass a second at a time: a sweep that comes late makes every lease longer."""
        for _ in range(int(seconds)):
            self.now_s += 1
            if self.server:
                self.server.ledger.run(Ledger.sweep)
        self.tick()

    def checker(self):
        """By the definition of the run; where all was lost, by the one that stands now."""
        definition = self.definition
        if self.lost_all:
            with contextlib.suppress(ValueError):
                definition = stored_definition(self.folder) or definition
        return FolderChecker(self.folder, definition, self.item)

    def check_done(self):
        """All is there, and the ledger says so."""
        self.checker().check_done()
        counts = self.server.ledger.run(lambda ledger, now: ledger.queries.counts(self.name))
        total = self.definition["total"]
        assert counts["done"] == total and counts["waiting"] == counts["leased"] == 0, counts

    def finish(self):
        """Everybody works to the end, however the run was left; a hang is a failure."""
        self.clients = []
        self.turn_clock(TTL_S + 5)
        if self.server is None:
            self.start_server()
        self.turn_clock(TTL_S + 5)
        self.turn_clock(COMPARED_S)  # files may have gone since the last comparison
        for _ in range(100):
            client = ChaosClient(self)
            client.step(1000)
            self.turn_clock(5)
            if client.refusal:
                self._take_remedy(client.refusal)
            elif client.over:
                break
        else:
            raise AssertionError("it does not come to an end")
        self.check_done()

    def look_who_vouches(self):
        """Definition and ledger lost at the same time: a client of before begins the set anew."""
        if not any(self.folder.glob("dataset*.yaml")) and not self._ledger_knows():
            self.lost_all = True

    def _ledger_knows(self):
        if self.server:
            return self.server.ledger.read(lambda ledger: ledger.store.has(self.name))
        path = self.root / ".server" / "ledger.sqlite"
        try:
            found = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        except sqlite3.Error:
            return False
        with contextlib.suppress(sqlite3.Error), contextlib.closing(found):
            return bool(found.execute(KNOWN, (self.name,)).fetchone())
        return False

    def _take_remedy(self, refusal):
        """The refusal says what a person can do.

        Where definition and ledger were both lost at some time, a client of before an extension may
        have begun the data set anew, smaller; nobody can know better.
        """
        if self.lost_all and "was begun with" in refusal:
            stands = stored_definition(self.folder)
            self.define(stands["total"], stands["images_per_prompt"])
            return
        assert "is damaged" in refusal and "or move the folder away" in refusal, refusal
        assert not self.server.ledger.read(lambda ledger: ledger.store.has(self.name)), refusal
        shutil.move(self.folder, self.root.parent / "put_away")


def sha_of(total):
    """As if of a prompts file of so many prompts: a longer one begins with the shorter."""
    return f"{total:064d}"


def copy_over(source, target):
    """A folder restored from a copy: what lies there now is gone."""
    if os.path.lexists(target):
        shutil.rmtree(target)
    shutil.copytree(source, target, symlinks=True, ignore=_no_files)


def _no_files(folder, names):
    """Pipes, which shutil cannot copy."""
    return [name for name in names if stat.S_ISFIFO(os.lstat(Path(folder, name)).st_mode)]
