"""The image is the commit: killed at any step, raced by any number of holders, on a full disk.

A sample is whole or absent, and never changes.
"""

import errno
import hashlib
import io
import json
import os
import secrets
import signal
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.command_line import UserError
from generate.dataset import samples
from generate.dataset.captions import images_wanted, publish_captions, read_captions
from generate.dataset.disk import probe_folder
from generate.dataset.scan import scan_folder
from tests.fakes import fake_pipeline
from tests.fakes.forking import Forking
from tests.fakes.sample_holder import INDEX, RECORD, TEXTS, holder, pixels, put


def check(folder):
    """Every sample is whole: the JSON says what the image says, and the image shows the text.

    Returns the stems that count.
    """
    for path in Path(folder).glob("*/*.json"):
        record, data = json.loads(path.read_bytes()), path.with_suffix(".jpg").read_bytes()
        assert record.pop("image_sha256") == hashlib.sha256(data).hexdigest()
        place = {key: record.pop(key) for key in samples.PLACE}
        assert set(place.values()) <= {None} or place["lease"]
        assert samples.read_comment(data) == record
        assert fake_pipeline.shows(Image.open(path.with_suffix(".jpg")), record["augmented_prompt"])
    return sorted(path.stem for path in Path(folder).glob("*/*.json"))


@pytest.fixture(scope="module")
def forked():
    with Forking("sample_holder") as forked:
        yield forked


def test_killed_at_every_step(tmp_path, forked):
    """SIGKILL before and after every call of the first holder.

    The second one finishes, and what was published stays byte for byte.
    """
    for step in range(1, 1000):
        folder = tmp_path / str(step)
        folder.mkdir()
        status = forked("killed_at", folder, step)
        assert status in (0, -signal.SIGKILL)
        before = {path: path.read_bytes() for path in folder.glob("*/[0-9]*")}
        done = check(folder)
        holder(folder, "1-2", seed=2)
        assert check(folder) == ["12345_0", "12345_1"]
        assert all(path.read_bytes() == data for path, data in before.items())
        assert not list(folder.glob("*/.*")), "drafts of the dead are removed by the next holder"
        files = scan_folder(folder, 12)[INDEX]
        assert files.done(2) and not files.done(3)
        if status == 0:
            assert done == ["12345_0", "12345_1"]
            break
    assert step > 40


def test_on_disk_before_it_has_a_name(tmp_path, forked):
    """A kill cannot show a missing fsync: the order of the calls can."""
    assert forked("told", tmp_path, tmp_path / "calls") == 0
    order = [line.split()[1] for line in (tmp_path / "calls").read_text().splitlines()]
    assert [name for name in order if name in ("open", "fsync", "link")] == [
        "open",
        "fsync",
        "link",
    ] * 2


def test_two_holders_race(tmp_path):
    """Two holders publish the same samples with different pixels at the same time.

    One of them wins, and image and JSON agree.
    """

    def work(lease, seed):
        for aug in (0, 1):
            put(tmp_path, aug, lease, seed)

    for _ in range(20):
        threads = [threading.Thread(target=work, args=(f"1-{n}", n)) for n in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert check(tmp_path) == ["12345_0", "12345_1"] and not list(tmp_path.glob("*/.*"))
        samples.remove_sample(tmp_path, INDEX, 0)
        samples.remove_sample(tmp_path, INDEX, 1)


def test_a_holder_that_wakes_up_harms_nothing(tmp_path, monkeypatch):
    """It was stopped between draft and link.

    Meanwhile the next holder has removed its draft, or published the sample.
    """
    real, woken = samples.publish, []

    def publish(draft, final):
        if not woken:
            woken.append(True)
            holder(tmp_path, "1-2", seed=2)
        return real(draft, final)

    monkeypatch.setattr(samples, "publish", publish)
    assert not put(tmp_path, 0, "1-1", seed=1)
    assert check(tmp_path) == ["12345_0", "12345_1"]
    assert json.loads((tmp_path / "000012" / "12345_0.json").read_text())["seed"] == 2


@pytest.mark.parametrize("damage", [None, b"", b"[]", b"{}"])
def test_the_json_of_an_image_that_somebody_deleted(tmp_path, damage):
    """Two held the index; the image of one was deleted, and the other publishes its own."""
    put(tmp_path, 0, "1-1", seed=1)
    image = tmp_path / "000012" / "12345_0.jpg"
    image.unlink()
    if damage is not None:
        image.with_suffix(".json").write_bytes(damage)
    assert put(tmp_path, 0, "1-2", seed=2)
    assert check(tmp_path) == ["12345_0"]
    assert json.loads(image.with_suffix(".json").read_bytes())["seed"] == 2


def test_a_link_whose_answer_was_lost(tmp_path, monkeypatch):
    """NFS repeats the call, and success looks like EEXIST."""
    link = os.link

    def retransmitted(a, b):
        link(a, b)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", retransmitted)
    assert put(tmp_path, 0, "1-1")
    assert (
        check(tmp_path) == ["12345_0"]
        and json.loads((tmp_path / "000012/12345_0.json").read_text())["lease"] == "1-1"
    )


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_full_disk(tmp_path, monkeypatch, code):
    fsync, left = os.fsync, [1]

    def full(fd):
        if not left[0]:
            raise OSError(code, os.strerror(code))
        left[0] -= 1
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)  # the image fits, its JSON does not
    with pytest.raises(OSError):
        put(tmp_path, 0, "1-1")
    with pytest.raises(OSError):
        put(tmp_path, 1, "1-1")
    assert check(tmp_path) == [] and not list(tmp_path.glob("*/.*"))
    monkeypatch.undo()
    assert samples.roll_forward(tmp_path, INDEX, 0, "1-2") and put(tmp_path, 1, "1-1")
    assert check(tmp_path) == ["12345_0", "12345_1"]
    assert json.loads((tmp_path / "000012/12345_0.json").read_text())["hostname"] is None, (
        "who rolls forward does not know the place"
    )


@pytest.mark.parametrize(
    "damage",
    [lambda d: d[: len(d) // 2], lambda d: d[:-100], lambda d: b"", lambda d: b"not a jpeg" + d],
)
def test_a_broken_image_is_not_rolled_forward(tmp_path, damage):
    put(tmp_path, 0, "1-1")
    path = tmp_path / "000012" / "12345_0.jpg"
    path.with_suffix(".json").unlink()
    path.write_bytes(damage(path.read_bytes()))
    assert (
        not samples.roll_forward(tmp_path, INDEX, 0, "1-2")
        and not path.with_suffix(".json").exists()
    )


def test_an_image_of_another_index_is_not_rolled_forward(tmp_path):
    put(tmp_path, 0, "1-1")
    other = tmp_path / "000012" / "12346_0.jpg"
    os.link(tmp_path / "000012" / "12345_0.jpg", other)
    assert not samples.roll_forward(tmp_path, 12346, 0, "1-2")


def test_texts_stand(tmp_path):
    assert read_captions(tmp_path, INDEX) is None
    assert publish_captions(tmp_path, RECORD, "1-1") == RECORD
    other = RECORD | {"texts": [TEXTS[0], TEXTS[0] | {"text": "another bird"}]}
    assert publish_captions(tmp_path, other, "1-2") == RECORD, "the first one stands"
    more = RECORD | {
        "texts": other["texts"] + [TEXTS[0] | {"text": "a third bird"}],
        "short": {"missing": 2, "reason": "llm"},
    }
    extended = publish_captions(tmp_path, more, "1-3")
    assert extended["texts"] == TEXTS + more["texts"][2:], (
        "an extension begins with the texts that stand"
    )
    assert read_captions(tmp_path, INDEX) == extended and images_wanted(extended) == 5
    assert sorted(p.name for p in tmp_path.glob("*/*")) == ["12345.prompts", "12345.prompts2"]
    files = scan_folder(tmp_path, 12)[INDEX]
    assert (files.captions, files.short) == (3, {"missing": 2, "reason": "llm"})


def test_done_is_every_text_drawn_or_given_up(tmp_path):
    publish_captions(tmp_path, RECORD, "1-1")
    put(tmp_path, 0, "1-1")
    assert not scan_folder(tmp_path, 12)[INDEX].done(2)
    samples.publish_failed(tmp_path, INDEX, 1, "image", "a black image", "1-1")
    assert scan_folder(tmp_path, 12)[INDEX].done(2)
    assert json.loads((tmp_path / "000012/12345_1.failed").read_text())["reason"] == "image"
    (tmp_path / "000012/12345_0.jpg").unlink()
    assert not scan_folder(tmp_path, 12)[INDEX].done(2)
    assert scan_folder(tmp_path, 12, only={1}) == {} and scan_folder(tmp_path, 99) == {}


@settings(max_examples=80, deadline=None)
@given(
    text=st.text(st.characters(), max_size=200),
    extra=st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(st.text(max_size=5), max_size=3),
)
def test_metadata_round_trip(text, extra, tmp_path_factory):
    """Any text, also with lone surrogates.

    JSON of one line of ASCII that says what the image says.
    """
    folder = tmp_path_factory.mktemp("s")
    metadata = {"prompt_index": 5, "augmentation_idx": 0, "augmented_prompt": text, "extra": extra}
    assert samples.publish_sample(folder, pixels("x"), metadata, samples.Place("1-1"), 80)
    raw = (folder / "000000" / "5_0.json").read_bytes()
    record = json.loads(raw.decode("ascii"))
    assert raw.count(b"\n") == 1 and record["extra"] == extra
    assert record["augmented_prompt"] == text.encode("utf-8", "replace").decode()
    assert (
        samples.read_comment((folder / "000000" / "5_0.jpg").read_bytes())["augmented_prompt"]
        == record["augmented_prompt"]
    )


def test_an_image_does_not_tell_in_which_folder_its_model_lay(tmp_path):
    """It is published byte for byte; --redo reads the JSON."""
    lora = ["org/fast@1:0.8", "/home/alice/l.safetensors@2:1.0"]
    made_by = {"model_name": "/home/alice/own/", "lora": lora}
    metadata = {"prompt_index": 5, "augmentation_idx": 0, "augmented_prompt": "x"} | made_by
    assert samples.publish_sample(tmp_path, pixels("x"), metadata, samples.Place("1-1"), 80)
    data = (tmp_path / "000000" / "5_0.jpg").read_bytes()
    assert b"alice" not in data
    told = {"model_name": "own", "lora": ["org/fast@1:0.8", "l.safetensors@2:1.0"]}
    assert samples.read_comment(data) == metadata | told
    record = json.loads((tmp_path / "000000" / "5_0.json").read_bytes())
    assert {name: record[name] for name in made_by} == made_by


def test_an_image_says_that_a_model_made_it():
    """As IPTC has it, beside the comment that stays what it was."""
    data = samples.encode(pixels("a red circle"), b'{"a": 1}', 90)
    image = Image.open(io.BytesIO(data))
    assert image.info["comment"] == b'{"a": 1}'
    file = io.BytesIO()
    pixels_of = Image.fromarray(pixels("a red circle"))
    pixels_of.save(file, "JPEG", quality=90, comment=b'{"a": 1}', xmp=samples.XMP)
    assert data == file.getvalue(), "the very bytes that Pillow makes of image and comment"
    described = ElementTree.fromstring(image.info["xmp"])[0][0]
    name = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    kind = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert described.attrib == {name: kind}


def test_what_does_not_fit_a_comment_is_refused(tmp_path):
    with pytest.raises(ValueError, match="65,533"):
        put(tmp_path, 0, "1-1", text="a" * 70000)
    with pytest.raises(ValueError):
        samples.publish_sample(
            tmp_path,
            pixels("x"),
            {"prompt_index": 1, "augmentation_idx": 0, "guidance": float("nan")},
            samples.Place("1-1"),
        )
    assert not list(tmp_path.glob("*/*"))


def test_what_others_put_under_the_name_of_a_probe_is_not_written_to(tmp_path, monkeypatch):
    """A folder that a group may write; the name of before was that of the process."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = tmp_path / "data"
    folder.mkdir()
    for name in (f".probe.{os.uname().nodename}.{os.getpid()}.tmp", ".probe.known.tmp"):
        (folder / name).symlink_to(precious)
    probe_folder(folder)
    monkeypatch.setattr(secrets, "token_hex", lambda size: "known")
    with pytest.raises(UserError, match="File exists"):
        probe_folder(folder)
    assert precious.read_text() == "mine"


def test_a_file_system_without_links_is_refused_by_name(tmp_path, monkeypatch):
    probe_folder(tmp_path)
    assert not list(tmp_path.iterdir())

    def no_links(a, b):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(UserError, match="Operation not permitted"):
        probe_folder(tmp_path)
    monkeypatch.setattr(os, "link", lambda a, b: Path(b).write_bytes(Path(a).read_bytes()))
    with pytest.raises(UserError, match="second link"):
        probe_folder(tmp_path)
