"""What becomes of an image behind the device, and of a client whose disk or device fails."""

import errno
import json
import os
import threading
import time
import types
from pathlib import Path
from typing import Any

import numpy
import pytest

from common.command_line import UserError
from common.expression import parse
from generate.client import process, publisher, restart
from generate.client.judge import Judge
from generate.client.publisher import Publisher
from generate.client.recipes import Recipes
from generate.client.work import (
    DISK_PAUSE_S,
    LONGEST_DISK_PAUSE_S,
    ClientSettings,
    Index,
    Sample,
    Work,
)
from generate.dataset import disk, samples
from generate.dataset.captions import read_captions
from generate.dataset.scan import IndexFiles
from generate.pipelines.image import Image
from generate.pipelines.pipeline import GeneratorSettings
from tests.fakes import fake_pipeline
from tests.fakes.running_server import until

RECIPES = Recipes(GeneratorSettings("tiny", height=32, width=32).resolved())
RECORD = {
    "prompt_index": 3,
    "original_prompt": "a bird",
    "source": [],
    "texts": [{"text": "a bird", "llm_model_name": None, "backend": None}],
    "short": None,
}


class FakeJob:
    """Answers that the test chooses; .completed and .failed: what was reported."""

    def __init__(self, *verdicts: str) -> None:
        self.verdicts = list(verdicts)
        self.completed: list[list[dict[str, Any]]] = []
        self.failed: list[dict[str, Any]] = []
        self.lost: set[str] = set()
        self.quarantined_s = None

    def complete(self, lease: str, results: list[dict[str, Any]]) -> dict[int, str]:
        self.completed.append(results)
        return {3: self.verdicts.pop(0)}

    def fail(self, lease: str, results: list[dict[str, Any]]) -> dict[int, str]:
        self.failed += results
        return {result["index"]: "retry elsewhere" for result in results}


class Bench:
    """One index with one image on its way, in a folder."""

    def __init__(self, folder: Path, job: FakeJob, judge: Judge | None = None) -> None:
        self.work = Work(threading.Event(), RECIPES)
        self.job = job
        settings = ClientSettings(folder, 1, RECIPES, judge=judge)
        self.publisher = Publisher(self.work, job, self.metadata, samples.Place(""), settings)
        item = {"prompt": "a bird", "source": []}
        self.index = Index(3, "1-1", item, IndexFiles(), turn=1, record=RECORD)
        self.work.add_lease("1-1", [self.index])
        self.work.enqueue(self.index, [0])

    def metadata(self, sample: Sample, image: Image) -> samples.Metadata:
        metadata = {"prompt_index": 3, "augmentation_idx": 0, "augmented_prompt": "a bird"}
        return metadata | {"seed": sample.attempt}

    def publish(self) -> None:
        """Publish an image and report, to the end."""
        self.publisher.start(bound=2)
        pixels = fake_pipeline.draw("a bird", 1, 32, 32)
        self.publisher.put(self.work.sample(self.index, 0), Image(pixels.astype(numpy.float32), 1))
        self.publisher.finish()


class PlaceScore:
    """A score: the place of an image among those that were judged before it."""

    name, version, licence = "place", "1", "none needed"

    def __init__(self) -> None:
        self.judged: list[Any] = []

    def score(self, images: list[Any], texts: list[str]) -> list[float]:
        self.judged += images
        return [float(n) for n in range(len(self.judged) - len(images), len(self.judged))]


def sleep_as(monkeypatch, module, sleep):
    """This module's time.sleep alone: threads of other tests may sleep in this process."""
    clock = types.SimpleNamespace(**{**vars(time), "sleep": sleep})
    monkeypatch.setattr(module, "time", clock)


def test_an_image_that_is_scored_is_encoded_once(tmp_path, monkeypatch):
    """What was judged is what is published, byte for byte but for the comment; so what is kept."""
    encoded = []
    encode = samples.encode_alone

    def counted(image: Any, quality: int) -> bytes:
        encoded.append(encode(image, quality))
        return encoded[-1]

    monkeypatch.setattr(samples, "encode_alone", counted)
    folder = tmp_path / "generated_images" / "birds"
    score = PlaceScore()
    judge = Judge([score], parse("place > 0"), max_tries=2, keep=5)
    bench = Bench(folder, FakeJob("accepted"), judge)
    bench.publisher.start(bound=2)
    for text in ("a bird", "another bird"):
        values = fake_pipeline.draw(text, 1, 32, 32).astype(numpy.float32)
        [sample] = bench.work.take(bench.work.ready_alike()[0])
        bench.publisher.put(sample, Image(values, 1))
        until(lambda: bench.work.ready or bench.work.images, "it is judged")
    bench.publisher.finish()
    [kept] = (tmp_path / "rejected_images").rglob("*.jpg")
    published = [kept.read_bytes(), (folder / "000000" / "3_0.jpg").read_bytes()]
    for jpeg, judged, shown in zip(encoded, score.judged, published, strict=True):
        comment = json.dumps(samples.read_comment(shown)).encode()
        assert shown == samples.with_comment(jpeg, comment)
        assert (samples.decoded(shown) == judged).all()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_a_failed_write_is_the_disk_s(tmp_path, monkeypatch, number):
    """Reported as the prompt's, a full disk would cost every prompt a strike."""

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number), "12345_3.jpg")

    monkeypatch.setattr(samples, "publish_sample", full)
    bench = Bench(tmp_path, FakeJob())
    bench.publish()
    assert [result["reason"] for result in bench.job.failed] == ["disk"]
    assert "12345_3.jpg" in bench.job.failed[0]["error"]
    assert bench.work.take_release_reason() == "disk" and not bench.work.leases


def test_files_that_the_server_does_not_see_at_once(tmp_path, monkeypatch):
    """NFS shows a name on another node after a while: no failure, and a prompt that is done."""
    slept: list[float] = []
    sleep_as(monkeypatch, publisher, slept.append)
    bench = Bench(tmp_path, FakeJob("missing", "missing", "accepted"))
    bench.publish()
    assert not bench.job.failed and bench.publisher.completed == 1 and slept == [1, 2]
    assert len(bench.job.completed) == 3 and bench.work.take_release_reason() is None


def test_captions_that_were_deleted_meanwhile_are_published_again(tmp_path, monkeypatch):
    sleep_as(monkeypatch, publisher, lambda seconds: None)
    bench = Bench(tmp_path, FakeJob("missing", "accepted"))
    assert read_captions(tmp_path, 3) is None
    bench.publish()
    assert read_captions(tmp_path, 3) == RECORD and not bench.job.failed


def test_files_that_nobody_sees_are_released(tmp_path, monkeypatch):
    sleep_as(monkeypatch, publisher, lambda seconds: None)
    bench = Bench(tmp_path, FakeJob(*["missing"] * 4))
    bench.publish()
    assert [result["reason"] for result in bench.job.failed] == ["disk"]
    assert "does not see files" in bench.job.failed[0]["error"]


def test_the_pause_of_a_full_disk_grows_until_a_write_goes_well(tmp_path):
    bench = Bench(tmp_path, FakeJob("accepted"))
    pauses = [bench.work.pause_for_disk() for _ in range(9)]
    assert pauses[:3] == [DISK_PAUSE_S, 2 * DISK_PAUSE_S, 4 * DISK_PAUSE_S]
    assert pauses[-1] == LONGEST_DISK_PAUSE_S
    bench.publish()
    assert bench.work.pause_for_disk() == DISK_PAUSE_S


# ---------------------------------------------------------------- before there is a client


@pytest.fixture
def slept(monkeypatch):
    """The pauses that were made, instead of making them."""
    pauses: list[float] = []
    for module in (process, restart):
        sleep_as(monkeypatch, module, pauses.append)
    return pauses


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_client_that_starts_on_a_full_disk_waits(tmp_path, monkeypatch, slept, caplog, number):
    """With growing pauses, and it says so; it does not take it for a disk without hard links."""
    link, tries = os.link, []

    def full(*names: object) -> None:
        tries.append(names)
        if len(tries) <= 8:
            raise OSError(number, os.strerror(number), str(tmp_path))
        link(*names)

    monkeypatch.setattr(os, "link", full)
    process.wait_for_disk(tmp_path)
    assert slept == [5, 10, 20, 40, 80, 160, 300, 300]
    assert disk.WORDS[number] in caplog.text and "trying again in 10 s" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_folder_that_another_node_has_just_made(tmp_path, monkeypatch, slept):
    """NFS may not show it at once; one that never comes is no reason to wait for ever."""
    folder = tmp_path / "birds"
    sleep_as(monkeypatch, process, lambda s: (slept.append(s), folder.mkdir()))
    process.wait_for_disk(folder)
    assert slept == [5]
    sleep_as(monkeypatch, process, slept.append)
    with pytest.raises(UserError, match="the same file system on both nodes"):
        process.wait_for_disk(tmp_path / "elsewhere")
    assert slept == [5, 5, 10, 20, 40]


def test_a_fresh_process_comes_after_a_growing_pause(monkeypatch, slept):
    """A device that fails at once must not make its node run through processes without a pause."""
    begun: list[list[str]] = []
    monkeypatch.setattr(restart.os, "execv", lambda path, words: begun.append(words))
    monkeypatch.setattr(restart.signal, "signal", lambda number, handler: None)
    monkeypatch.delenv(restart.RESTARTS, raising=False)
    monkeypatch.setattr(restart.os, "environ", dict(os.environ))
    for _ in range(9):
        restart.start_again("the device failed")
    assert slept == [5, 10, 20, 40, 80, 160, 320, 600, 600] and len(begun) == 9
    restart.start_again("the device failed", pause_s=7)
    assert slept[-1] == 7, "a quarantine says when"
