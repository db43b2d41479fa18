"""A folder of images that is none is named before anything is read or written."""

import os

import pyarrow.parquet as pq
import pytest

from tests.postprocess_dataset.conftest import called


@pytest.fixture
def table(folder, to_parquet, tmp_path):
    made = folder().fill(range(2), 2)
    assert to_parquet(made.path, tmp_path / "t.parquet").status == 0
    return tmp_path / "t.parquet"


TARS = ("convert_parquet_to_wds", "--parquet_file", "TABLE", "--output_dir", "OUT", "--base_dir")
COMMANDS = [
    (*TARS, "NO"),
    (*TARS, "BASE", "--image_dir", "NO"),
    ("convert_json_to_parquet", "DATA", "OUT.parquet", "--image_dir", "NO"),
    ("make_release_forms", "TABLE", "OUT", "--base_dir", "NO"),
    ("make_report", "TABLE", "OUT.html", "--base_dir", "BASE", "--image_dir", "NO"),
]


@pytest.mark.parametrize("none", ["nowhere", "/dev/null", "t.parquet"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: f"{words[0]}-{words[-2]}")
def test_what_is_no_folder_is_one_line(table, tmp_path, command, none):
    none = tmp_path / none
    data = next(path for path in tmp_path.iterdir() if path.is_dir())
    places = {"TABLE": table, "BASE": tmp_path, "NO": none, "DATA": data}
    places |= {f"OUT{end}": tmp_path / f"new/out{end}" for end in ("", ".parquet", ".html")}
    script, *words = command
    ended = called(script, [places.get(word, word) for word in words])
    assert ended.status == 1 and f"'{none}' is no folder" in ended.err, ended.err
    left = [path for path in tmp_path.glob("new/out*") if path.suffix != ".work"]
    assert ended.err.count("\n") == 1 and not left


def test_a_table_whose_images_have_left_is_one_line(table, tmp_path):
    """Its own base folder is looked at, too."""
    data = next(path for path in tmp_path.iterdir() if path.is_dir())
    away = tmp_path.with_name(f"{tmp_path.name}_away")
    os.rename(tmp_path, away)
    for script, out in (("make_release_forms", "release"), ("make_report", "r.html")):
        ended = called(script, [away / "t.parquet", away / out])
        assert ended.status == 1 and f"'{data.parent}' is no folder" in ended.err, ended.err
        assert ended.err.count("\n") == 1 and not (away / out).exists()
    assert pq.read_table(away / "t.parquet").num_rows == 4
