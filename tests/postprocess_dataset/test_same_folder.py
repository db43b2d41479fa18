"""A folder under two names: its samples are taken once, or nothing is done."""

import os

import pytest

from common.command_line import UserError
from postprocess_dataset.same_folder import lies_in, refuse_twice
from tests.postprocess_dataset.conftest import called


@pytest.fixture
def data(folder, tmp_path):
    """A data set, and names that lead to it or into it; each is a DIR beside it."""
    (tmp_path / "link").symlink_to("HPDv2")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "block").symlink_to(tmp_path / "HPDv2" / "000000")
    return folder().fill([1, 2]).path


@pytest.mark.parametrize("name", ["link", "far/block", "link/000000", "far/../HPDv2"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "script", ["convert_json_to_parquet", "verify_dataset", "release"], ids=["to", "v", "r"]
)
def test_a_folder_is_given_twice(data, tmp_path, script, name, turned):
    folders = [str(data), str(tmp_path / name)][:: -1 if turned else 1]
    out = {"verify_dataset": ["--report", str(tmp_path / "v.json")]}.get(
        script, [str(tmp_path / ("t.parquet" if "convert" in script else "birds"))]
    )
    ended = called(script, [*folders, *out])
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended.err
    assert "is given twice or lies in" in ended.err
    assert not list(tmp_path.glob("*.parquet"))


def test_each_folder_is_looked_at_a_few_times(tmp_path, monkeypatch):
    """On a file server each look is a call, and many sub-folders can be given one by one."""
    folders = [str(tmp_path / "data" / f"{number:06d}") for number in range(200)]
    for folder in folders:
        os.makedirs(folder)
    looks = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: looks.append(path) or real(path, **how))
    refuse_twice(folders)
    assert len(looks) < 5 * len(folders)
    with pytest.raises(UserError, match="lies in"):
        refuse_twice([*folders, str(tmp_path / "data")])


def test_an_update_under_another_name(data, folder, to_parquet, rows_of, tmp_path):
    table = tmp_path / "t.parquet"
    assert to_parquet(data, table).status == 0
    ended = to_parquet(tmp_path / "link", table, "--update")
    assert ended.status == 1 and "name it so, or --rebuild" in ended.err, ended.err
    assert len(rows_of(table)) == 4
    other = folder("more").fill([3])
    assert to_parquet(other.path, table, "--update").status == 0
    assert len(rows_of(table)) == 6


def test_a_release_in_a_data_set_through_a_link(data, tmp_path):
    ended = called("release", [str(data), str(tmp_path / "link" / "release")])
    assert ended.status == 1 and "choose a place outside" in ended.err, ended.err
    assert not (data / "release").exists()


def test_what_lies_where(data, tmp_path):
    assert lies_in(tmp_path / "link" / "not" / "there", data)
    assert lies_in(tmp_path / "far" / "block", tmp_path / "link")
    assert not lies_in(tmp_path / "HPDv2-more", data) and not lies_in(data, tmp_path / "far")
    assert not lies_in(data, tmp_path / "nowhere")
