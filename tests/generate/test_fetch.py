"""A hub model is fetched once for all clients of a cache: real processes, a fake hub on a port."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from generate.image_models.model_recipes import TINY
from tests.fakes.fake_model_hub import FakeModelHub
from tests.fakes.running_server import until

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {name: name.encode() * 1000 for name in ("model_index.json", "a.safetensors", "b.json")}
# What a client does, but for torch: the files come through the hub's own library.
CLIENT = """
import logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(message)s")
from huggingface_hub import hf_hub_download
from generate.image_models.fetch import load_once
def load(offline):
    print("load", "offline" if offline else "online", flush=True)
    for name in ("model_index.json", "a.safetensors", "b.json"):
        hf_hub_download("fake/model", name, local_files_only=offline)
    return "loaded"
print(load_once("fake/model", None, load), flush=True)
"""


# What a submission does before sbatch, and a task on a node without a network.
FETCH = """
from argparse import Namespace
from generate.launch.submit import fetch_model
for _ in range(2):
    args = Namespace(model="fake/painter", revision=None, pipeline=None)
    fetch_model(args, {"model_commit": "%s"})
"""
TASK = """
from generate.pipelines.image_generator import ImageGenerator
from generate.pipelines.pipeline import GeneratorSettings
settings = GeneratorSettings("fake/painter", height=64, width=64, steps=1, revision="%s")
generator = ImageGenerator(settings)
generator.load()
print(generator.generate(["a star"], [1])[0].pixels.shape)
"""


def whole_model(as_tree):
    """What the hub's API says of fake/painter: the files of the tiny model, and some of no use."""
    names = [path.relative_to(TINY).as_posix() for path in TINY.rglob("*") if path.is_file()]
    names += ["transformer/model.fp16.bin", "big.ckpt"]
    if as_tree:
        return [{"type": "file", "path": name, "size": 9, "oid": "0" * 40} for name in names]
    siblings = [{"rfilename": name} for name in names]
    return {"_id": "1", "id": "fake/painter", "sha": COMMIT, "siblings": siblings, "tags": []}


@pytest.fixture
def hub():
    """FakeModelHub: .asked: the files of fake/model, as they were sent; .painted: of fake/painter;
    .gate holds the answers up.
    """

    def content(path, sent):
        name = path.rsplit("/")[-1]
        if path.startswith("/api/models/fake/painter"):
            return json.dumps(whole_model("/tree/" in path)).encode()
        if path.startswith("/fake/painter/resolve/"):
            hub.painted.append(path)
            place = TINY / path.split("/", 5)[-1]
            return place.read_bytes() if place.is_file() else None
        if sent and path.startswith("/fake/model/resolve/"):
            hub.asked.append(name)
            hub.gate.wait(60)
        return FILES.get(name)

    hub = FakeModelHub(content, COMMIT)
    hub.asked, hub.painted, hub.gate = [], [], threading.Event()
    yield hub
    hub.gate.set()
    hub.shutdown()


@pytest.fixture
def start(tmp_path, hub, processes):
    """start() -> a client process; its output is in .log."""

    def begin(code=CLIENT, **environment):
        log = tmp_path / f"{len(processes)}.out"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdout=out,
                stderr=out,
                env=os.environ
                | {"PYTHONPATH": str(ROOT)}
                | hub.environment(tmp_path / "hub")
                | environment,
            )
        process.log = log
        processes.append(process)
        return process

    return begin


def test_one_fetches_and_the_others_wait_also_over_its_death(start, hub):
    first = start()
    until(lambda: hub.asked, first.log.read_text, process=first)
    others = [start(), start()]
    waiting = f"process {first.pid} on {os.uname().nodename} fetches fake/model; waiting for it"
    for other in others:
        until(
            lambda other=other: waiting in other.log.read_text(), other.log.read_text, process=other
        )
    assert hub.asked == ["model_index.json"]
    first.send_signal(signal.SIGKILL)
    hub.gate.set()
    assert [other.wait(60) for other in others] == [0, 0], others[0].log.read_text()
    said = sorted(other.log.read_text().count("load offline") for other in others)
    assert said == [0, 1], "the second one took over, and the third asked the hub for nothing"
    assert hub.asked.count("a.safetensors") == hub.asked.count("b.json") == 1
    asked = len(hub.asked)
    last = start(HF_ENDPOINT="http://127.0.0.1:9")
    assert last.wait(60) == 0 and "load offline" in last.log.read_text()
    assert len(hub.asked) == asked


def test_a_cache_that_was_emptied_is_filled_again(start, hub, tmp_path):
    hub.gate.set()
    assert start().wait(60) == 0
    for path in (tmp_path / "hub").glob("models--*/snapshots/*/a.safetensors"):
        path.unlink()
    again = start()
    assert again.wait(60) == 0, again.log.read_text()
    assert "is not whole in the cache any more" in again.log.read_text()
    assert again.log.read_text().rstrip().endswith("loaded")


def test_a_cache_that_cannot_be_written_stops_nobody(start, hub, tmp_path):
    """A file stands where the locks would lie: everybody fetches."""
    hub.gate.set()
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / ".generate_images").write_text("")
    client = start()
    assert client.wait(60) == 0 and "cannot be locked" in client.log.read_text()


def test_a_submission_fetches_once_for_all_tasks(start, hub):
    """What from_pretrained needs and no more; a node without a network then loads and generates."""
    hub.gate.set()
    away = start(FETCH % COMMIT, HF_ENDPOINT="http://127.0.0.1:9")
    assert away.wait(120) == 0, away.log.read_text()
    assert away.log.read_text().count("the first task fetches it") == 2, away.log.read_text()
    first = start(FETCH % COMMIT)
    assert first.wait(120) == 0, first.log.read_text()
    assert first.log.read_text().count("fetching fake/painter") == 1, first.log.read_text()
    assert "was not fetched" not in first.log.read_text(), first.log.read_text()
    assert not any("ckpt" in path or "fp16" in path for path in hub.painted), hub.painted
    task = start(TASK % COMMIT, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert task.wait(120) == 0, task.log.read_text()
    assert "(64, 64, 3)" in task.log.read_text()


def test_folders_need_no_lock(monkeypatch, tmp_path):
    from generate.image_models.fetch import load_once

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert load_once(str(tmp_path), None, lambda offline: json.dumps(offline)) == "false"
    assert load_once("tiny", None, lambda offline: offline) is False
