"""release.py --where and --scores: a subset that a stranger repeats, published with scores."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postprocess_dataset.manifest.shards import read_shard
from postprocess_dataset.score_table import ScoreTable
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.verified import IMAGES, PROMPTS, RunFolder

NUMBER = """
class Number:
    name, version, licence = "number", "1", "CC0-1.0"
    def score(self, images, texts):
        return [float(sum(text.encode()) % 4) for text in texts]
"""
CHOSEN = "score_number < 2 and prompt_index > 995"


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "HPDv2").fill(PROMPTS, IMAGES).finish(PROMPTS)


@pytest.fixture
def scores(run, tmp_path):
    """Scores what has none yet; the table of scores of the run."""
    (tmp_path / "number.py").write_text(NUMBER)

    def score():
        words = [run.path, tmp_path / "scores", "--scores", f"{tmp_path / 'number.py'}:Number"]
        assert called("score_images", words).status == 0
        return tmp_path / "scores"

    return score


def release(run, place, *options):
    return called("release", [run.path, place, "--num_workers", 1, *options])


def keys_in(place):
    tars = sorted(place.glob("webdataset/*.tar"))
    return [sample.key for tar in tars for sample in read_shard(str(tar))]


def wanted(scores):
    table = ScoreTable.read(str(scores))
    return {
        key
        for key in table.places
        if table.of(key)["score_number"] < 2 and not key.rpartition("/")[2].startswith("995_")
    }


def test_a_subset_says_how_it_is_repeated_and_brings_its_scores(run, scores, tmp_path):
    place = tmp_path / "birds"
    words = ("--where", CHOSEN, "--scores", scores())
    ended = release(run, place, *words)
    assert ended.status == 0, ended.out + ended.err
    keys = keys_in(place)
    assert set(keys) == wanted(tmp_path / "scores") and 0 < len(keys) < len(PROMPTS) * IMAGES
    rows = pq.read_table(place / "data" / "train-00000.parquet")
    assert rows["__key__"].to_pylist() == keys
    said = {"expression": CHOSEN, "scores": {"number": "1"}}
    assert json.loads(rows.schema.metadata[b"where"]) == said
    total = len(PROMPTS) * IMAGES
    said |= {"rows": total, "taken": len(keys), "refused": total - len(keys)}
    assert json.loads((place / "webdataset" / "index.json").read_text())["where"] == said
    assert json.loads((place / "release.json").read_text())["where"] == said
    card = (place / "README.md").read_text()
    assert f"Of {total} samples these are the {len(keys)} that fulfil `{CHOSEN}`" in card
    assert "| `number` | 1 | CC0-1.0 |" in card and "scores/: number" in card
    croissant = json.loads((place / "croissant.json").read_text())
    assert "scores/*.parquet" in [part.get("includes") for part in croissant["distribution"]]
    page = (place / "report.html").read_text()
    assert "refused by --where score_number &lt; 2" in page
    listed = {file["path"] for file in json.loads((place / "MANIFEST.json").read_text())["files"]}
    assert {"release.json", "scores/part-00000-of-00001.000000.parquet"} <= listed
    copy = shutil.copytree(place, tmp_path / "elsewhere")
    assert called("verify_dataset", [copy, "--manifest"]).status == 0
    table = ScoreTable.read(str(copy / "scores"))
    assert table.rows["__key__"].to_pylist() == keys
    assert table.rows["image_sha256"].equals(rows["image_sha256"])
    own = ScoreTable.read(str(tmp_path / "scores"))
    assert [table.of(key) for key in keys] == [own.of(key) for key in keys]
    other = release(run, place, "--where", "prompt_index > 0", "--scores", tmp_path / "scores")
    assert other.status == 1 and "was written with --where" in other.err


def test_a_subset_grows(run, scores, tmp_path):
    place = tmp_path / "birds"
    assert release(run, place, "--where", CHOSEN, "--scores", scores()).status == 0
    before = keys_in(place)
    run.fill(range(1003, 1006), IMAGES).finish(range(995, 1006))
    run.settle()
    ended = release(run, place, "--where", CHOSEN, "--scores", scores())
    assert ended.status == 0, ended.out + ended.err
    after = keys_in(place)
    assert after[: len(before)] == before and set(after) == wanted(tmp_path / "scores")
    assert len(after) > len(before)
    assert called("verify_dataset", [place, "--manifest"]).status == 0


def test_scores_alone_are_published_and_go_when_they_are_not_given(run, scores, tmp_path):
    place = tmp_path / "birds"
    assert release(run, place, "--scores", scores()).status == 0
    before = {path.name: path.stat().st_mtime_ns for path in place.glob("scores/*")}
    assert len(ScoreTable.read(str(place / "scores")).places) == len(PROMPTS) * IMAGES
    again = release(run, place, "--scores", scores())
    assert again.status == 0 and "counted:" not in again.out
    assert {path.name: path.stat().st_mtime_ns for path in place.glob("scores/*")} == before
    assert release(run, place).status == 0
    assert not (place / "scores").exists() and not (place / "release.json").exists()
    assert called("verify_dataset", [place, "--manifest"]).status == 0


def test_images_without_scores_are_found_before_anything_is_published(run, scores, tmp_path):
    folder = scores()
    run.fill(range(1003, 1005), IMAGES).finish(range(995, 1005))
    ended = release(run, tmp_path / "birds", "--scores", folder)
    assert ended.status == 1 and "--allow missing" in ended.err
    assert not (tmp_path / "birds" / "README.md").exists()
    ended = release(run, tmp_path / "birds", "--scores", folder, "--allow", "missing")
    assert ended.status == 0, ended.err
    card = (tmp_path / "birds" / "README.md").read_text()
    assert "24 samples have scores, 6 have none" in card
    table = ScoreTable.read(str(tmp_path / "birds" / "scores"))
    assert table.of("HPDv2/000001/1004_0") == {"score_number": None}


@pytest.mark.parametrize(
    "words, says",
    [
        (["--where", "score_number <"], "expression 'score_number <'"),
        (["--where", "beauty > 1"], "--where names beauty"),
        (["--scores", "nowhere"], "nowhere: no table of scores"),
    ],
)
def test_what_cannot_choose_is_one_line(run, tmp_path, words, says):
    ended = release(run, tmp_path / "birds", *words)
    assert ended.status == 1 and says in ended.err and "Traceback" not in ended.err
    assert not (tmp_path / "birds" / "README.md").exists()


@pytest.mark.parametrize(
    "name, value",
    [("note", "/home/alice"), ("score_number", "/home/alice"), ("score_/home/alice", 1.0)],
)
def test_what_is_no_score_is_not_published(run, scores, tmp_path, name, value):
    folder = scores()
    (path,) = folder.glob("part-*")
    rows = pq.read_table(path)
    others = [column for column in rows.schema.names if column != name]
    column = pa.array([value] * rows.num_rows)
    pq.write_table(rows.select(others).append_column(name, column), path)
    ended = release(run, tmp_path / "birds", "--scores", folder)
    assert ended.status == 1 and f"its column {name} (" in ended.err and "is no score" in ended.err


def test_no_folder_is_published_with_scores(run, scores, tmp_path):
    """Of versions, licences and near duplicates of other hands."""
    folder = scores()
    (path,) = folder.glob("part-*")
    rows = pq.read_table(path)
    said = {"scores": {"number": "/home/alice/own 1"}, "licences": {"number": "/home/alice/L"}}
    said["more"] = "/home/alice"
    twins = pa.array(["/home/alice"] * rows.num_rows)
    rows = rows.append_column("near_duplicate_of", twins)
    metadata = {b"text_to_image_scores": json.dumps(said)}
    pq.write_table(rows.replace_schema_metadata(metadata), path)
    place = tmp_path / "birds"
    assert release(run, place, "--scores", folder).status == 0
    published = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    assert not [content for content in published if b"alice" in content]
    assert set(pq.read_table(place / "scores")["near_duplicate_of"].to_pylist()) == {None}
