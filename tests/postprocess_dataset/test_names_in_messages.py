"""A message names the file that is wrong, and what is wrong is said in words."""

import json
import os

import pytest

from common import packed_folder
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.test_table_rejects import rejects

MARKS = {
    "pipe": (os.mkfifo, "its mark PACKED is no regular file"),
    "folder": (lambda path: path.mkdir(), "its mark PACKED is no regular file"),
    "no_tars": (lambda path: path.write_text("{}"), "its mark PACKED is damaged: it has no 'tars'"),
    "list": (lambda path: path.write_text("[]"), "is damaged: a value has another type"),
    "torn": (lambda path: path.write_text('{"tars"'), "its mark PACKED is damaged: "),
    "words": (lambda path: path.write_text('{"tars": ["x"]}'), "a value has another type"),
}


@pytest.mark.parametrize("make, says", MARKS.values(), ids=MARKS)
def test_a_damaged_mark_is_named_not_its_folder(folder, to_parquet, tmp_path, make, says):
    data = folder().fill([1, 1001], 1)
    make(data.path / "000001" / "PACKED")
    assert to_parquet(data.path, tmp_path / "loose.parquet").status == 0, "nothing was packed"
    (data.path / "000001" / "part-00000.tar").touch()
    packed_folder._has_tars.cache_clear()  # it looks once a second
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and says in rejects(tmp_path / "t.parquet")["HPDv2/000001"]
    words = ended.err + json.dumps(rejects(tmp_path / "t.parquet"))
    assert "Error" not in words and "indices" not in words


@pytest.mark.parametrize(
    "words",
    [
        ("convert_json_to_parquet", "DATA", "NEW.parquet"),
        ("score_images", "DATA", "NEW", "--scores", "sharpness"),
        ("make_release_forms", "TABLE", "NEW"),
        ("release", "DATA", "NEW"),
        ("make_report", "NEW.parquet", "OUT.html"),
    ],
    ids=lambda words: words[0],
)
def test_a_name_that_no_table_can_have_is_refused_before_anything_is_written(
    folder, to_parquet, tmp_path, words
):
    """Arrow writes there, and can then not read it."""
    data = folder().fill([1], 2)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    before = sorted(os.listdir(tmp_path))
    new = os.fsdecode(os.fsencode(tmp_path) + b"/new\xff")
    places = {"DATA": data.path, "TABLE": tmp_path / "t.parquet", "OUT.html": tmp_path / "o.html"}
    places |= {"NEW": new, "NEW.parquet": f"{new}.parquet"}
    ended = called(words[0], [places.get(word, word) for word in words[1:]])
    assert ended.status == 1 and "this name is not UTF-8; choose another" in ended.err, ended.err
    assert ended.err.count("\n") == 1 and sorted(os.listdir(tmp_path)) == before
