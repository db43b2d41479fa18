"""A `.failed` counts by what it says: a damaged one gives no image up."""

import json
import os
import socket

import pytest

from common.given_up import is_given_up
from generate.dataset import samples
from generate.dataset.captions import publish_captions
from generate.dataset.layout import path_of
from generate.dataset.scan import scan_folder
from generate.server.folders import index_done
from tests.fakes.sample_holder import INDEX, RECORD, put

REASON = {"reason": "image", "error": "a black image"}


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        folder = os.open(path.parent, os.O_RDONLY)  # its whole path may be too long
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def of_another(path):
    """A copy of a sound mark: it lies under a name that is not its own."""
    path.write_text(json.dumps({"prompt_index": 9, "augmentation_idx": 9, **REASON}))


DAMAGE = {
    "empty": lambda path: path.touch(),
    "torn": lambda path: path.write_text("["),
    "deep": lambda path: path.write_text("[" * 100_000),
    "no_object": lambda path: path.write_text("[1]"),
    "no_reason": lambda path: path.write_text("{}"),
    "huge": lambda path: (path.touch(), os.truncate(path, 1 << 30)),
    "of_another": of_another,
    "pipe": os.mkfifo,
    "socket": a_socket,
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "nowhere": lambda path: path.symlink_to("nothing"),
    "itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_mark_gives_no_image_up(tmp_path, damage):
    """Neither for who lists the folder nor for who looks at one name; an image beside it counts."""
    publish_captions(tmp_path, RECORD, "1-1")
    put(tmp_path, 0, "1-1")
    mark = path_of(tmp_path, INDEX, 1, ".failed")
    damage(mark)
    files = scan_folder(tmp_path, 12)[INDEX]
    assert (files.failed, files.damaged, files.done(2)) == (set(), {1}, False)
    assert not index_done(tmp_path, INDEX, 2) and not is_given_up(mark)
    put(tmp_path, 1, "1-1")
    assert scan_folder(tmp_path, 12)[INDEX].done(2) and index_done(tmp_path, INDEX, 2)


def test_a_sound_mark_gives_its_image_up(tmp_path):
    publish_captions(tmp_path, RECORD, "1-1")
    put(tmp_path, 0, "1-1")
    assert samples.publish_failed(tmp_path, INDEX, 1, "image", "a black image", "1-1")
    assert scan_folder(tmp_path, 12)[INDEX].done(2) and index_done(tmp_path, INDEX, 2)


def test_images_behind_damaged_marks_are_generated(start_run):
    """Each damaged mark is kept and named once; what was really given up stays so."""
    run, server = start_run(total=len(DAMAGE), images=2)
    assert run.start().wait(60) == 0, run.log()
    server.stop()
    folder = run.data / "000000"
    for number, damage in enumerate(DAMAGE.values()):
        samples.remove_sample(run.data, number, 1)
        damage(folder / f"{number}_1.failed")
    samples.remove_sample(run.data, 0, 0)
    samples.publish_failed(run.data, 0, 0, **REASON, lease="1-1")
    server.start()
    assert run.start().wait(60) == 0, run.log()
    run.check(given_up={"0_0"})
    kept = {path.name for path in folder.iterdir() if ".failed" in path.name}
    assert kept == {"0_0.failed", *(f"{n}_1.failed.damaged" for n in range(len(DAMAGE)))}
    for number in range(len(DAMAGE)):
        assert run.log().count(f" {number}_1.failed damaged") == 1, run.log()
    assert "Traceback" not in run.log() + server.log()
