"""A release folder holds what a release writes and nothing else, and nothing of others goes."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from postprocess_dataset.manifest import manifest
from postprocess_dataset.manifest.manifest import write_manifest
from postprocess_dataset.release_folder import PUBLISHED, WORK, making, others, work_folder
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.verified import IMAGES, PROMPTS, RunFolder, make, refused, release


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set and a finished release of it, birds."""
    root = make(tmp_path_factory.mktemp("made"))
    assert release(root).status == 0
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy; its tars and those of the release are one file each, as a release leaves them."""
    copy = shutil.copytree(made, tmp_path / "root", copy_function=shutil.copy2)
    return Path(copy)


def bytes_below(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "key.pem",
        "data/mine.parquet",
        "data/more/x",
        "webdataset/my.tar",
        "scores/a.py",
    ],
)
def test_what_no_release_writes_is_refused_by_name_before_anything_is_done(root, name):
    path = root / "birds" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = bytes_below(root)
    refused(release(root), name.rpartition("/x")[0] or name, "no release writes")
    assert bytes_below(root) == before
    path.unlink()
    if name.count("/") > 1:
        path.parent.rmdir()
    assert release(root).status == 0


@pytest.mark.parametrize("name", ["thesis.tex", "signed/mine.tar", "parquet/mine", "tars/a.tar"])
def test_files_of_others_in_the_work_folder_stay(root, name):
    path = root / "birds.work" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    refused(release(root), name, "birds.work")
    assert path.read_text() == "mine"


def test_what_comes_meanwhile_is_not_listed(root, monkeypatch):
    from postprocess_dataset.releasing import steps

    make_card = steps.make_card
    note = root / "birds" / "nohup.out"
    monkeypatch.setattr(steps, "make_card", lambda card: (make_card(card), note.write_text("x")))
    before = (root / "birds" / "MANIFEST.json").read_bytes()
    refused(release(root), "nohup.out")
    assert (root / "birds" / "MANIFEST.json").read_bytes() == before


def test_a_key_that_lies_in_the_release_is_refused(root):
    for name in (".key.pem", "README.md"):
        key = root / "birds" / name
        key.write_text("secret")
        refused(release(root, "--c2pa", key), name, "move it to another folder")


def test_the_forms_alone_are_not_written_among_the_files_of_others(root):
    mine = root / "mine"
    for name in ("data/mine.parquet", "scores/a.parquet", "metadata/x", "webdataset/my.tar"):
        (mine / name).parent.mkdir(parents=True)
        (mine / name).write_text("mine")
    shutil.copy(root / "t.parquet", mine)
    before = bytes_below(mine)
    for _ in range(2):
        ended = called("make_release_forms", [mine / "t.parquet", mine, "--base_dir", root])
        refused(ended, "is not empty")
        (root / "mine.work").mkdir(exist_ok=True)
        (root / "mine.work/public.parquet").touch()
        ended = called("make_release_forms", [mine / "t.parquet", mine, "--base_dir", root])
        refused(ended, "data/mine.parquet")
        shutil.rmtree(root / "mine.work")
    assert bytes_below(mine) == before


def test_the_release_of_this_very_folder_has_its_work_folder_beside_it(root, monkeypatch):
    (root / "here").mkdir()
    monkeypatch.chdir(root / "here")
    ended = called("make_release_forms", [root / "t.parquet", ".", "--base_dir", root])
    assert ended.status == 0, ended.err
    assert (root / "here.work" / "public.parquet").exists()
    assert others(str(root / "here"), PUBLISHED) == [] and work_folder("a/b/") == "a/b.work"


def test_a_table_of_scores_is_not_taken_for_a_published_one(root):
    """Hours of work under the name that its copy has in a release."""
    scores = root / "birds" / "scores"
    words = [root / "HPDv2", scores, "--scores", "dhash"]
    refused(called("score_images", words), "lies in a release")
    assert not scores.exists()
    words[1] = root / "mine"
    assert called("score_images", words).status == 0
    shutil.copytree(root / "mine", scores)
    before = bytes_below(scores)
    refused(release(root), "birds/scores", "--scores")
    refused(release(root, "--scores", scores), "birds/scores", "move it to another folder")
    assert bytes_below(scores) == before
    shutil.rmtree(scores)
    assert release(root, "--scores", root / "mine").status == 0
    assert json.loads((root / "birds" / "release.json").read_text())["scores"]["scored"] == 24
    (scores / ".mine").write_text("stays")
    assert release(root).status == 0
    assert [path.name for path in scores.iterdir()] == [".mine"]


def test_everything_that_a_release_writes_is_known(root):
    assert called("score_images", [root / "HPDv2", root / "s", "--scores", "dhash"]).status == 0
    for options in (["--form", "webdataset"], ["--scores", root / "s"]):
        assert release(root, *options).status == 0
        assert others(str(root / "birds"), PUBLISHED) == []
        assert others(str(root / "birds.work"), WORK) == []


def test_what_a_manifest_lists_beside_a_release_does_not_go_to_the_hub(root):
    place = root / "birds"
    (place / "key.pem").write_text("secret")
    work = root / "birds.work" / "verification.json"
    document = json.loads(work.read_text()) | {"root": write_manifest(str(place))}
    work.write_text(json.dumps(document))
    refused(called("push_to_hub", [place, "me/birds"]), "key.pem", "is no file of a release")


def nothing(place):
    pass


def another_tar(place):
    """Whole, with other samples, where the verified one was."""
    tar = place / "webdataset" / "train-000000.tar"
    content = tar.read_bytes()
    tar.unlink()  # that of the work folder stays
    tar.write_bytes(content + bytes(512))


def another_manifest(place):
    """Of files that nobody verified, and whole in itself."""
    card = place / "README.md"
    card.write_text(card.read_text() + "another word")
    write_manifest(str(place))


@pytest.mark.parametrize(
    "before, after, name",
    [
        (another_tar, nothing, "train-000000.tar"),
        (nothing, another_manifest, "MANIFEST.json"),
    ],
)
def test_what_changes_while_the_manifest_is_written_is_not_ready(
    root, monkeypatch, before, after, name
):
    def meanwhile(folder, *others):
        before(Path(folder))
        written = write_manifest(folder, *others)
        after(Path(folder))
        return written

    (root / "birds" / "MANIFEST.json").unlink()
    with monkeypatch.context() as patches:
        patches.setattr(manifest, "write_manifest", meanwhile)
        refused(release(root), name, "was changed by others meanwhile")
    verified = json.loads((root / "birds.work" / "verification.json").read_text())
    written = json.loads((root / "birds" / "MANIFEST.json").read_text())
    assert verified.get("root") != written["root"]
    assert release(root).status == 0


def test_what_lies_beside_tars_is_named_and_gets_no_manifest(root):
    (root / "tars" / "key.pem").write_text("secret")
    words = ("--parquet_file", root / "t.parquet", "--tars", root / "tars")
    words = (root / "HPDv2", *words, "--report", root / "v.json")
    ended = called("verify_dataset", words)
    assert ended.status == 1 and "foreign: 1" in ended.out and "key.pem" in ended.out
    assert not (root / "tars" / "MANIFEST.json").exists()


def test_one_process_at_a_time_makes_a_release(tmp_path):
    place = str(tmp_path / "birds")
    order = []

    def second():
        with making(place):
            order.append("second")

    with making(place):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_run_is_still_released_beside_hidden_files(tmp_path):
    """A clone of the hub's repository: .git and the like are neither published nor removed."""
    run = RunFolder(tmp_path / "HPDv2").fill(PROMPTS, IMAGES).finish(PROMPTS)
    (tmp_path / "birds" / ".git").mkdir(parents=True)
    ended = called("release", [run.path, tmp_path / "birds", "--num_workers", 1])
    assert ended.status == 0, ended.err
    assert (tmp_path / "birds" / ".git").is_dir()


@pytest.mark.parametrize(
    "name, content",
    [
        ("birds/MANIFEST.json", b'{"root": 7}'),
        ("birds/MANIFEST.json", b"torn"),
        ("birds.work/verification.json", b"[]"),
        ("birds.work/verification.json", b'{"good": true, "found": {}}'),
        ("birds.work/status.json", b"\xff\xfe"),
    ],
)
def test_side_files_changed_by_hand_are_made_again(root, name, content):
    manifest = (root / "birds" / "MANIFEST.json").read_bytes()
    (root / name).write_bytes(content)
    ended = release(root)
    assert ended.status == 0 and "is ready" in ended.out, ended.err
    assert (root / "birds" / "MANIFEST.json").read_bytes() == manifest
    verification = json.loads((root / "birds.work" / "verification.json").read_text())
    assert verification["root"] == json.loads(manifest)["root"] and verification["counted"]


@pytest.mark.parametrize(
    "name", ["birds/MANIFEST.json", "birds.work/public.parquet", "birds.work/status.json"]
)
@pytest.mark.parametrize(
    "make_special", [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p)]
)
def test_pipes_links_and_folders_in_place_of_files_are_refused(root, name, make_special):
    (root / name).unlink(missing_ok=True)
    make_special(root / name)
    refused(release(root), os.path.basename(name))


def test_a_tar_of_zeros_is_named(root):
    (tar,) = (root / "birds.work" / "tars").glob("*_000000.tar")
    tar.write_bytes(bytes(tar.stat().st_size))
    refused(release(root), "holds 0 samples", tar.name, "run the same command again")
    tar.unlink()
    assert release(root).status == 0
