"""12345.samples is read in place of a prompt's JSONs where it agrees with them, and only there."""

import json
import os

import numpy as np
import pytest

from common.packed_folder import packed
from generate.dataset.collected import publish_collected
from postprocess_dataset.dataset_folder import CODE
from postprocess_dataset.to_table import sample_files
from postprocess_dataset.to_table.collected import cuts
from tests.postprocess_dataset.conftest import called

PROMPTS = (3, 7, 8, 1002)


@pytest.fixture
def data(folder):
    made = folder().fill(PROMPTS, 5)
    collect(made)
    return made


def collect(data, prompts=PROMPTS, images=5):
    for path in data.path.glob("*/*.json"):
        path.write_text(path.read_text().strip() + "\n")
    for prompt in prompts:
        assert publish_collected(data.path, prompt, images, "1-1")


@pytest.fixture
def opened(monkeypatch):
    """The names of the JSONs that were opened one by one."""
    names = []
    real = sample_files.read_files

    def read(folder, wanted, room):
        names.extend(wanted)
        return real(folder, wanted, room)

    monkeypatch.setattr(sample_files, "read_files", read)
    return names


def test_no_json_is_opened_and_the_table_is_the_same(data, to_parquet, rows_of, opened, tmp_path):
    ended = to_parquet(data.path, tmp_path / "a.parquet")
    assert ended.status == 0 and not opened
    assert to_parquet(data.path, tmp_path / "b.parquet", "--verify", "json").status == 0
    assert len(opened) == 20 and rows_of(tmp_path / "a.parquet") == rows_of(tmp_path / "b.parquet")
    for n in range(3):
        part = f"{n}/3"
        assert to_parquet(data.path, tmp_path / "c.parquet", "--part", part).status == 0
    assert to_parquet(data.path, tmp_path / "c.parquet", "--part", "0/3", "--finish").status == 0
    assert rows_of(tmp_path / "c.parquet") == rows_of(tmp_path / "a.parquet")
    assert len(opened) == 20


def torn(path):
    path.write_bytes(path.read_bytes()[:-9])


def of_another(path):
    path.write_bytes(path.with_name("8.samples").read_bytes())


def one_more(path):
    path.write_bytes(path.read_bytes() + path.read_bytes().split(b"\n")[0] + b"\n")


def in_another_order(path):
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[4::-1]) + b"\n")


def a_terabyte(path):
    os.truncate(path, 1 << 40)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = [torn, of_another, one_more, in_another_order, a_terabyte, a_pipe]


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_that_does_not_agree_is_not_believed(
    data, to_parquet, rows_of, opened, tmp_path, damage
):
    to_parquet(data.path, tmp_path / "a.parquet", "--verify", "json")
    damage(data.path / "000000/7.samples")
    opened.clear()
    assert to_parquet(data.path, tmp_path / "b.parquet").status == 0
    assert {f"7_{n}.json" for n in range(5)} <= set(opened)
    assert rows_of(tmp_path / "a.parquet") == rows_of(tmp_path / "b.parquet")


def test_names_in_the_folder_decide(data, to_parquet, rows_of, opened, tmp_path):
    """A sample that was deleted is no row, one that was added is; --update reads what is new."""
    out = tmp_path / "t.parquet"
    assert to_parquet(data.path, out).status == 0
    for suffix in (".jpg", ".json"):
        (data.path / f"000000/7_4{suffix}").unlink()
    data.add(3, 5)
    (data.path / "000000/8_2.jpg").unlink()
    ended = to_parquet(data.path, tmp_path / "u.parquet")
    assert ended.status == 3 and "8_2.json: image is missing" in ended.err
    keys = {row["__key__"].split("/")[-1] for row in rows_of(tmp_path / "u.parquet")}
    assert "3_5" in keys and not {"7_4", "8_2"} & keys and len(keys) == 19
    opened.clear()
    assert "1 of them new" in to_parquet(data.path, out, "--update").out
    assert opened == ["3_5.json"]


def test_a_bad_sample_is_named_as_without(data, to_parquet, tmp_path):
    path = data.path / "000000/7_3.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"height": "tall"}) + "\n")
    (data.path / "000000/7.samples").unlink()
    collect(data)
    ended = to_parquet(data.path, tmp_path / "t.parquet")
    assert ended.status == 3 and "7_3.json: height is 'tall', not a whole number" in ended.err


def test_packed_ones_are_read_too_and_an_extension_has_its_own(
    data, to_parquet, rows_of, opened, tmp_path
):
    to_parquet(data.path, tmp_path / "a.parquet", "--verify", "json")
    for name in ("000000", "000001"):
        (data.path / name / "COMPLETE").write_text("{}")
    assert called("pack_finished_folders", (data.path,)).status == 0
    assert not list(data.path.glob("*/*.samples"))
    opened.clear()
    read = []
    assert to_parquet(data.path, tmp_path / "b.parquet").status == 0 and not opened
    assert rows_of(tmp_path / "a.parquet") == rows_of(tmp_path / "b.parquet")
    data.add(7, 5)
    path = data.path / "000000/7_5.json"
    path.write_text(path.read_text().strip() + "\n")
    assert publish_collected(data.path, 7, 6, "2-1")
    assert (data.path / "000000/7.samples").read_bytes().count(b"\n") == 6
    for _ in range(2):
        opened.clear()
        assert to_parquet(data.path, tmp_path / "c.parquet").status == 0
        assert len(rows_of(tmp_path / "c.parquet")) == 21
        read.append(set(opened))
        assert called("pack_finished_folders", (data.path,)).status == 0
        assert not list(data.path.glob("*/*.samples"))
    assert not read[1] and "7_0.json" not in read[0], read
    member = packed(data.path / "000000").collected(7)
    assert member.read(1 << 20).count(b"\n") == 6


def test_a_wrong_one_is_not_packed(data):
    of_another(data.path / "000000/7.samples")
    (data.path / "000000/COMPLETE").write_text("{}")
    assert called("pack_finished_folders", (data.path,)).status == 0
    assert not list(data.path.glob("000000/*.samples"))
    mark = packed(data.path / "000000")
    assert mark.collected(7) is None and mark.collected(8).size > 0


def test_chunks_end_between_prompts():
    codes = np.array([p * CODE + a for p in range(10) for a in range(7)])
    assert cuts(codes, 20) == [(0, 14), (14, 28), (28, 42), (42, 56), (56, 70)]
    assert cuts(codes, 5)[:3] == [(0, 5), (5, 7), (7, 12)] and cuts(codes[:0], 5) == []
