"""12345.samples holds the very bytes of the JSONs, whoever dies, sleeps or is raced."""

import errno
import json
import os
import signal
from types import SimpleNamespace

import pytest

from generate.client.feeder import Feeder
from generate.client.work import ClientSettings
from generate.dataset import collected
from generate.dataset.captions import publish_captions
from generate.dataset.collected import publish_collected, remove_collected
from generate.dataset.layout import collected_path, path_of
from generate.dataset.samples import publish_failed, remove_sample
from generate.dataset.scan import scan_folder
from generate.protocol.answers import Grant
from generate.server.folders import Folders
from tests.fakes.forking import Forking
from tests.fakes.sample_holder import INDEX, RECORD, holder, put

SEEDS = SimpleNamespace(seed=lambda *_: 0)  # what a feeder asks of the recipes


def jsons(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*/*.json")))


def stands(folder):
    return collected_path(folder, INDEX).read_bytes()


def test_the_bytes_of_all_jsons_and_a_given_up_one_is_left_out(tmp_path):
    publish_failed(tmp_path, INDEX, 1, "prompt", "x", "1-1")
    put(tmp_path, 0, "1-1")
    assert not publish_collected(tmp_path, INDEX, 2, "1-1"), "one JSON: nothing to gain"
    put(tmp_path, 2, "1-1", text="a bird")
    assert publish_collected(tmp_path, INDEX, 3, "1-1")
    assert stands(tmp_path) == jsons(tmp_path) and stands(tmp_path).count(b"\n") == 2
    assert publish_collected(tmp_path, INDEX, 3, "1-2") and not list(tmp_path.glob("*/.*"))
    assert scan_folder(tmp_path, 12)[INDEX].collected


def test_a_json_of_several_lines_is_not_collected(tmp_path):
    holder(tmp_path, "1-1", 1)
    remove_collected(tmp_path, INDEX)
    path = path_of(tmp_path, INDEX, 1, ".json")
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    assert not publish_collected(tmp_path, INDEX, 2, "1-1")
    assert not collected_path(tmp_path, INDEX).exists()


def test_killed_at_every_step(tmp_path):
    """What stands is whole at any instant, and the next holder's is that of the JSONs."""
    with Forking("sample_holder") as forked:
        for step in range(1, 1000):
            folder = tmp_path / str(step)
            folder.mkdir()
            status = forked("killed_at", folder, step)
            assert status in (0, -signal.SIGKILL)
            if collected_path(folder, INDEX).exists():
                assert stands(folder) == jsons(folder)
            holder(folder, "1-2", seed=2)
            assert stands(folder) == jsons(folder) and not list(folder.glob("*/.*"))
            if status == 0:
                return
    raise AssertionError("it never lived")


def test_a_holder_that_slept_before_its_link(tmp_path, monkeypatch):
    """Meanwhile a sample was made again: what stands in the end is of the newer JSON."""
    real = collected.publish
    holder(tmp_path, "1-1", 1)
    remove_collected(tmp_path, INDEX)
    slept = []

    def publish(temporary, final):
        if not slept:
            slept.append(temporary.read_bytes())
            remove_sample(tmp_path, INDEX, 1)
            put(tmp_path, 1, "1-2", seed=9)
            result = real(temporary, final)  # it wakes up before the new holder is through
            assert publish_collected(tmp_path, INDEX, 2, "1-2")
            return result
        return real(temporary, final)

    monkeypatch.setattr(collected, "publish", publish)
    publish_collected(tmp_path, INDEX, 2, "1-1")
    assert stands(tmp_path) == jsons(tmp_path) != slept[0]


def test_a_new_lease_and_a_retry_take_it_away_first(tmp_path, monkeypatch):
    holder(tmp_path, "1-1", 1)
    assert collected_path(tmp_path, INDEX).exists()

    class Work:
        def add_lease(self, lease, indices, canary):
            assert not collected_path(tmp_path, INDEX).exists()
            self.leased = lease

    items = {INDEX: {"prompt": "a bird", "source": []}}
    feeder = Feeder(Work(), None, None, items, ClientSettings(tmp_path, 2, SEEDS))
    feeder._take(Grant("1-2", [INDEX], 60))
    assert feeder.work.leased == "1-2"
    holder(tmp_path, "1-3", 1)
    rows = [[{"index": INDEX}], []]
    monkeypatch.setattr(Folders, "_failed", lambda self, name, offset: rows.pop(0))
    monkeypatch.setattr(Folders, "path", lambda self, name: tmp_path)

    class Ledger:
        def read(self, *args):
            assert not collected_path(tmp_path, INDEX).exists()
            return 1

    assert Folders(tmp_path, Ledger()).retry_failed("x") == (1, 0)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, code):
    publish_captions(tmp_path, RECORD, "1-1")
    put(tmp_path, 0, "1-1")
    put(tmp_path, 1, "1-1")

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(code)):
        publish_collected(tmp_path, INDEX, 2, "1-1")
    assert not list(tmp_path.glob("*/.*")) and not collected_path(tmp_path, INDEX).exists()
