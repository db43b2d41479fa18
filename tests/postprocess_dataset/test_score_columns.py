"""Scores of a run as columns of its table: as its dataset.yaml names them, whatever the samples."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postprocess_dataset import score_columns, table
from postprocess_dataset.report import gather
from postprocess_dataset.score_table import ScoreTable, publish
from postprocess_dataset.verification import folders
from tests.postprocess_dataset.conftest import called

DEFINITION = 'scores: "clip openai/clip; nsfw open_nsfw 864d"\naccept: clip > 0.2\n'


@pytest.fixture
def judged(folder):
    """Three samples with scores, one of which nsfw has none for, and one without any."""
    data = folder()
    (data.path / "dataset.yaml").write_text(DEFINITION)
    for aug, nsfw in enumerate([0.5, None, 1]):
        data.add(0, aug, scores={"clip": aug / 10, "nsfw": nsfw}, tries=1, rejected=[])
    data.add(1, 0)
    return data


def columns_of(path):
    rows = pq.read_table(path).sort_by("__key__").to_pylist()
    return [(row["score_clip"], row["score_nsfw"]) for row in rows]


EXPECTED = [(0.0, 0.5), (0.1, None), (0.2, 1.0), (None, None)]


def test_scores_become_columns(judged, tmp_path, to_parquet):
    assert to_parquet(judged.path, tmp_path / "t.parquet").status == 0
    assert columns_of(tmp_path / "t.parquet") == EXPECTED
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert schema.field("score_clip").type == pa.float64() and schema.field("score_clip").nullable
    assert table.facts(tmp_path / "t.parquet")["scores"] == ["clip", "nsfw"]
    extra = json.loads(pq.read_table(tmp_path / "t.parquet")["extra"][0].as_py())
    assert extra["tries"] == 1 and "scores" in extra, "the rest stays there, as before"


def test_no_columns_without_scores(folder, tmp_path, to_parquet):
    data = folder().fill(range(1), 1)
    (data.path / "dataset.yaml").write_text("scores: null\n")
    assert to_parquet(data.path, tmp_path / "t.parquet").status == 0
    assert pq.read_schema(tmp_path / "t.parquet").equals(table.schema())


def test_parts_and_updates_have_the_same_columns(judged, tmp_path, to_parquet):
    """A part without any sample that has scores, too."""
    output = tmp_path / "t.parquet"
    for number in range(4):
        assert to_parquet(judged.path, output, "--part", f"{number}/4").status == 0
    assert to_parquet(judged.path, output, "--part", "0/4", "--finish").status == 0
    assert columns_of(output) == EXPECTED
    judged.add(2, 0, scores={"clip": 0.9, "nsfw": 0.1})
    assert to_parquet(judged.path, output, "--update").status == 0
    assert columns_of(output) == [*EXPECTED, (0.9, 0.1)]


def test_an_update_of_one_file(judged, tmp_path, to_parquet):
    output = tmp_path / "t.parquet"
    assert to_parquet(judged.path, output).status == 0
    judged.add(2, 0, scores={"clip": 0.9, "nsfw": 0.1})
    assert to_parquet(judged.path, output, "--update").status == 0
    assert columns_of(output) == [*EXPECTED, (0.9, 0.1)]


def test_a_table_of_before_is_updated_as_it_is(judged, tmp_path, to_parquet):
    """Without the columns; --rebuild makes them."""
    output = tmp_path / "t.parquet"
    (judged.path / "dataset.yaml").rename(tmp_path / "kept.yaml")
    assert to_parquet(judged.path, output).status == 0
    (tmp_path / "kept.yaml").rename(judged.path / "dataset.yaml")
    judged.add(2, 0, scores={"clip": 0.9, "nsfw": 0.1})
    assert to_parquet(judged.path, output, "--update").status == 0
    assert pq.read_table(output).num_rows == 5
    assert pq.read_schema(output).equals(table.schema())
    assert to_parquet(judged.path, output, "--rebuild").status == 0
    assert columns_of(output) == [*EXPECTED, (0.9, 0.1)]


def test_where_takes_the_columns_unless_a_table_of_scores_has_it(
    judged, tmp_path, to_parquet, to_tars, tar_members
):
    assert to_parquet(judged.path, tmp_path / "t.parquet").status == 0
    words = ["--where", "score_clip >= 0.1"]
    ended = to_tars(tmp_path / "t.parquet", judged.path, tmp_path / "tars", *words)
    assert ended.status == 0 and "takes 2 of 4 rows" in ended.out
    facts = {"scores": {"clip": "2"}, "licences": {}}
    (tmp_path / "scores").mkdir()
    rows = [{"__key__": "HPDv2/000000/1_0", "score_clip": 0.7}]
    publish(rows, str(tmp_path / "scores" / "part-00000-of-00001.000000.parquet"), facts)
    assert ScoreTable.read(str(tmp_path / "scores")).names == ["score_clip"]
    words += ["--scores", tmp_path / "scores"]
    ended = to_tars(tmp_path / "t.parquet", judged.path, tmp_path / "two", *words)
    assert ended.status == 0, ended.err
    assert "takes 1 of 4 rows" in ended.out


@pytest.mark.parametrize(
    "text",
    ["scores: [clip]", "scores: 7", "- a list", "{", "scores: '../etc x; Clip y'", ""],
)
def test_definitions_of_other_hands(tmp_path, text):
    (tmp_path / "dataset.yaml").write_text(text)
    assert score_columns.names_of([str(tmp_path)]) == []


def test_the_newest_definition_counts(tmp_path):
    for number, scores in ((1, "clip a"), (2, "clip a"), (10, "clip a; nsfw b")):
        name = "dataset.yaml" if number == 1 else f"dataset.{number}.yaml"
        (tmp_path / name).write_text(f'scores: "{scores}"\n')
    assert score_columns.names_of([str(tmp_path)]) == ["clip", "nsfw"]


def test_of_many_definitions_the_newest_alone_is_parsed(folder, to_parquet, tmp_path, monkeypatch):
    """64 kB of YAML take seconds, and links to one file cost nothing on the disk."""
    data, path = folder().fill([1], 2), tmp_path / "t.parquet"
    for number in range(2, 30):
        (data.path / f"dataset.{number}.yaml").write_text("name: HPDv2\n")
    assert to_parquet(data.path, path).status == 0
    parsed = []
    for module in (gather, folders):
        monkeypatch.setattr(module, "parse_yaml", lambda text: parsed.append(1) or {})
    called("make_report", (path, tmp_path / "r.html"))
    words = (data.path, "--parquet_file", path, "--report", tmp_path / "v.json")
    called("verify_dataset", words)
    assert len(parsed) == 2
