"""A mark PACKED that is lost, old or refused by its readers costs no sample."""

import json
import os

import pytest

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
