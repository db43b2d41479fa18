"""verify_dataset.py --repair never removes what may be the last copy of an image or a text."""

import json

import pyarrow.parquet as pq
import pytest

from common.command_line import UserError
from common.sample_reader import iterate
from postprocess_dataset.verification import repair
from tests.postprocess_dataset.damage import cut, edit_table, edit_tar, sample
from tests.postprocess_dataset.verified import kinds, verify


def lose(root, *stems):
    """Samples that are in table and tars alone from now on; their bytes."""
    lost = {}
    for stem in stems:
        lost[stem] = sample(root, f"{stem}.jpg").read_bytes()
        for suffix in ("jpg", "json"):
            sample(root, f"{stem}.{suffix}").unlink()
    return lost


def images_in(*folders):
    """{stem: its images}, in all tars below the folders."""
    found = {}
    for folder in folders:
        for tar in folder.glob("*.tar"):
            for each in iterate(tar):
                found.setdefault(each.key.rpartition("/")[2], set()).add(each.jpeg())
    return found


def test_what_the_folder_has_lost_stays_in_whole_tars(root):
    lost = lose(root, "995_0", "995_1", "995_2", "996_2")
    sample(root, "995.prompts").unlink()
    before = {path: path.read_bytes() for path in root.glob("t*/*")}
    ended = verify(root, "--repair")
    assert ended.status == 1 and "mended" not in ended.out
    assert kinds(ended) == {"missing": 2, "row_without_image": 3, "foreign": 3}
    assert {path: path.read_bytes() for path in root.glob("t*/*")} == before
    assert images_in(root / "tars").items() >= {key: {image} for key, image in lost.items()}.items()


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: edit_table(root, lambda rows: rows.insert(9, dict(rows[9]))),
        lambda root: edit_tar(root, lambda members: members.extend(members[-3:])),
        lambda root: (root / "tars/index.json").unlink(),
        lambda root: cut(sorted((root / "tars").glob("*.tar"))[0], -1000),
    ],
)
def test_tars_with_last_copies_are_kept_beside_the_new_ones(root, damage):
    lost = lose(root, "995_1")
    damage(root)
    table = (root / "t.parquet").read_bytes()
    ended = verify(root, "--repair")
    assert ended.status == 1 and kinds(ended)["missing"] == 1
    kept = root / "tars.replaced"
    assert images_in(root / "tars", kept).items() >= {"995_1": {lost["995_1"]}}.items()
    assert len(list(kept.glob("*.tar"))) <= 1  # the others hold nothing of their own
    if kept.exists():
        assert f"{kept}: tars as they were" in ended.out
    if (root / "t.parquet").read_bytes() != table:
        assert (root / "t.parquet.replaced").read_bytes() == table


def test_a_repair_that_fails_leaves_the_tars(root, monkeypatch):
    """Each stands until its successor is whole; the next repair goes on from there."""
    edit_tar(root, lambda members: members.extend(members[-3:]))
    before = images_in(root / "tars")

    def fails(settings):
        raise UserError("the disk is full")

    monkeypatch.setattr(repair, "make_tars", fails)
    for _ in range(2):
        assert "the disk is full" in verify(root, "--repair").err
        assert images_in(*root.glob("tars*")) == before
    monkeypatch.undo()
    ended = verify(root, "--repair")
    assert ended.status == 0, ended.out


@pytest.mark.parametrize(
    "change",
    [
        {"shard_size_mb": "x"},
        {"shard_size_mb": 10**30},
        {"split": "train=0.5"},
        {"split": ["train=1"]},
        {"shuffle_seed": -1},
    ],
)
def test_a_plan_of_other_options_costs_no_tar(root, change):
    """The tars are to be made again, and with these options they cannot be."""
    edit_tar(root, lambda members: members.extend(members[-3:]))
    plan = root / "tars/output_dataset_plan.json"
    record = json.loads(plan.read_text())
    plan.write_text(json.dumps(record | {"options": record["options"] | change}))
    before = images_in(root / "tars")
    ended = verify(root, "--repair")
    assert ended.status == 1 and "output_dataset_plan.json is damaged" in ended.err
    assert ended.err.count("\n") == 1 and images_in(root / "tars") == before


def test_another_image_or_text_of_a_sample_is_kept_too(root):
    edit_tar(root, lambda members: members.__setitem__(1, (members[1][0], b"another text")))
    ended = verify(root, "--repair")
    assert ended.status == 0, ended.out
    (kept,) = (root / "tars.replaced").glob("*.tar")
    assert "another text" in {each.caption for each in iterate(kept)}


def test_a_second_repair_keeps_beside_the_first(root):
    for _ in range(2):
        edit_tar(root, lambda members: members.__setitem__(1, (members[1][0], b"another text")))
        assert verify(root, "--repair").status == 0
    assert [path.name for path in sorted(root.glob("tars*"))] == [
        "tars",
        "tars.replaced",
        "tars.replaced-2",
    ]


def test_a_torn_table_and_a_stale_list_are_kept(root):
    cut(root / "t.parquet")
    stale = json.dumps({"augmented_prompt": "the last copy of a text"}) + "\n"
    sample(root, "995.samples").write_text(stale)
    torn = (root / "t.parquet").read_bytes()
    ended = verify(root, "--repair")
    assert ended.status == 0, ended.out
    assert (root / "t.parquet.replaced").read_bytes() == torn
    assert pq.read_table(root / "t.parquet").num_rows == 24
    assert sample(root, "995.samples.damaged").read_text() == stale
