"""What another hand wrote under a name that a script writes stays, and is named in one line."""

import os
import resource
import shutil
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postprocess_dataset import own_files
from postprocess_dataset.own_files import CARD
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.verified import make, refused, release

PAGE = "<html>my own page, made by me</html>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set, its table and tars, and a finished release of it, birds."""
    root = make(tmp_path_factory.mktemp("made"))
    assert release(root).status == 0
    return root


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "root", copy_function=shutil.copy2))


def bytes_below(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CARD)
def test_a_card_of_another_hand_stays(root, name):
    """A folder of parquet files as others publish it, and a file put into a release of ours."""
    other = root / "other"
    shutil.copytree(root / "birds" / "data", other / "data")
    for place in (other, root / "birds"):
        (place / name).write_text("mine " * 1000)
        before = bytes_below(root)
        refused(called("make_dataset_card", [place]), str(place / name), "move it to another")
        if place != other:
            refused(release(root), str(place / name))
        assert bytes_below(root) == before
        (place / name).unlink()
        assert called("make_dataset_card", [place]).status == 0
        assert called("make_dataset_card", [place]).status == 0, "ours are made again"


def test_a_long_card_is_known_as_ours(root):
    """The mark may lie anywhere, across the pieces in which a file is read, too."""
    about = root / "about.yaml"
    about.write_text(f"biases: {'none that we know of. ' * 900}\n")
    for _ in range(2):
        ended = called("make_dataset_card", [root / "birds", "--about", about])
        assert ended.status == 0, ended.err


def test_a_mark_behind_a_zero_byte_is_none(root):
    """So a sparse file of terabytes is refused at its beginning."""
    readme = root / "birds/README.md"
    text = readme.read_bytes()
    readme.write_bytes(b"\0" * own_files.PIECE + text)
    refused(called("make_dataset_card", [root / "birds"]), "README.md")


def test_a_page_of_another_hand_stays(root):
    page = root / "mine.html"
    page.write_text(PAGE)
    refused(called("make_report", [root / "t.parquet", page]), "mine.html")
    assert page.read_text() == PAGE
    page.unlink()
    for _ in range(2):
        assert called("make_report", [root / "t.parquet", page]).status == 0
    (root / "birds/report.html").write_text(PAGE)
    refused(release(root), "birds/report.html")
    assert (root / "birds/report.html").read_text() == PAGE


def test_a_manifest_of_another_hand_stays(root):
    """And is named before the hours of a verification."""
    manifest = root / "tars/MANIFEST.json"
    words = [root / "HPDv2", "--parquet_file", root / "t.parquet", "--tars", root / "tars"]
    words += ["--report", root / "v.json"]
    manifest.write_text('{"mine": 1}')
    refused(called("verify_dataset", words), "MANIFEST.json")
    assert manifest.read_text() == '{"mine": 1}' and not (root / "v.json").exists()
    manifest.unlink()
    for _ in range(2):
        assert called("verify_dataset", words).status == 0


def test_a_folder_of_others_does_not_become_a_release(root):
    """An empty work folder beside it says nothing, nor do the names of its files."""
    mine = root / "mine"
    mine.mkdir()
    for name in ("README.md", "release.json"):
        (mine / name).write_text("{}")
        for _ in range(2):
            words = [root / "HPDv2", mine, "--num_workers", 1]
            refused(called("release", words), "mine is not empty", "public.parquet")
            (root / "mine.work").mkdir(exist_ok=True)
        assert (mine / name).read_text() == "{}"
        (mine / name).unlink()


@pytest.mark.parametrize("name", ["index.json", "index_val.json", "output_dataset_7_stats.json"])
def test_an_index_of_another_hand_stays(root, to_tars, name):
    """Where no plan lies, no tar of ours lies, nor an index of them."""
    place = root / "mine"
    place.mkdir()
    (place / name).write_text("[1]")
    ended = to_tars(root / "t.parquet", root, place)
    refused(ended, name, "choose an empty --output_dir")
    assert bytes_below(place) == {place / name: b"[1]"}
    (place / name).rename(place / "notes.json")
    for _ in range(2):
        assert to_tars(root / "t.parquet", root, place).status == 0


def test_a_table_of_another_hand_stays(root, to_parquet):
    path = root / "theirs.parquet"
    pq.write_table(pq.read_table(root / "t.parquet").replace_schema_metadata(None), path)
    before = path.read_bytes()
    refused(to_parquet(root / "HPDv2", path), "theirs.parquet", "--rebuild")
    assert path.read_bytes() == before
    assert to_parquet(root / "HPDv2", path, "--rebuild").status == 0


@pytest.mark.parametrize("name", ["notes.txt", "part-00000.parquet", "more"])
def test_a_folder_of_another_hand_is_not_replaced_by_a_table(folder, to_parquet, tmp_path, name):
    data = folder().fill([1, 2], 2)
    output = tmp_path / "t.parquet"
    for part in ("0/2", "1/2"):
        assert to_parquet(data.path, output, "--part", part).status == 0
    foreign = output / name / "x" if name == "more" else output / name
    foreign.parent.mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), foreign)
    before = foreign.read_bytes()
    refused(to_parquet(data.path, output, "--part", "0/2", "--finish"), name, "move it")
    assert foreign.read_bytes() == before
    shutil.rmtree(output)
    assert to_parquet(data.path, output, "--part", "0/2", "--finish").status == 0


@pytest.mark.parametrize("note", ["state", "rejects.jsonl", "gone.jsonl"])
@pytest.mark.parametrize("parts", [False, True])
def test_notes_of_another_hand_are_kept(folder, to_parquet, tmp_path, note, parts):
    """Beside a table that is made for the first time, by one process or of parts."""
    data = folder().fill([1, 2], 2)
    path, other = tmp_path / "t.parquet", tmp_path / f"t.parquet.{note}"
    other.write_text("a letter\n")
    if parts:
        assert to_parquet(data.path, path, "--part", "0/1").status == 0
    words = (data.path, path, *(("--part", "0/1", "--finish") if parts else ()))
    ended = to_parquet(*words)
    kept = tmp_path / f"t.parquet.{note}.damaged"
    assert ended.status == 0 and f"it is {kept} now" in ended.err + ended.out, ended.err
    assert kept.read_text() == "a letter\n"
    ended = to_parquet(data.path, path, "--update")
    assert ended.status == 0 and kept.name not in ended.err


def little_memory():
    resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))


@pytest.mark.parametrize("begin", [b"", b"{"])
@pytest.mark.parametrize("note", ["state", "rejects.jsonl", "gone.jsonl"])
def test_a_sparse_note_is_not_read_into_memory(folder, process, tmp_path, note, begin):
    data = folder().fill([1, 2], 2)
    path, other = tmp_path / "t.parquet", tmp_path / f"t.parquet.{note}"
    assert process("convert_json_to_parquet", data.path, path).returncode == 0
    other.write_bytes(begin)
    os.truncate(other, 3 << 30)
    words = "convert_json_to_parquet", data.path, path, "--update"
    ended = process(*words, preexec_fn=little_memory)
    kept = tmp_path / f"t.parquet.{note}.damaged"
    assert ended.returncode == 0 and f"it is {kept} now" in ended.stderr, ended.stderr
    assert kept.stat().st_size == 3 << 30


@pytest.mark.parametrize("name", ["plan", "000000_stats"])
def test_a_sparse_plan_is_not_read_into_memory(folder, process, tmp_path, name):
    data, path, tars = folder().fill([1, 2], 2), tmp_path / "t.parquet", tmp_path / "tars"
    assert process("convert_json_to_parquet", data.path, path).returncode == 0
    words = "--parquet_file", path, "--base_dir", data.path.parent, "--output_dir", tars
    assert process("convert_parquet_to_wds", *words).returncode == 0
    os.truncate(tars / f"output_dataset_{name}.json", 3 << 30)
    ended = process("convert_parquet_to_wds", *words, preexec_fn=little_memory)
    if name == "plan":
        assert ended.returncode == 1 and "zero bytes" in ended.stderr, ended.stderr
        assert ended.stderr.count("\n") == 1
    else:
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("note", ["state", "rejects.jsonl", "gone.jsonl"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("precious")])
def test_a_link_or_pipe_in_place_of_a_note_is_refused(folder, to_parquet, tmp_path, note, make):
    data = folder().fill([1, 2], 2)
    (tmp_path / "precious").write_text("")
    other = tmp_path / f"t.parquet.{note}"
    make(other)
    refused(to_parquet(data.path, tmp_path / "t.parquet"), other.name, "no plain file")
    assert not stat.S_ISREG(os.lstat(other).st_mode)


@pytest.mark.parametrize("name", ["_near_duplicates.parquet", "part-00000-of-00001.000000.parquet"])
@pytest.mark.parametrize("other", ["text", "table", "pipe"])
def test_scores_among_files_of_another_hand(data, tmp_path, process, name, other):
    """A pipe is not waited for."""
    output = tmp_path / "scores"
    output.mkdir()
    path = output / name
    if other == "pipe":
        os.mkfifo(path)
    elif other == "table":
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        path.write_text("mine")
    before = None if other == "pipe" else path.read_bytes()
    ended = process("score_images", data.path, output, "--scores", "dhash")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert name in ended.stderr and os.listdir(output) == [name]
    assert other == "pipe" or path.read_bytes() == before
