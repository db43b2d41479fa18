"""What people do to the folders of data sets while a server runs, or between two starts.

The server never answers 500 and always starts; each damage concerns its own data set alone.
"""

import os
import shutil
import time

import pytest
import yaml

from common.untrusted import DEFINITION_BYTES
from generate.client.job_client import AllDone, Wait
from generate.dataset.definition import read_definition
from generate.dataset.layout import captions_path, path_of
from generate.launch.progress import troubles
from generate.launch.status import fetch
from generate.protocol.connection import Refused
from tests.fakes.running_server import asked, finish, granted, order, until

DAMAGED = [
    *('x: !!timestamp "99"', "", "{", "[1, 2]"),
    "total: many\nimages_per_prompt: 2\n",
    "total: 1000000000000\nimages_per_prompt: 2\n",
    "total: 20\nimages_per_prompt: 2\nmodel: [a, b]\n",
    "[" * 5000,
    "x: 2026-13-45\n",
    "\x00",
]


def folder_of(server, name="storm"):
    return server.root / "generated_images" / name


def work_to_the_end(client, images=2):
    """Finish all that is left; the indices."""
    seen = []
    while not isinstance(answer := client.get_indices(5), AllDone):
        if isinstance(answer, Wait):
            time.sleep(0.05)
            continue
        seen += answer.indices
        finish(client, answer, images)
    return seen


def remove(server):
    """Delete the folder, once the server has written the mark into it."""
    until((folder_of(server) / "000000" / "COMPLETE").exists, "the mark")
    shutil.rmtree(folder_of(server))


def no_trace(server):
    log = server.log()
    assert "Traceback" not in log and "internal error" not in log, log[-3000:]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"texts": 3}', b"[" * 100_000])
def test_torn_captions_of_a_done_prompt_stop_nothing(start, damage):
    """V3: that prompt is open again after a start; other data sets and the check go on."""
    server = start()
    client = server.client(total=20)
    work_to_the_end(client)
    server.stop()
    captions_path(folder_of(server), 7).write_bytes(damage)
    server.start()
    other = server.client(total=5, name="other")
    assert sorted(work_to_the_end(other)) == list(range(5))
    until(lambda: server.dataset()["done"] == 19, "prompt 7 to be open", 20)
    assert granted(client).indices == [7]
    no_trace(server)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_that_cannot_be_read_holds_up_no_other(start, kind, tmp_path):
    """V3, V4: its sub-folder is a file, closed, or a link that no table would follow."""
    server = start()
    client = server.client(total=2500)
    finish(client, granted(client, 20))
    other = server.client(total=5, name="a first one")
    work_to_the_end(other)
    server.stop()
    block = folder_of(server) / "000001"
    shutil.rmtree(block, ignore_errors=True)
    if kind == "file":
        block.write_text("not a folder")
    else:
        block.symlink_to(tmp_path)
    server.start()
    until(lambda: "000001 cannot be compared" in server.log(), "the error", 20)
    said = until(lambda: troubles(fetch(server.root)), "the terminal's lines", 20)
    assert "000001 cannot be compared" in said[0] and "wait until that is put right" in said[1]
    assert isinstance(work_and_wait(other), AllDone)
    grant = granted(client)
    assert all(index // 1000 != 1 for index in grant.indices)
    block.unlink()
    seen = set()
    end = time.monotonic() + 60
    while not any(index // 1000 == 1 for index in seen):
        assert time.monotonic() < end
        seen |= set(granted(client, 500).indices)
        client = server.client(total=2500)
    assert server.log().count("000001 cannot be compared") == 1
    no_trace(server)


def work_and_wait(client):
    return until(lambda: (lambda a: None if isinstance(a, Wait) else a)(client.get_indices(1)), "")


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_definition_is_written_again_from_the_ledger(start, damage):
    server = start()
    client = server.client()
    finish(client, granted(client))
    server.stop()
    path = folder_of(server) / "dataset.yaml"
    whole = path.read_text()
    path.write_text(damage)
    server.start()
    assert granted(client).indices and server.dataset()["done"] == 5
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(whole)
    assert path.with_name("dataset.yaml.damaged").exists()
    path.unlink()  # while it runs
    os.mkfifo(path)
    until(lambda: path.is_file() and yaml.safe_load(path.read_text()), "the definition", 20)
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(whole)
    no_trace(server)


def test_a_definition_of_many_values_is_not_parsed(tmp_path):
    """PyYAML takes a minute for 1 MB of a list, and the server waits for it."""
    path = tmp_path / "dataset.yaml"
    text = "total: 5\nimages_per_prompt: 2\nnegative_prompt: " + "雪" * 4096
    path.write_text(text)
    assert read_definition(path)["total"] == 5
    path.write_text(f"{text}\n#{'x' * DEFINITION_BYTES}")
    with pytest.raises(ValueError, match="is damaged: it is larger than"):
        read_definition(path)


def test_a_damaged_definition_that_nobody_knows_is_one_line(start):
    """The ledger is lost as well: that data set is refused by name, the others go on."""
    server = start()
    client = server.client()
    granted(client)
    server.stop()
    shutil.rmtree(server.root / ".server")
    (folder_of(server) / "dataset.yaml").write_text("total: [")
    server.start()
    with pytest.raises(Refused, match=r"storm/dataset.yaml is damaged"):
        client.get_indices(1)
    assert granted(server.client(name="other")).indices
    assert "storm is left out" in server.log()
    no_trace(server)


def test_a_total_that_was_too_large_and_set_right_again(start):
    server = start()
    client = server.client()
    finish(client, granted(client))
    path = folder_of(server) / "dataset.yaml"
    whole = path.read_text()
    for text in (whole.replace("total: 20", "total: 2000"), whole):
        server.stop()
        path.write_text(text)
        server.start()
        until(lambda: server.dataset()["sum_ok"], "the status")
    assert server.dataset()["total"] == 20
    until(lambda: server.dataset()["done"] == 5, "what is done, from the folder", 20)
    assert len(work_to_the_end(client)) == 15
    no_trace(server)


def test_a_folder_deleted_in_mid_run_heals(start):
    """V14: dataset.yaml comes back at once, with its identity, and everything is made again."""
    server = start(ttl_s=3)
    client = server.client()
    finish(client, granted(client))
    held = granted(client)
    before = yaml.safe_load((folder_of(server) / "dataset.yaml").read_text())
    shutil.rmtree(folder_of(server))
    finish(client, held)
    seen = work_to_the_end(client)
    assert yaml.safe_load((folder_of(server) / "dataset.yaml").read_text()) == before
    assert set(seen) | set(held.indices) == set(range(20)) and server.dataset()["done"] == 20
    no_trace(server)


def test_a_name_used_again_with_another_definition_is_a_new_data_set(start):
    """V4: the folder is deleted, and the same name comes with other sizes, in mid-run."""
    server = start()
    client = server.client(total=8)
    work_to_the_end(client)
    remove(server)
    smaller = server.client(total=4)
    assert sorted(work_to_the_end(smaller)) == list(range(4))
    assert server.dataset()["total"] == 4 and "it is a new data set" in server.log()
    remove(server)
    assert sorted(work_to_the_end(smaller)) == list(range(4)), "not done: the folder was empty"
    no_trace(server)


def test_a_replaced_folder_is_recognised(start):
    """Another data set of that name is moved there while the server runs."""
    server = start()
    client = server.client(total=8)
    work_to_the_end(client)
    until((folder_of(server) / "000000" / "COMPLETE").exists, "the mark")
    shutil.copytree(folder_of(server), server.root / "kept")
    for path in (server.root / "kept").glob("0*/[0-3]*"):
        path.unlink()
    text = (server.root / "kept" / "dataset.yaml").read_text()
    identity = yaml.safe_load(text)["dataset_id"]
    (server.root / "kept" / "dataset.yaml").write_text(text.replace(identity, "f" * 16))
    shutil.rmtree(folder_of(server))
    (server.root / "kept").rename(folder_of(server))
    until(lambda: server.dataset()["done"] == 4, "the folder to be read", 30)
    assert "its folder is another one" in server.log()
    assert sorted(work_to_the_end(client)) == [0, 1, 2, 3]
    no_trace(server)


def test_a_finished_set_that_was_moved_away_and_a_copy_hold_up_no_end(start):
    """V10: --stop_when_done ends; the copy is named and not taken in."""
    server = start("--stop_when_done", IMAGE_SERVER_STOP_AFTER_S="4")
    client = server.client(total=4)
    work_to_the_end(client)
    until((folder_of(server) / "000000" / "COMPLETE").exists, "the mark")
    shutil.copytree(folder_of(server), folder_of(server, "storm_backup"))
    shutil.copytree(folder_of(server), folder_of(server, "elsewhere"))
    path_of(folder_of(server, "storm_backup"), 1, 1, ".jpg").unlink()
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    server.start()
    assert "storm_backup is a copy of storm" in server.log()
    until(lambda: server.dataset() and server.dataset()["done"] == 4, "the rebuild", 20)
    assert {d["name"] for d in server.status()["datasets"]} == {"storm"}
    shutil.rmtree(folder_of(server))
    until(lambda: server.dataset()["detached"], "the folder's absence to be seen", 20)
    assert server.status()["weather"]["state"] == "finished"
    assert server.process.wait(30) == 0 and "its folder is gone" in server.log()
    no_trace(server)


def test_a_folder_that_left_and_came_back(start):
    server = start()
    client = server.client(total=8)
    work_to_the_end(client)
    folder_of(server).rename(server.root / "away")
    until(lambda: server.dataset()["detached"], "the folder's absence to be seen", 20)
    assert server.dataset()["done"] == 8, "nothing was opened again"
    path_of(server.root / "away", 3, 1, ".jpg").unlink()
    (server.root / "away").rename(folder_of(server))
    until(lambda: server.dataset()["done"] == 7, "the folder to be compared", 20)
    assert not server.dataset()["detached"]
    assert work_to_the_end(client) == [3]
    no_trace(server)


def test_forget(start):
    server = start()
    client = server.client(total=4)
    grant = granted(client)
    refused = order(server, "--forget", "storm")
    assert refused.returncode == 1 and "leased" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    client.release(grant.lease)
    other = server.client(total=3, name="other")
    work_to_the_end(other)
    # not the server's draft of COMPLETE, which may be there for a moment
    files = sorted(folder_of(server, "other").rglob("[!.]*"))
    assert order(server, "--forget", "other").returncode == 0
    assert server.dataset("other") is None and server.dataset("storm")["sum_ok"]
    assert sorted(folder_of(server, "other").rglob("[!.]*")) == files
    unknown = order(server, "--forget", "other")
    assert unknown.returncode == 1 and "storm" in unknown.stderr
    server.stop()
    server.start()
    assert server.dataset("other") is None, "a start does not bring it back"
    assert work_to_the_end(other) == [], "a client that asks does, with what lies there"
    assert server.dataset("other")["done"] == 3
    no_trace(server)


def test_all_done_is_never_said_by_a_mark(start):
    """V6: the ledger is lost and files are missing from a folder that is marked COMPLETE."""
    server = start()
    client = server.client(total=20)
    work_to_the_end(client)
    mark = folder_of(server) / "000000" / "COMPLETE"
    until(mark.exists, "the mark")
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    for index in (3, 4, 11):
        path_of(folder_of(server), index, 1, ".jpg").unlink()
    server.start()
    assert sorted(work_to_the_end(client)) == [3, 4, 11]
    assert server.dataset()["done"] == 20


def test_a_mark_is_not_believed_at_a_start(start):
    """The ledger is whole: every folder's names are compared, though it is marked COMPLETE."""
    server = start()
    work_to_the_end(server.client(total=20))
    until((folder_of(server) / "000000" / "COMPLETE").exists, "the mark")
    server.stop()
    path_of(folder_of(server), 3, 1, ".jpg").unlink()
    server.start()
    until(lambda: server.dataset()["done"] == 19, "the comparison", 20)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"less": {"x": [1, 2]}}', '{"less": 3}'])
def test_a_damaged_mark_is_no_mark(start, damage):
    server = start()
    client = server.client(total=20)
    work_to_the_end(client)
    server.kill()
    for path in (server.root / ".server").glob("ledger*"):
        path.unlink()
    (folder_of(server) / "000000" / "COMPLETE").write_text(damage)
    server.start()
    until(lambda: server.dataset() and server.dataset()["done"] == 20, "the rebuild", 20)
    no_trace(server)


def test_a_client_of_an_older_definition_is_told_of_the_extension(start):
    """V14: what it holds waits for further images; asking for more it hears what stands now."""
    server = start()
    old = server.client(total=6)
    held = granted(old)
    wider = server.client(total=6, images=3)
    wider.definition |= {"extend": True, "prefix_total": 6, "prefix_sha256": "0" * 64}
    assert not isinstance(wider.get_indices(1), AllDone)
    assert set(finish(old, held).values()) == {"stale"}, "it waits for its further images"
    status, answer = server.post("/get_indices", asked(server, total=6))
    assert status == 409 and answer["extended"]["images_per_prompt"] == 3
    with pytest.raises(Refused, match="extended: 6 prompts, 3 images each"):
        old.get_indices(1)
    work_to_the_end(wider, images=3)
    assert server.dataset()["done"] == 6
    other = server.client(total=6, images=3)
    other.definition |= {"model": "another"}
    with pytest.raises(Refused, match="model"):
        other.get_indices(1)
    no_trace(server)
