"""Finished sub-folders become tars: each sample is there once, whatever dies and when."""

import json
import os
import resource
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from common import packed_folder
from common.packed_folder import packed, read_file
from common.packed_tar import members
from generate.dataset.captions import publish_captions, read_captions
from generate.dataset.samples import publish_failed
from generate.dataset.scan import scan_folder
from generate.server.folders import index_done
from postprocess_dataset.packing.pack_folder import Packing
from postprocess_dataset.shard_images import BUFFER, Images
from tests.postprocess_dataset.conftest import called, captions, pack, seen


def test_only_finished_folders_are_packed_and_every_reader_sees_the_same(data):
    before, listed = seen(data.path), scan_folder(data.path, 0)
    bytes_of = {p.name: p.read_bytes() for p in data.path.glob("000000/[37]*")}
    ended = pack(data.path)
    assert (ended.status, ended.err) == (0, "") and "1 sub-folders packed now" in ended.out
    inside = sorted(os.listdir(data.path / "000000"))
    assert inside == ["COMPLETE", "PACKED", "part-00000.tar"]
    with tarfile.open(data.path / "000000/part-00000.tar") as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == bytes_of
    assert (data.path / "000001/1002_0.jpg").exists()
    assert seen(data.path) == before and scan_folder(data.path, 0) == listed
    assert index_done(data.path, 7, 2) and not index_done(data.path, 8, 2)
    assert read_captions(data.path, 3)["texts"][1]["text"] == "t1"
    assert "0 sub-folders packed now" in pack(data.path).out


def test_both_converters_take_packed_samples(data, to_parquet, to_tars, rows_of, tar_members):
    loose, tight = (data.path.parent / f"{name}.parquet" for name in ("loose", "tight"))
    to_parquet(data.path, loose)
    to_tars(loose, data.path.parent, data.path.parent / "a")
    pack(data.path)
    assert to_parquet(data.path, tight, "--verify", "decode").status == 0
    assert rows_of(tight) == rows_of(loose)
    assert "0 of them new" in to_parquet(data.path, loose, "--update").out
    assert to_tars(tight, data.path.parent, data.path.parent / "b").status == 0
    assert tar_members(data.path.parent / "b") == tar_members(data.path.parent / "a")


def test_an_image_that_is_packed_between_two_looks_is_found(data):
    """The tars' reader does not look for the mark at each image."""
    images = Images(str(data.path.parent))
    place = None, f"{data.path.name}/000000/3_1"
    before = bytes(images.read(place, None, bytearray(BUFFER))[0])
    size = images.size(place)
    pack(data.path)
    assert not (data.path / "000000/3_1.jpg").exists()
    assert images.read(place, None, bytearray(BUFFER)) == (before, None)
    assert images.size(place) == size == len(before)


def test_a_file_that_is_packed_while_it_is_read_is_found(data, monkeypatch):
    """Its captions would be asked for again."""
    real = packed_folder.read_untrusted

    def late(path, *rest):
        if path.name == "3.prompts":
            pack(data.path)
        return real(path, *rest)

    monkeypatch.setattr(packed_folder, "read_untrusted", late)
    assert read_captions(data.path, 3)["texts"][1]["text"] == "t1"
    assert not (data.path / "000000/3.prompts").exists()


def test_a_file_that_is_packed_between_two_looks_exists(data, monkeypatch):
    real = packed_folder.is_plain
    image = data.path / "000000/3_1.jpg"

    def late(path):
        if path == image and real(path):
            pack(data.path)
        return real(path)

    monkeypatch.setattr(packed_folder, "is_plain", late)
    assert packed_folder.exists(image) and not real(image)


def test_an_extension_is_packed_beside_what_was(data):
    pack(data.path)
    data.add(3, 2)
    assert publish_captions(data.path, captions(3, 3), "2-1")["texts"][2]["text"] == "t2"
    assert (data.path / "000000/3.prompts2").exists() and not (
        data.path / "000000/3.prompts"
    ).exists()
    before = seen(data.path)
    assert len(before) == 7 and scan_folder(data.path, 0)[3].done(3)
    assert "1 sub-folders packed now, 1 prompts, 3 files" in pack(data.path).out
    assert seen(data.path) == before and len(list(data.path.glob("000000/*.tar"))) == 2
    assert scan_folder(data.path, 0)[3].done(3) and scan_folder(data.path, 0)[3].generation == 2


def test_finished_prompts_of_an_open_folder_are_packed_when_they_are_many(data):
    inside = data.path / "000000"
    (inside / "COMPLETE").unlink()
    data.fill([20, 21, 22], 2)
    publish_captions(data.path, captions(20, 3), "1-1")  # its third image is missing
    publish_captions(data.path, captions(21, 3), "1-1")
    publish_failed(data.path, 21, 2, "image", "black", "1-1")
    publish_captions(data.path, captions(22, 3), "1-1")
    (inside / "22_2.failed").write_text("[")  # damaged: its image is missing, too
    (inside / "7_1.json").rename(inside / ".7_1.json.9-1.tmp")  # being published
    os.utime(inside / "3_0.jpg", (4_000_000_000, 4_000_000_000))  # of a clock that was wrong
    before = seen(data.path)
    assert Packing(inside, early_files=11, quiet_s=0).run().files == 0  # 3 and 21 have 10
    assert Packing(inside, early_files=10, quiet_s=600).run().files == 0
    result = Packing(inside, early_files=10, quiet_s=0).run()
    assert (result.prompts, result.files, result.left) == (2, 10, [])
    left = {path.name.split("_")[0].split(".")[0] for path in inside.glob("[0-9]*_*.jpg")}
    assert left == {"7", "20", "22"} and seen(data.path) == before
    (inside / ".7_1.json.9-1.tmp").rename(inside / "7_1.json")
    data.add(20, 2)
    (inside / "COMPLETE").write_text("{}")
    assert pack(data.path).status == 0
    assert not list(inside.glob("*_*.jpg")) and len(seen(data.path)) == len(before) + 2


def test_a_late_copy_does_not_count_and_goes(data):
    before = seen(data.path)
    pack(data.path)
    (data.path / "000000/3_1.jpg").write_bytes(b"a client that was paused for a day")
    assert seen(data.path) == before
    pack(data.path)
    assert not (data.path / "000000/3_1.jpg").exists() and seen(data.path) == before


def test_a_file_of_others_is_packed_with_its_prompt(data):
    """Whatever bytes it has; also one that a killed packer left beside its mark."""
    inside = data.path / "000000"
    foreign = {"3_0.npy": bytes(64), "7_1.png": b"\x89PNG\0\0"}
    for name, content in foreign.items():
        (inside / name).write_bytes(content)
    for _ in range(2):
        ended = pack(data.path)
        assert (ended.status, ended.err) == (0, "")
        assert sorted(os.listdir(inside)) == ["COMPLETE", "PACKED", "part-00000.tar"]
        for name, content in foreign.items():
            assert read_file(inside / name, 1000) == content
            (inside / name).write_bytes(content)


def test_a_late_copy_that_cannot_be_read_stops_no_folder(data):
    pack(data.path)
    (data.path / "000000/3_0.json").write_bytes(bytes(64))
    with open(data.path / "000000/3_1.jpg", "wb") as file:
        file.truncate(1 << 30)
    data.add(7, 2)
    ended = pack(data.path)
    assert (ended.status, ended.err) == (0, "") and "1 prompts, 2 files" in ended.out
    assert not list(data.path.glob("000000/*_*.*"))


def test_a_good_copy_beside_a_damaged_tar_stays(data):
    """Restored by somebody because the tar is damaged; nothing says that but its sha256."""
    good = (data.path / "000000/7_0.jpg").read_bytes()
    assert pack(data.path).status == 0
    tar = data.path / "000000/part-00000.tar"
    tar.write_bytes(tar.read_bytes().replace(good, bytes(len(good))))
    (data.path / "000000/7_0.jpg").write_bytes(good)
    ended = pack(data.path)
    assert ended.status == 3 and "part-00000.tar is damaged" in ended.err
    assert (data.path / "000000/7_0.jpg").read_bytes() == good


def test_what_is_broken_stays_loose_and_is_named(data):
    (data.path / "000000/3_1.jpg").write_bytes(b"rotten")
    (data.path / "000000/7_5.jpg").write_bytes(b"no JSON")
    (data.path / "000000/7_9.failed").write_text("{}")
    ended = pack(data.path)
    assert ended.status == 3 and "prompt 3 stays loose: 3_1.jpg is not" in ended.err
    assert "7_5.jpg: no .json beside it" in ended.err
    left = sorted(os.listdir(data.path / "000000"))
    assert {"3_1.jpg", "3.prompts", "7_5.jpg", "7_9.failed"} <= set(left)
    assert "7_0.jpg" not in left and len(seen(data.path)) == 6


def test_captions_are_told_by_their_whole_name(data):
    odd = data.path / "000000" / "3_5.prompts"
    odd.write_text(json.dumps({"texts": [{"text": "x"}] * 1000, "short": None}))
    os.utime(odd, (1, 1))
    pack(data.path)
    assert packed(data.path / "000000").prompts[3].captions == 2


def little_memory():
    resource.setrlimit(resource.RLIMIT_DATA, (700 << 20, 700 << 20))


@pytest.mark.parametrize("name", ["3.prompts", "3.samples"])
def test_a_sparse_text_is_not_read_into_memory(data, process, name):
    path = data.path / "000000" / name
    with open(path, "ab") as file:
        file.truncate((1 << 30) - 1)
    os.utime(path, (1, 1))
    ended = process("pack_finished_folders", data.path, preexec_fn=little_memory)
    assert ended.returncode == 3, ended.stderr
    assert "Memory" not in ended.stderr and "Traceback" not in ended.stderr
    left = os.listdir(data.path / "000000")
    assert name in left and "3_0.jpg" in left and "7_0.jpg" not in left


def test_die_anywhere(data, dying):
    before = seen(data.path)
    whole = data.path.with_name("whole")
    shutil.copytree(data.path, whole)
    for n in range(60):
        shutil.rmtree(data.path)
        shutil.copytree(whole, data.path)
        died = dying(n, "pack_finished_folders", data.path)
        assert seen(data.path) == before, n
        assert pack(data.path).status == 0 and seen(data.path) == before, n
        names = sorted(os.listdir(data.path / "000000"))
        assert names == ["COMPLETE", "PACKED", "part-00000.tar"], n
        if died != -9:
            assert died == 0 and n > 10
            return
    raise AssertionError("it never lived")


def test_large_folders_become_several_tars_and_a_lost_one_is_no_sample(data, caplog):
    before = seen(data.path)
    assert Packing(data.path / "000000", tar_bytes=1).run().prompts == 2
    assert len(packed(data.path / "000000").tars) == 2 and seen(data.path) == before
    (data.path / "000000/part-00001.tar").unlink()
    end = time.monotonic() + 120
    while packed(data.path / "000000").tars[1] and time.monotonic() < end:
        time.sleep(0.1)
    assert not index_done(data.path, 7, 2) and index_done(data.path, 3, 2)
    assert len(seen(data.path)) == 4 and "missing or cut" in caplog.text


@pytest.mark.parametrize("text", [b"", b"{}", b"[" * 99_999, b'{"tars": [{"name": "/etc/x"}]}'])
def test_a_damaged_mark_is_named(data, text):
    pack(data.path)
    (data.path / "000000/PACKED").write_bytes(text)
    with pytest.raises(OSError, match="damaged"):
        scan_folder(data.path, 0)
    ended = pack(data.path)
    assert ended.status == 3 and "damaged" in ended.err and "Traceback" not in ended.err


def edit_mark(data, change):
    """Pack, unless that is done, and change what the mark says."""
    path = data.path / "000000/PACKED"
    if not path.exists():
        pack(data.path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def refuses(data, why="damaged"):
    with pytest.raises(OSError, match=why):
        scan_folder(data.path, 0)


@pytest.mark.parametrize(
    "images", ["0-999999999", "0-999", "5-1", "-7", "1000000", "0-999999," * 999 + "0"]
)
def test_a_mark_cannot_state_more_files_than_its_tars_hold(data, images):
    """A few bytes of a colleague would take all memory of the server and of every reader."""
    edit_mark(data, lambda mark: [each.update(images=images) for each in mark["prompts"].values()])
    refuses(data)


def test_a_tar_is_named_once(data):
    edit_mark(data, lambda mark: mark.update(tars=mark["tars"] * 1000))
    refuses(data, "names a tar twice")


@pytest.mark.parametrize(
    "spans, key",
    [("[[0,0,Infinity]]", "3"), (f"[[0,{10**30},512]]", "3"), ("[[0,0,1024]]", "9" * 40)],
)
def test_numbers_without_bounds_are_damage(data, to_parquet, tmp_path, spans, key):
    def change(mark):
        mark["prompts"] = {key: mark["prompts"]["3"] | {"at": json.loads(spans)}}

    edit_mark(data, change)
    refuses(data)
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and "damaged" in ended.err, ended.err


@pytest.mark.parametrize(
    "field, value",
    [
        ("generation", float("inf")),
        ("generation", "1"),
        ("captions", "x"),
        ("captions", [1]),
        ("captions", 10**9),
        ("short", "x"),
        ("short", [1]),
        ("short", {"asked": "x"}),
        ("short", {"missing": "x"}),
    ],
)
def test_values_of_another_kind_are_damage(data, field, value):
    """Else a client, or the server, ends in the middle of its work."""
    edit_mark(data, lambda mark: mark["prompts"]["3"].update({field: value}))
    refuses(data)


def test_spans_lie_within_their_tar_and_are_taken_once(data):
    pack(data.path)
    size = (data.path / "000000/part-00000.tar").stat().st_size
    for spans in ([[0, 0, size + 1]], [[0, -1, 512]], [[1, 0, 512]], [[0, 0, size], [0, 0, size]]):
        edit_mark(data, lambda mark, spans=spans: mark["prompts"]["3"].update(at=spans))
        refuses(data)


def test_what_lay_in_a_lost_tar_is_listed_and_counted(data, tmp_path):
    assert Packing(data.path / "000000", tar_bytes=1).run().prompts == 2
    (data.path / "000000/part-00001.tar").unlink()
    table = tmp_path / "t.parquet"
    for more in ((), ("--update",)):
        ended = called("convert_json_to_parquet", (data.path, table, *more))
        assert ended.status == 3 and "2 rejected" in ended.out, ended.out + ended.err
        lines = Path(f"{table}.rejects.jsonl").read_text().splitlines()
        assert [json.loads(line)["json"].split("/")[-1] for line in lines] == [
            "7_0.json",
            "7_1.json",
        ]
        assert all("missing or cut" in line for line in lines)


def test_no_tar_and_options(tmp_path):
    (tmp_path / "x.tar").write_bytes(json.dumps("no tar").encode() * 99)
    with pytest.raises(OSError, match="damaged"):
        list(members(tmp_path / "x.tar", 0, 512))
    for bad in ("3/3", "x", "1"):
        assert pack(tmp_path, "--part", bad).status == 2
    assert pack(tmp_path / "none").status == 1
