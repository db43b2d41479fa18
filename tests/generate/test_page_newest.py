"""The newest images of the page: what others put in an image's place costs that prompt alone."""

import json
import os

import pytest

from common.packed_folder import changed_ns
from generate.dataset.layout import path_of
from generate.dataset.rejected_images import RejectedImages
from generate.server.page.newest import newest_images, rejected_address
from tests.generate.test_odd_captions import record

ODD = ["itself", "image", "too long", "pipe", "folder"]


@pytest.fixture
def folder(tmp_path):
    """A data set: prompts 3 and 4 of two texts, all images there."""
    folder = tmp_path / "generated_images" / "birds"
    (folder / "000000").mkdir(parents=True)
    for index in (3, 4):
        texts = record(index)["texts"] * 2
        captions = folder / "000000" / f"{index}.prompts"
        captions.write_text(json.dumps(record(index, texts=texts)))
        for aug in (0, 1):
            path_of(folder, index, aug, ".jpg").write_bytes(b"an image")
    return folder


def put(odd, path, image):
    path.unlink(missing_ok=True)
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "folder":
        path.mkdir()
    else:
        path.symlink_to({"itself": path.name, "image": image, "too long": "a" * 300}[odd])


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_original_costs_its_prompt_alone(tmp_path, folder, odd):
    """No newest image of any data set was shown beside a link to itself."""
    wanted = [("birds", 3), ("birds", 4)]
    assert {entry["index"] for entry in newest_images(tmp_path, wanted)} == {3, 4}
    original = path_of(folder, 3, 0, ".jpg")
    put(odd, original, path_of(folder, 4, 0, ".jpg"))
    with pytest.raises(FileNotFoundError):
        changed_ns(original)
    assert [entry["index"] for entry in newest_images(tmp_path, wanted)] == [4]


def test_an_image_that_cannot_be_looked_at_costs_its_prompt_alone(tmp_path, folder, monkeypatch):
    real = os.stat

    def closed(path, **options):
        if os.fspath(path).endswith("3_0.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, **options)

    monkeypatch.setattr(os, "stat", closed)
    wanted = [("birds", 3), ("birds", 4)]
    assert [entry["index"] for entry in newest_images(tmp_path, wanted)] == [4]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_rejected_image_is_none(tmp_path, folder, odd):
    """Nor is what lies in an odd folder; the look at all data sets ended with it."""
    kept = RejectedImages(folder, 0).path_of(7, 0, 0)
    kept.parent.mkdir(parents=True)
    row = {"dataset": "birds", "index": 7, "aug": 0, "try": 1, "refused_by": []}
    put(odd, kept, path_of(folder, 4, 0, ".jpg"))
    assert rejected_address(tmp_path, row) is None
    kept.rmdir() if odd == "folder" else kept.unlink()
    kept.parent.rmdir()
    put(odd, kept.parent, tmp_path)
    assert rejected_address(tmp_path, row) is None
