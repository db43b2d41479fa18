"""Scores of a finished data set: a table beside its table, and the subset that --where makes."""

import json

import pyarrow.parquet as pq
import pytest

from common.untrusted import open_jpeg
from postprocess_dataset import sample_json
from postprocess_dataset.score_table import ScoreTable
from postprocess_dataset.scored import score_folder
from tests.postprocess_dataset.conftest import called

GREEN = """
import os
class Green:
    name, version, licence = "green", "1", "CC0-1.0"
    scored = 0
    def score(self, images, texts):
        Green.scored += len(images)
        if Green.scored > int(os.environ.get("GREEN_FAILS_AFTER", 10**9)):
            raise RuntimeError("enough")
        return [float(text.split("“")[1].split("”")[0]) for text in texts]
"""


@pytest.fixture
def green(tmp_path):
    path = tmp_path / "green.py"
    path.write_text(GREEN)
    return f"{path}:Green"


def scored(*args):
    return called("score_images", args)


def values_of(output) -> dict[str, float]:
    table = ScoreTable.read(str(output))
    return {key: table.of(key)["score_green"] for key in table.places}


def test_all_images_are_scored_once_and_new_ones_later(folder, green, tmp_path):
    data = folder().fill(range(3), 3)
    output = tmp_path / "scores"
    ended = scored(data.path, output, "--scores", f"sharpness,{green}")
    assert (ended.status, ended.out) == (0, f"{output}: 9 images scored\n")
    expected = {f"HPDv2/000000/{p}_{a}": a for p in range(3) for a in range(3)}
    assert values_of(output) == expected
    data.fill(range(3, 5), 3)
    again = scored(data.path, output, "--scores", f"sharpness,{green}")
    assert again.out == f"{output}: 6 images scored, 9 were there\n"
    assert len(values_of(output)) == pq.read_table(output).num_rows == 15
    facts = ScoreTable.read(str(output)).facts
    assert facts["scores"] == {"sharpness": "1", "green": "1"}
    assert facts["licences"]["green"] == "CC0-1.0"


def test_packed_folders_and_tars_give_the_same(table, green, tmp_path, to_tars):
    data, path = table
    assert to_tars(path, data.path, tmp_path / "tars").status == 0
    loose = scored(data.path, tmp_path / "loose", "--scores", green)
    of_tars = scored(tmp_path / "tars", tmp_path / "of_tars", "--scores", green)
    assert called("pack_finished_folders", [data.path]).status in (0, 3)
    packed = scored(data.path, tmp_path / "packed", "--scores", green)
    assert loose.status == of_tars.status == packed.status == 0
    expected = values_of(tmp_path / "loose")
    assert len(expected) == 36
    assert values_of(tmp_path / "of_tars") == values_of(tmp_path / "packed") == expected


def test_parts_together_are_the_whole(folder, green, tmp_path):
    data = folder().fill(range(8), 2)
    for number in range(3):
        part = scored(
            data.path, tmp_path / "parts", "--scores", f"dhash,{green}", "--part", f"{number}/3"
        )
        assert part.status == 0
    scored(data.path, tmp_path / "whole", "--scores", f"{green},dhash")
    rows = {
        name: sorted(map(str, pq.read_table(tmp_path / name).to_pylist()))
        for name in ("parts", "whole")
    }
    assert len(rows["whole"]) == 16
    assert [sorted(eval(row).items()) for row in rows["parts"]] == [
        sorted(eval(row).items()) for row in rows["whole"]
    ]


def test_an_end_in_the_middle_costs_the_last_batch_alone(folder, green, tmp_path, monkeypatch):
    data = folder().fill(range(6), 2)
    monkeypatch.setattr(score_folder, "BATCH", 2)
    monkeypatch.setattr(score_folder, "MOST_ROWS", 2)
    monkeypatch.setenv("GREEN_FAILS_AFTER", "6")
    output = tmp_path / "scores"
    ended = scored(data.path, output, "--scores", green)
    assert ended.status == 1
    assert "the score green failed: RuntimeError: enough" in ended.err
    assert len(values_of(output)) == 6
    monkeypatch.delenv("GREEN_FAILS_AFTER")
    assert scored(data.path, output, "--scores", green).out.endswith(
        "6 images scored, 6 were there\n"
    )
    assert len(values_of(output)) == 12


def test_killed_at_any_write_a_table_is_whole(folder, green, tmp_path, dying):
    data = folder().fill(range(2), 2)
    for at in range(5):
        output = tmp_path / f"scores{at}"
        dying(at, "score_images", data.path, output, "--scores", green)
        assert scored(data.path, output, "--scores", green).status == 0
        assert len(values_of(output)) == 4


def test_scores_of_the_run_are_taken_from_the_jsons(folder, green, tmp_path):
    data = folder()
    own = {"scores": {"green": 0.5}, "score_versions": ["green 1"]}
    data.add(0, 0, **own)
    data.add(0, 1, **own | {"score_versions": ["green 0"]})
    ended = scored(data.path, tmp_path / "scores", "--scores", green)
    assert ended.out == f"{tmp_path / 'scores'}: 1 images scored, 1 taken from their JSONs\n"
    assert values_of(tmp_path / "scores") == {"HPDv2/000000/0_0": 0.5, "HPDv2/000000/0_1": 1.0}


def test_what_cannot_be_read_is_named(folder, green, tmp_path):
    data = folder().fill(range(2), 2)
    data.place(1, 1).with_suffix(".jpg").write_bytes(b"no image")
    ended = scored(data.path, tmp_path / "scores", "--scores", green)
    assert ended.status == 3
    assert "3 images scored; 1 left out: 000000/1_1.jpg: cannot be read" in ended.out


@pytest.mark.parametrize(
    "field, value, left_out",
    [
        ("image_sha256", 5, True),
        ("image_sha256", "é" * 64, True),
        ("image_sha256", ["a"], True),
        ("augmented_prompt", "half of one: \ud800 “1”", True),  # no tokenizer takes it
        ("scores", {"green": 10**400}, False),
        ("scores", {"green": True}, False),
        ("scores", {"green": [1]}, False),
        ("score_versions", [{}, None], False),
        ("score_versions", 5, False),
    ],
)
def test_a_hostile_json_costs_its_own_sample(folder, green, tmp_path, field, value, left_out):
    """One number in the place of a hash ended all with a traceback."""
    data = folder().fill(range(2), 2)
    changes = {"score_versions": ["green 1"], "scores": {"green": 0.5}} | {field: value}
    data.add(1, 1, **changes)
    ended = scored(data.path, tmp_path / "scores", "--scores", green)
    assert ended.status == (3 if left_out else 0), ended.out + ended.err
    assert f"{3 if left_out else 4} images scored" in ended.out
    assert ("000000/1_1.json" in ended.out) == left_out
    assert len(values_of(tmp_path / "scores")) == (3 if left_out else 4)


def test_no_more_pixels_at_once_than_there_is_memory_for(folder, green, tmp_path, monkeypatch):
    """One picture of 169 million pixels ended the whole scoring, each time again."""
    data = folder().fill(range(3), 3)
    with open_jpeg(data.place(0, 0).with_suffix(".jpg").read_bytes()) as image:
        width, height = image.size
        image.resize((2 * width, 2 * height)).save(data.place(1, 1).with_suffix(".jpg"), "JPEG")
    most = 3 * width * height  # three of the others, and less than that one
    monkeypatch.setattr(score_folder, "MOST_PIXELS", most)
    at_once = []

    def score(scores, pixels, texts):
        at_once.append(sum(each.shape[0] * each.shape[1] for each in pixels))
        return values(scores, pixels, texts)

    values = score_folder.values_of
    monkeypatch.setattr(score_folder, "values_of", score)
    ended = scored(data.path, tmp_path / "scores", "--scores", green)
    assert ended.status == 3
    says = f"8 images scored; 1 left out: 000000/1_1.jpg: cannot be read: it has more than {most:,}"
    assert says in ended.out
    assert max(at_once) == most and sum(at_once) == 8 * width * height


def test_where_nothing_can_be_read_nothing_is_compared(folder, tmp_path):
    data = folder()
    (data.path / "torn.tar").write_bytes(b"no tar at all" * 100)
    ended = scored(data.path, tmp_path / "scores", "--scores", "dhash")
    assert ended.status == 3 and "0 images scored; 1 left out" in ended.out, ended.out + ended.err


def test_other_scores_need_another_folder(folder, green, tmp_path):
    data = folder().fill(range(1), 1)
    scored(data.path, tmp_path / "scores", "--scores", green)
    ended = scored(data.path, tmp_path / "scores", "--scores", "sharpness")
    assert (
        ended.status == 1 and "holds the scores green (1), and asked for are sharpness" in ended.err
    )
    assert "no such folder" in scored(tmp_path / "none", tmp_path / "x", "--scores", green).err
    assert "no such score" in scored(data.path, tmp_path / "x", "--scores", "beauty").err


# ---------------------------------------------------------------- --where


def keys_of(members) -> set[str]:
    return {name.removesuffix(".jpg") for name in members if name.endswith(".jpg")}


def test_a_subset_that_a_stranger_repeats(table, green, tmp_path, to_tars, tar_members):
    """From the published table and scores alone, with other shards."""
    data, path = table
    assert scored(data.path, tmp_path / "scores", "--scores", green).status == 0
    words = ["--scores", tmp_path / "scores", "--where", "score_green < 2 and prompt_index >= 1000"]
    ended = to_tars(path, data.path, tmp_path / "tars", *words)
    assert ended.status == 0 and "--where takes 14 of 36 rows" in ended.out
    taken = keys_of(tar_members(tmp_path / "tars"))
    assert taken == {f"HPDv2/000001/{p}_{a}" for p in range(1000, 1007) for a in range(2)}
    assert json.loads((tmp_path / "tars" / "index.json").read_text())["where"] == {
        "expression": "score_green < 2 and prompt_index >= 1000",
        "scores": {"green": "1"},
        "rows": 36,
        "taken": 14,
        "refused": 22,
    }
    again = to_tars(path, data.path, tmp_path / "again", *words, "--shuffle_seed", 5)
    assert again.status == 0
    assert keys_of(tar_members(tmp_path / "again")) == taken


def test_scores_in_the_jsons_need_no_table(folder, tmp_path, to_parquet, to_tars, tar_members):
    data = folder()
    for aug, value in enumerate([0.1, 0.9, None]):
        data.add(0, aug, scores={"clip": value})
    data.add(0, 3)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    ended = to_tars(
        tmp_path / "t.parquet", data.path, tmp_path / "tars", "--where", "not score_clip < 0.5"
    )
    assert ended.status == 0, ended.err
    assert keys_of(tar_members(tmp_path / "tars")) == {"HPDv2/000000/0_1"}


def test_a_folder_of_tars_has_one_filter(table, green, tmp_path, to_tars):
    data, path = table
    scored(data.path, tmp_path / "scores", "--scores", green)
    words = ["--scores", tmp_path / "scores", "--where"]
    output = tmp_path / "tars"
    assert to_tars(path, data.path, output, *words, "score_green < 2").status == 0
    assert to_tars(path, data.path, output, *words, "score_green < 2").status == 0
    other = to_tars(path, data.path, output, *words, "score_green < 1")
    assert "was written with --where score_green < 2, now it is score_green < 1" in other.err
    names = to_tars(path, data.path, tmp_path / "x", *words, "score_clip < 1")
    assert "--where names score_clip, and the table has" in names.err
    none = to_tars(path, data.path, tmp_path / "y", *words, "score_green > 100")
    assert "--where 'score_green > 100' takes no row" in none.err


def test_scores_that_come_later_do_not_shift_what_is_written(
    folder, green, tmp_path, to_parquet, to_tars
):
    """Rows had no score when the tars were begun, and have one now."""
    data = folder().fill(range(4), 2)
    scored(data.path, tmp_path / "scores", "--scores", green)
    data.fill(range(4, 6), 2)
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    words = ["--scores", tmp_path / "scores", "--where", "score_green < 1"]
    assert (
        "takes 4 of 12" in to_tars(tmp_path / "t.parquet", data.path, tmp_path / "tars", *words).out
    )
    scored(data.path, tmp_path / "scores", "--scores", green)
    ended = to_tars(tmp_path / "t.parquet", data.path, tmp_path / "tars", *words)
    assert ended.status == 1 and "the scores have changed since it was begun" in ended.err
    assert (
        "takes 6 of 12" in to_tars(tmp_path / "t.parquet", data.path, tmp_path / "new", *words).out
    )


def test_near_duplicates_of_a_prompt(folder, tmp_path):
    from PIL import Image

    data = folder().fill(range(2), 2)
    stripes = Image.new("L", (64, 64))
    for x in range(64):
        stripes.paste((x * 37) % 256, (x, 0, x + 1, 64))
    place = data.add(0, 2)
    stripes.save(place.with_suffix(".jpg"), "JPEG")
    scored(data.path, tmp_path / "scores", "--scores", "dhash")
    found = ScoreTable.read(str(tmp_path / "scores"))
    distances = {key: found.of(key)["dhash_distance"] for key in found.places}
    assert distances["HPDv2/000000/0_0"] == distances["HPDv2/000000/1_0"] == 64, (
        "the first one of a prompt"
    )
    assert distances["HPDv2/000000/0_1"] == distances["HPDv2/000000/1_1"] == 0
    assert distances["HPDv2/000000/0_2"] > 6


JUDGED = {
    "accept": "clip > 0.2",
    "score_versions": ["clip 1", "nsfw 2"],
    "scores": {"clip": 0.25, "nsfw": None},
    "tries": 2,
    "rejected": [{"seed": 2**62, "scores": {"clip": 0.1, "nsfw": 1e-05}}],
}


def contents(folder, changes) -> list[bytes]:
    return [folder.add(0, n, **each).with_suffix(".json").read_bytes() for n, each in changes]


@pytest.mark.parametrize(
    "changes, together",
    [
        ([JUDGED, JUDGED | {"scores": {"clip": 1.0, "nsfw": 0.5}, "rejected": []}], True),
        ([JUDGED | {"accept": None}, JUDGED | {"accept": None}], True),
        ([JUDGED, {}], True),
        ([{}, JUDGED], False),
        ([JUDGED, JUDGED | {"scores": {"clip": 0.25, "other": 0.5}}], False),
        ([JUDGED, JUDGED | {"scores": {"clip": "high"}}], False),
        ([JUDGED | {"scores": {}}, JUDGED], False),
    ],
)
def test_judged_jsons_are_read_together_as_one_by_one(folder, changes, together):
    given = contents(folder(), enumerate(changes))
    found = sample_json.parse_together(given)
    assert (found is not None) is together
    if found is not None:
        apart, kept, reasons = sample_json.parse_apart(given)
        assert (kept, reasons) == ([0, 1], {})
        columns = apart.schema.names
        assert found.select(columns).to_pylist() == apart.to_pylist()
