"""A .prompts that is lost, torn or another's: its captions come back from the images beside it."""

import json
from pathlib import Path

import pytest

from generate.dataset import caption_check
from generate.dataset.caption_check import Standing, standing_captions
from generate.dataset.captions import publish_captions, read_captions
from generate.dataset.layout import captions_path, path_of
from generate.dataset.scan import IndexFiles, scan_folder
from tests.fakes.sample_holder import INDEX, RECORD, TEXTS, put

PROMPT = RECORD["original_prompt"]
WORDS = [text["text"] for text in TEXTS]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(caption_check, "LOOK_AGAIN_S", 0.001)


@pytest.fixture
def begun(tmp_path):
    """A folder with the captions of one prompt and both of its images."""
    publish_captions(tmp_path, RECORD, "1-1")
    for aug in (0, 1):
        put(tmp_path, aug, "1-1")
    return tmp_path


def files_of(folder: Path) -> IndexFiles:
    return scan_folder(folder, INDEX // 1000).get(INDEX, IndexFiles())


def standing(folder: Path) -> Standing:
    return standing_captions(folder, INDEX, PROMPT, files_of(folder), 9)


def words(found: Standing) -> list[str]:
    return [found.captions[aug]["text"] for aug in sorted(found.captions)]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/*")}


def test_a_whole_record_stands(begun):
    before = names(begun)
    assert standing(begun).record == RECORD and names(begun) == before


def test_a_sample_beyond_all_that_are_asked_for_says_nothing(begun):
    """Else its prompt would get all the captions before it."""
    far = {"prompt_index": INDEX, "augmentation_idx": 10**11, "augmented_prompt": "far away"}
    path_of(begun, INDEX, 10**11, ".json").write_text(json.dumps(far))
    assert standing(begun).record == RECORD
    captions_path(begun, INDEX).unlink()
    assert words(standing(begun)) == WORDS


def test_a_lost_record_is_told_by_the_images(begun):
    captions_path(begun, INDEX).unlink()
    found = standing(begun)
    assert found.record is None and words(found) == WORDS
    path_of(begun, INDEX, 1, ".json").unlink()
    assert words(standing(begun)) == WORDS, "an image alone says it, too"
    path_of(begun, INDEX, 0, ".jpg").unlink()
    assert words(standing(begun)) == WORDS, "and so does a JSON whose image was deleted"


NO_RECORDS = {
    "empty": b"",
    "torn": json.dumps(RECORD).encode()[:60],
    "no object": b"[1, 2]",
    "deep": b"[" * 100_000,
    "of another prompt": json.dumps(RECORD | {"prompt_index": 7}).encode(),
    "of another file's prompt": json.dumps(RECORD | {"original_prompt": "a cat"}).encode(),
    "of wrong types": json.dumps(RECORD | {"texts": [1, None]}).encode(),
    "without captions": json.dumps(RECORD | {"texts": []}).encode(),
    "of a wrong count": json.dumps(RECORD | {"short": {"missing": "2"}}).encode(),
}


@pytest.mark.parametrize("content", NO_RECORDS.values(), ids=NO_RECORDS)
def test_what_is_no_record_is_set_aside(begun, content, caplog):
    """Under a name that says so, with its bytes; the captions are those of the images."""
    path = captions_path(begun, INDEX)
    path.write_bytes(content)
    found = standing(begun)
    assert found.record is None and words(found) == WORDS
    aside = path.with_name(f"{path.name}.broken")
    assert aside.read_bytes() == content and not path.exists()
    assert f"{path} is now called {aside.name}" in caplog.text
    assert publish_captions(begun, RECORD, "1-2") == RECORD == read_captions(begun, INDEX)
    path.write_bytes(content)
    standing(begun)
    assert path.with_name(f"{aside.name}2").exists(), "the first one is not overwritten"


def test_a_record_from_a_backup_that_the_images_contradict(begun):
    """A published caption never changes beside its image."""
    other = RECORD | {"texts": [TEXTS[0], TEXTS[1] | {"text": "another bird"}]}
    captions_path(begun, INDEX).write_text(json.dumps(other))
    found = standing(begun)
    assert found.record is None and words(found) == WORDS
    assert "12345.prompts.broken" in names(begun)


def test_an_older_record_beside_images_of_a_newer_one(begun):
    """The .prompts2 of an extension was lost: the images say what it held."""
    captions_path(begun, INDEX).write_text(json.dumps(RECORD | {"texts": TEXTS[:1]}))
    found = standing(begun)
    assert words(found) == WORDS and found.record["texts"] == TEXTS[:1]
    assert "12345.prompts.broken" not in names(begun), "it says nothing wrong"


def test_a_newer_record_without_the_older_one(begun):
    captions_path(begun, INDEX).rename(captions_path(begun, INDEX, 2))
    assert standing(begun).record == RECORD == read_captions(begun, INDEX)


@pytest.mark.parametrize("with_json", [True, False])
def test_an_image_of_another_prompt_is_set_aside(begun, with_json):
    """Copied into this folder under a name of this prompt: no caption stands beside it."""
    publish_captions(begun, RECORD, "1-1")
    for suffix in (".jpg", ".json"):
        path = path_of(begun, INDEX, 1, suffix)
        path.unlink()
        if suffix == ".jpg" or with_json:
            path.write_bytes(path_of(begun, INDEX, 0, suffix).read_bytes())
    files = files_of(begun)
    found = standing_captions(begun, INDEX, PROMPT, files, 9)
    assert found.record == RECORD and files.images == files.jsons == {0}
    assert "12345_1.jpg.foreign" in names(begun)
    assert ("12345_1.json.foreign" in names(begun)) == with_json
    assert put(begun, 1, "1-2"), "its name is free again"


def test_a_torn_json_is_made_again_from_its_image(begun):
    path = path_of(begun, INDEX, 1, ".json")
    path.write_bytes(path.read_bytes()[:50])
    files = files_of(begun)
    assert standing_captions(begun, INDEX, PROMPT, files, 9).record == RECORD
    assert files.jsons == {0} and files.images == {0, 1} and not path.exists()


def test_a_file_system_that_is_behind_gets_a_second_look(begun, monkeypatch):
    path = captions_path(begun, INDEX)
    whole = path.read_bytes()
    path.write_bytes(b"")
    monkeypatch.setattr(caption_check.time, "sleep", lambda seconds: path.write_bytes(whole))
    assert standing(begun).record == RECORD and "12345.prompts.broken" not in names(begun)
