"""A folder of a colleague: it takes nothing from elsewhere, never hangs, runs no program.

And it ends no conversion: what is hostile in it costs its own samples, each named.
"""

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from common.sample_reader import iterate
from tests.postprocess_dataset.conftest import called


def rejects(table):
    lines = Path(f"{table}.rejects.jsonl").read_text().splitlines()
    return {line.get("json") or line["image"]: line["reason"] for line in map(json.loads, lines)}


def changed(place, **changes):
    """Other values in a sample's JSON."""
    path = place.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def private(folder, tmp_path):
    """A photograph of mine that lies elsewhere."""
    path = tmp_path / "home" / "photo.jpg"
    path.parent.mkdir()
    path.write_bytes(folder("else").image(1, 1, "private"))
    return path


def test_a_sub_folder_that_is_a_link_is_left_out_and_counted(folder, to_parquet, tmp_path):
    data = folder().fill([1, 1001], 2)
    (data.path / "000001").rename(tmp_path / "elsewhere")
    (data.path / "000001").symlink_to(tmp_path / "elsewhere")
    (data.path / "latest").symlink_to(tmp_path / "elsewhere")
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and "2 rows; 1 rejected" in ended.out, ended.out
    assert "HPDv2/000001: folder cannot be read: a link to a folder is not followed" in ended.err
    assert "HPDv2/latest: a link to a folder is not followed" in ended.err
    ended = called("verify_dataset", (data.path, "--report", tmp_path / "v.json"))
    assert "HPDv2/000001: is a link, which is not followed" in ended.out


@pytest.mark.parametrize("odd", ["file", "pipe", "nowhere", "itself", "device"])
def test_what_is_named_as_a_sub_folder_and_is_none_is_counted(folder, to_parquet, tmp_path, odd):
    """As where a link led to a disk that is gone: its samples are not left out in silence."""
    data = folder().fill([1, 1001], 2)
    place = data.path / "000001"
    place.rename(tmp_path / "elsewhere")
    make = {"file": place.touch, "pipe": lambda: os.mkfifo(place)}
    targets = {"nowhere": "/nowhere/at/all", "itself": place.name, "device": "/dev/zero"}
    make.get(odd, lambda: place.symlink_to(targets[odd]))()
    words = (data.path, tmp_path / "t.parquet")
    ended = to_parquet(*words)
    assert ended.status == 3 and "2 rows; 1 rejected" in ended.out, ended.out
    assert "HPDv2/000001: folder cannot be read: it is no folder, or a link to none" in ended.err
    old = time.time() - 1000
    for path in (data.path / "000000", data.path):
        os.utime(path, (old, old))
    for _ in range(2):  # the data set's own folder is unchanged at the second one
        assert to_parquet(*words, "--update").status == 3
    words = (data.path, tmp_path / "parts.parquet")
    parts = [to_parquet(*words, "--part", f"{part}/2") for part in range(2)]
    assert [part.status for part in parts] == [0, 3]
    ended = to_parquet(*words, "--part", "0/2", "--finish")
    assert ended.status == 3 and "1 rejected" in ended.out, ended.out
    problems = []
    assert len(list(iterate(data.path, problems.append))) == 2
    assert len(problems) == 1 and "HPDv2/000001: is no folder" in problems[0]


def test_a_folder_that_was_closed_since_is_named_by_update(
    folder, to_parquet, tmp_path, monkeypatch
):
    """Its rows stay; its rejects cannot be looked at again, and are not forgotten in silence."""
    data = folder().fill([1], 2)
    (data.path / "000000/5_0.json").write_text("torn")
    old = time.time() - 1000
    for path in (data.path / "000000", data.path):
        os.utime(path, (old, old))
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 3
    ended = to_parquet(data.path, tmp_path / "t.parquet", "--update")
    assert ended.status == 3 and "2 folders unchanged" in ended.out
    real = os.access
    closed = str(data.path / "000000")
    with monkeypatch.context() as patched:  # root may read all
        patched.setattr(os, "access", lambda path, mode: path != closed and real(path, mode))
        ended = to_parquet(data.path, tmp_path / "t.parquet", "--update")
    assert ended.status == 3 and "000000: folder cannot be read: Permission denied" in ended.err
    ended = to_parquet(data.path, tmp_path / "t.parquet", "--update")
    assert ended.status == 3 and "1 rejected" in ended.out and "2 rows" in ended.out


@pytest.mark.parametrize("depth", [300, 1000, 100_000])
@pytest.mark.parametrize("name", ["mood", "source", "height"])
def test_deep_json(folder, to_parquet, rows_of, tmp_path, depth, name):
    data = folder().fill([1, 2], 1)
    content = data.place(1, 0).with_suffix(".json").read_text()
    content = content.rstrip()[:-1] + f', "{name}": {"[" * depth}{"]" * depth}}}'
    data.place(1, 0).with_suffix(".json").write_text(content)
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and list(rejects(tmp_path / "t.parquet")) == ["HPDv2/000000/1_0.json"]
    assert [row["prompt_index"] for row in rows_of(tmp_path / "t.parquet")] == [2]


@pytest.mark.parametrize("level", ["exists", "size", "sha256", "decode"])
def test_an_image_from_elsewhere(folder, to_parquet, rows_of, private, tmp_path, level):
    data = folder().fill([1, 2, 3, 4], 1)
    for prompt in (1, 2, 3):
        data.place(prompt, 0).with_suffix(".jpg").unlink()
        changed(data.place(prompt, 0), image_sha256=None)
    changed(data.place(1, 0), image_path=str(private))
    changed(data.place(2, 0), image_path="../../home/photo.jpg")
    data.place(3, 0).with_suffix(".jpg").symlink_to(private)
    ended = to_parquet(data.path, tmp_path / "t.parquet", "--verify", level)
    found = rejects(tmp_path / "t.parquet")
    assert ended.status == 3 and set(found) == {f"HPDv2/000000/{n}_0.json" for n in (1, 2, 3)}
    assert "lies outside" in found["HPDv2/000000/1_0.json"]
    assert "lies outside" in found["HPDv2/000000/3_0.json"]
    assert [row["prompt_index"] for row in rows_of(tmp_path / "t.parquet")] == [4]
    args = "--verify", level, "--rebuild", "--image_dir", private.parent
    to_parquet(data.path, tmp_path / "t.parquet", *args)
    assert [row["prompt_index"] for row in rows_of(tmp_path / "t.parquet")] == [1, 2, 3, 4]


def test_a_link_within_the_folder(folder, to_parquet, to_tars, tar_members, tmp_path):
    data = folder().fill([1, 2], 1)
    image = data.place(1, 0).with_suffix(".jpg")
    os.rename(image, data.path / "stored.jpg")
    image.symlink_to("../stored.jpg")
    record = data.place(2, 0).with_suffix(".json")
    (data.path / "kept").mkdir()
    os.rename(record, data.path / "kept/record.txt")
    record.symlink_to("../kept/record.txt")
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    assert to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars").status == 0
    assert len(tar_members(tmp_path / "tars")) == 6


def test_a_json_from_elsewhere(folder, to_parquet, tmp_path):
    data = folder().fill([1, 2], 1)
    record = data.place(1, 0).with_suffix(".json")
    os.rename(record, tmp_path / "mine.json")
    record.symlink_to(tmp_path / "mine.json")
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 3
    assert "lies outside" in rejects(tmp_path / "t.parquet")["HPDv2/000000/1_0.json"]


def harm(path, how):
    path.unlink(missing_ok=True)
    if how == "pipe":
        os.mkfifo(path)
    elif how == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = os.getcwd()
            os.chdir(path.parent)  # its path may be 108 bytes long
            server.bind(path.name)
            os.chdir(here)
    elif how == "directory":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "sparse":
        with open(path, "wb") as file:
            file.write(b"{" if path.suffix == ".json" else b"\xff\xd8")
            file.truncate(3 << 30)
    else:
        path.symlink_to(how)


HOW = ["pipe", "socket", "directory", "loop", "sparse", "/dev/full", "/dev/tty", "/proc/kmsg"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("suffix", [".json", ".jpg"])
def test_what_is_no_file(folder, process, rows_of, tmp_path, how, suffix):
    data = folder().fill([1, 2], 1)
    harm(data.place(1, 0).with_suffix(suffix), how)
    for level in ("size", "decode"):
        table = tmp_path / f"{level}.parquet"
        ended = process("convert_json_to_parquet", data.path, table, "--verify", level)
        if (suffix, how, level) == (".jpg", "sparse", "size"):
            assert ended.returncode == 0
            continue
        assert ended.returncode == 3, ended.stderr
        assert list(rejects(table)) == ["HPDv2/000000/1_0.json"]
        assert [row["prompt_index"] for row in rows_of(table)] == [2]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", HOW)
def test_images_that_become_no_files_before_the_tars(folder, to_parquet, process, tmp_path, how):
    data = folder().fill([1, 2], 1)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    harm(data.place(1, 0).with_suffix(".jpg"), how)
    args = ["--parquet_file", tmp_path / "t.parquet", "--base_dir", tmp_path]
    ended = process("convert_parquet_to_wds", *args, "--output_dir", tmp_path / "tars")
    assert ended.returncode == 3 and "1 images" in ended.stdout, ended.stderr
    assert "left out HPDv2/000000/1_0: image " in ended.stderr


def test_a_link_made_after_the_table(folder, to_parquet, to_tars, tar_members, private, tmp_path):
    data = folder("flat", published=True).fill([1, 2], 1)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    data.place(1, 0).with_suffix(".jpg").unlink()
    data.place(1, 0).with_suffix(".jpg").symlink_to(private)
    ended = to_tars(tmp_path / "t.parquet", data.path, tmp_path / "tars")
    assert ended.status == 3 and "flat/1_0: image is not taken: it lies outside" in ended.err
    assert not any(name.startswith("flat/1_0") for name in tar_members(tmp_path / "tars"))
    args = "--image_dir", private.parent
    assert to_tars(tmp_path / "t.parquet", data.path, tmp_path / "tars", *args).status == 0
    assert tar_members(tmp_path / "tars")["flat/1_0.jpg"] == private.read_bytes()


def test_no_program_runs(folder, process, tmp_path):
    """An EPS named .jpg would make Pillow start `gs`, which here leaves a mark."""
    from PIL import Image

    data = folder("flat", published=True).fill([1, 2], 1)
    Image.new("RGB", (50, 50)).save(data.place(1, 0).with_suffix(".eps"))
    os.rename(data.place(1, 0).with_suffix(".eps"), data.place(1, 0).with_suffix(".jpg"))
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    gs.chmod(0o755)
    env = {"PATH": f"{gs.parent}:{os.environ['PATH']}"}
    table = tmp_path / "t.parquet"
    ended = process("convert_json_to_parquet", data.path, table, "--verify", "decode", env=env)
    assert ended.returncode == 3 and "no JPEG" in rejects(table)["flat/1_0.json"]
    content = b"\xff\xd8" + data.place(1, 0).with_suffix(".jpg").read_bytes() + b"\xff\xd9"
    data.place(1, 0).with_suffix(".jpg").write_bytes(content)
    args = "--verify", "decode", "--rebuild"
    ended = process("convert_json_to_parquet", data.path, table, *args, env=env)
    assert ended.returncode == 3 and "does not decode" in rejects(table)["flat/1_0.json"]
    assert not (tmp_path / "ran").exists()


def test_no_other_kind_of_image(folder, to_parquet, to_tars, tmp_path):
    """Its JSON may vouch for its bytes, but a .jpg is a JPEG."""
    import hashlib

    data = folder().fill([1, 2], 1)
    secret = b"-----BEGIN OPENSSH PRIVATE KEY-----"
    data.place(1, 0).with_suffix(".jpg").write_bytes(secret)
    changed(data.place(1, 0), image_sha256=hashlib.sha256(secret).hexdigest())
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    ended = to_tars(tmp_path / "t.parquet", tmp_path, tmp_path / "tars")
    assert ended.status == 3 and "1_0: image is truncated or no JPEG" in ended.err


def test_names_do_not_speak_to_the_terminal(folder, to_parquet, tmp_path):
    data = folder("flat", published=True).fill([1, 2], 1)
    name = "\x1b]0;owned\x07\u202egpj"
    for suffix in (".jpg", ".json"):
        shutil.copy(data.place(1, 0).with_suffix(suffix), data.path / f"{name}{suffix}")
    (data.path / f"{name}.json").write_text('{"prompt_index": "\\u001b[31m"}')
    (data.path / f"{name}2.json").write_text("{")
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and "\\x1b]0;owned" in ended.err
    for path in (data.path / f"{name}.json", data.path / f"{name}2.json"):
        path.write_bytes(data.place(1, 0).with_suffix(".json").read_bytes())
    shutil.copy(data.place(1, 0).with_suffix(".jpg"), data.path / f"{name}2.jpg")
    again = to_parquet(data.path, tmp_path / "t.parquet")
    assert again.status == 3 and again.err.count("characters that nobody sees") == 2
    said = ended.err + ended.out + again.err + again.out
    assert not any(letter in said for letter in "\x1b\x07\u202e")


def test_a_folder_that_vanishes_while_it_is_read(folder, to_parquet, tmp_path, monkeypatch):
    from postprocess_dataset import dataset_folder

    data = folder().fill([1, 1001], 1)
    listed = dataset_folder.list_folder

    def list_and_remove(path):
        listing = listed(path)
        if path.endswith("000001"):
            shutil.rmtree(path)
            os.symlink("/tmp", path)
        return listing

    monkeypatch.setattr(dataset_folder, "list_folder", list_and_remove)
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and "1 rows" in ended.out
    assert "folder cannot be read" in rejects(tmp_path / "t.parquet")["HPDv2/000001/1001_0.json"]


def test_a_loop_of_links_costs_no_sample(folder, to_parquet, tmp_path):
    data = folder().fill(range(3), 1)
    before = to_parquet(data.path, tmp_path / "before.parquet")
    (data.path / "000000" / "loop").symlink_to("loop")
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == before.status == 0, ended.err
    assert ended.out.replace("t.parquet", "before.parquet") == before.out
