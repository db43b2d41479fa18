"""A mark PACKED that is lost, old or refused by its readers costs no sample."""

import json
import os
import re
import shutil

import pytest

from common.number_ranges import numbers, ranges
from postprocess_dataset import tar_header
from tests.postprocess_dataset.conftest import called, pack, seen


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *[("7.prompts", {"short": short}) for short in ([1], "x", 5, {}, {"missing": "x"})],
        ("7.prompts", {"short": {"missing": 9_999_999}}),
        ("7.prompts2000000", {}),
    ],
)
def test_a_prompt_that_no_mark_can_state_stays_loose(data, name, change):
    """A mark that its readers refuse would take the whole folder with it."""
    record = json.loads((data.path / "000000/7.prompts").read_bytes())
    (data.path / "000000" / name).write_text(json.dumps(record | change))
    before = seen(data.path)
    ended = pack(data.path)
    assert ended.status == 3 and "prompt 7 stays loose" in ended.err
    assert "1 prompts" in ended.out and seen(data.path) == before and len(before) == 6


def test_a_mark_that_no_reader_would_take_is_not_published(data, monkeypatch):
    before = seen(data.path)
    monkeypatch.setattr("common.packed_folder.MOST_FILES", 3)
    ended = pack(data.path)
    assert ended.status == 3 and "no reader would take it" in ended.err
    assert not (data.path / "000000/PACKED").exists() and seen(data.path) == before
    monkeypatch.undo()
    assert pack(data.path).status == 0 and seen(data.path) == before


@pytest.mark.parametrize("lost", ["deleted", "an older one"])
def test_a_tar_that_lost_its_mark_is_not_written_over(data, lost, tmp_path):
    """Nothing of its folder is packed until the mark is made again, from all of its tars."""
    before = seen(data.path)
    folder, aside = data.path / "000000", data.path.with_name("aside")
    aside.mkdir()
    mark = folder / "PACKED"
    steps = [["3*"], ["7*"]] if lost == "an older one" else [["3*", "7*"]]
    for path in list(folder.glob("7*")):
        path.rename(aside / path.name)
    older = None
    for _ in steps:
        assert pack(data.path).status == 0
        older = older or mark.read_bytes()
        for path in list(aside.iterdir()):
            path.rename(folder / path.name)
    mark.unlink()
    if lost == "an older one":
        mark.write_bytes(older)
    tars = {path: path.read_bytes() for path in folder.glob("part-*.tar")}
    for _ in range(2):
        ended = pack(data.path)
        assert ended.status == 3 and "--repair makes PACKED again" in ended.err
    assert {path: path.read_bytes() for path in folder.glob("part-*.tar")} == tars
    words = (data.path, "--report", tmp_path / "v.json")
    found = called("verify_dataset", words)
    assert found.status and "foreign" in found.out + found.err
    called("verify_dataset", (*words, "--repair"))
    assert seen(data.path) == before and pack(data.path).status == 0 and seen(data.path) == before


def test_what_a_killed_packer_left_is_no_damage(data, dying, tmp_path):
    for n in range(60):
        dying(n, "pack_finished_folders", data.path)
        left = list(data.path.glob("000000/part-*.tar"))
        if left and not (data.path / "000000/PACKED").exists():
            break
    found = called("verify_dataset", (data.path, "--report", tmp_path / "v.json"))
    assert "foreign" not in found.out + found.err
    assert pack(data.path).status == 0 and len(seen(data.path)) == 6


def test_the_draft_of_a_tar_is_nobodys_file(data, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    os.link(precious, data.path / "000000/.part-00000.tar.tmp")
    assert pack(data.path).status == 0 and precious.read_text() == "mine"


STRANGE = ["\u0663.x", "\u0663_0.failedx", "\u0663_\u0660", "03_0", "3_00", "03.x", "3.promptsold"]
ANY_DIGITS = re.compile(r"(\d{1,12})(?:_(\d{1,6}))?\.([0-9A-Za-z.]{1,40})")


def add_strange(data, name):
    """A file, or a whole sample, whose name is almost one of prompt 3."""
    inside = data.path / "000000"
    for end in () if "." in name else (".jpg", ".json"):
        shutil.copy(inside / f"3_0{end}", inside / f"{name}{end}")
    if "." in name:
        (inside / name).write_text("")


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_beside_a_prompt_costs_no_sample(data, name):
    """Digits of other scripts, and leading zeros: readers would not find them in a tar."""
    add_strange(data, name)
    before = seen(data.path)
    assert pack(data.path).status == 0
    assert seen(data.path) == before
    assert not (data.path / "000000/3_0.jpg").exists()


@pytest.mark.parametrize("name", ["\u0663.x", "03_0"])
def test_no_loose_file_goes_that_readers_would_not_find_in_the_tar(data, monkeypatch, name):
    add_strange(data, name)
    before = seen(data.path)
    names = set(os.listdir(data.path / "000000"))
    monkeypatch.setattr("postprocess_dataset.packing.pack_folder.FILE", ANY_DIGITS)
    ended = pack(data.path)
    assert ended.status == 3 and "000000" in ended.err, ended.err
    assert names <= set(os.listdir(data.path / "000000")) and seen(data.path) == before
    monkeypatch.undo()
    assert pack(data.path).status == 0 and seen(data.path) == before


def test_a_tar_whose_files_are_not_those_packed_is_not_published(data, monkeypatch):
    before = seen(data.path)
    right = tar_header.file_in_tar
    monkeypatch.setattr(
        "postprocess_dataset.packing.pack_folder.file_in_tar",
        lambda name, content: right(name, content[:-1]),
    )
    ended = pack(data.path)
    assert ended.status == 3 and "readers would not find" in ended.err
    assert not list(data.path.glob("000000/part-*")) and seen(data.path) == before


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_others_call_packed_is_left_as_it_is(data, kind):
    """A tar was written before the mark could not be, so that the folder counted as damaged."""
    mark = data.path / "000000" / "PACKED"
    if kind == "file":
        mark.write_text("x")
    elif kind == "folder":
        mark.mkdir()
    else:
        mark.symlink_to("nowhere")
    before = seen(data.path)
    ended = pack(data.path)
    assert ended.status != 0 and "PACKED: it is no mark: nothing is packed here" in ended.err
    assert seen(data.path) == before and not list(mark.parent.glob("*.tar"))
    assert mark.is_symlink() if kind == "link" else mark.exists()


def test_a_link_in_the_place_of_a_sub_folder_is_not_followed(data, folder):
    """The files of another data set were packed, and removed there."""
    foreign = folder("foreign").fill([3], 2)
    (foreign.path / "000001").symlink_to(data.path / "000000")
    before = sorted((data.path / "000000").iterdir())
    ended = pack(foreign.path)
    assert ended.status == 3 and "000001: it is a link to a folder" in ended.err
    assert sorted((data.path / "000000").iterdir()) == before
    link = data.path.parent / "link"
    link.symlink_to(data.path)  # the DIR itself may be one
    assert pack(link).status == 0 and (data.path / "000000/PACKED").exists()


def test_ranges_are_in_order():
    """Or a mark of some kilobytes names the same million images a hundred thousand times."""
    assert ranges({0, 1, 2, 5, 9, 10}) == "0-2,5,9-10" and ranges(set()) == ""
    assert list(numbers("0-2,5", 4)) == [0, 1, 2, 5] and list(numbers("", 0)) == []
    for again in ("0-2,0-2", "5,3", "0-3,3"):
        with pytest.raises(ValueError, match="not in order"):
            list(numbers(again, 10**12))
