"""A folder of tars loads by its name, and the converter says how."""

import re

import pytest

from postprocess_dataset.to_tars.tars_readme import text_of, write_readme


@pytest.fixture
def load(tmp_path):
    datasets = pytest.importorskip("datasets")
    return lambda folder: datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_a_folder_of_tars_loads_by_its_name(table, to_tars, tmp_path, load):
    """index.json, stats and plan lie beside the tars, and are no samples."""
    webdataset = pytest.importorskip("webdataset")
    data, path = table
    tars = tmp_path / "tars"
    ended = to_tars(path, data.path, tars)
    assert ended.status == 0 and load(tars)["train"].num_rows == 36
    (pattern,) = re.findall(r'WebDataset\("(.*)", shardshuffle=100\)', ended.out)
    assert len(list(webdataset.WebDataset(pattern, shardshuffle=False))) == 36
    assert f'datasets.load_dataset("{tars}")' in ended.out
    assert "all images of a prompt in a row; --shuffle_seed 1" in ended.out


def test_splits_are_told_apart(table, to_tars, tmp_path, small_shards, load):
    """val_hard begins like val."""
    webdataset = pytest.importorskip("webdataset")
    small_shards(3)
    data, path = table
    tars = tmp_path / "tars"
    options = ["--split", "train=0.5,val=0.25,val_hard=0.25", "--shuffle_seed", 3]
    ended = to_tars(path, data.path, tars, "--shard_size_mb", 1, *options)
    assert ended.status == 0 and "in a row" not in ended.out
    found = {name: split.num_rows for name, split in load(tars).items()}
    patterns = re.findall(r'WebDataset\("(.*)", shardshuffle=100\)', ended.out)
    counts = [len(list(webdataset.WebDataset(each, shardshuffle=False))) for each in patterns]
    assert list(found.values()) == counts and sum(counts) == 36
    assert set(found) <= {"train", "val", "val_hard"} and len(found) > 1
    assert any("{000000..0" in each for each in patterns)


def test_a_readme_of_another_hand_stays(table, to_tars, tmp_path):
    data, path = table
    tars = tmp_path / "tars"
    tars.mkdir()
    (tars / "README.md").write_text("mine")
    assert to_tars(path, data.path, tars).status == 0
    assert (tars / "README.md").read_text() == "mine"


def test_our_readme_grows_with_the_splits(tmp_path):
    """An update may bring the first prompts of a split; a changed file is the user's."""
    readme = tmp_path / "README.md"
    stems = ["output_dataset_train", "output_dataset_val"]
    write_readme(str(tmp_path), stems[1:])
    write_readme(str(tmp_path), stems)
    assert readme.read_text() == text_of(stems)
    readme.write_text(changed := text_of(stems[:1]) + "My data set.\n")
    write_readme(str(tmp_path), stems)
    assert readme.read_text() == changed
