"""JSON files of this project in which any field has any other value: never a traceback, no loss.

A damaged one is made again, or named in one line; nothing good is removed before it was checked.
"""

import json
import os
import shutil

import pytest

from common.sample_reader import iterate
from tests.postprocess_dataset import verified
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.own_json import damages
from tests.postprocess_dataset.verified import RunFolder, convert, make_tars, verify


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A data set of one image, and a row whose sample was deleted."""
    root = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verified, "IMAGES", 1)
        made = RunFolder(root / "HPDv2").fill([7, 8], 1).finish([7])
    convert(root)
    made.place(8, 0).with_suffix(".json").unlink()
    made.place(8, 0).with_suffix(".jpg").unlink()
    update(root)
    shutil.rmtree(root / "tars")
    make_tars(root)
    return root


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.soak)])
def every(request):
    """Whether each field is damaged in each way, or in three."""
    return request.param


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Some hundred runs each: no power fails here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def update(root):
    return called(
        "convert_json_to_parquet", (root / "HPDv2", root / "t.parquet", "--relative", "--update")
    )


def tars_again(root):
    words = (
        "--parquet_file",
        root / "t.parquet",
        "--base_dir",
        root,
        "--output_dir",
        root / "tars",
    )
    return called("convert_parquet_to_wds", (*words, "--shard_size_mb", 1, "--num_workers", 1))


def images(*folders):
    return {
        sample.jpeg()
        for folder in folders
        if folder.exists()
        for tar in folder.glob("*.tar")
        for sample in iterate(tar)
    }


def one_line(ended, said):
    """Done, or refused with one line."""
    assert "Traceback" not in ended.err, said
    refused = ended.status == 1 and ended.err.count("\n") == 1
    assert refused or ended.status in (0, 3) or "NOT GOOD" in ended.out, said


@pytest.mark.parametrize(
    "name", ["index.json", "output_dataset_plan.json", "output_dataset_000000_stats.json"]
)
def test_what_lies_beside_tars(small, tmp_path, name, every):
    root = tmp_path / "root"
    whole = images(small / "tars")
    for what, text in damages(small / "tars" / name, every):
        for script in (tars_again, lambda root: verify(root, "--repair")):
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(small, root)
            (root / "tars" / name).write_text(text)
            one_line(ended := script(root), f"{what}: {ended.out} {ended.err}")
            assert images(root / "tars", root / "tars.replaced") >= whole, what
            if "plan" not in name:
                assert ended.status == 0, what


@pytest.mark.parametrize(
    ("name", "scripts"),
    [
        ("state", ["update"]),
        ("rejects.jsonl", ["report", "update"]),
        ("gone.jsonl", ["tars_again", "report", "verify", "update"]),
    ],
)
def test_what_lies_beside_a_table(small, tmp_path, name, scripts, every):
    root = shutil.copytree(small, tmp_path / "root")
    (root / "HPDv2/000000/9_0.jpg").write_bytes(b"an image without JSON")
    assert update(root).status == 0
    place = root / f"t.parquet.{name}"
    rows = (root / "t.parquet").read_bytes()
    for what, text in list(damages(place, every)):
        for script in scripts:
            place.write_text(text + "\n")
            one_line(ended := globals()[script](root), f"{what}: {ended.out} {ended.err}")
            assert (root / "t.parquet").read_bytes() == rows, what


def report(root):
    return called("make_report", (root / "t.parquet", root / "report.html"))


def test_a_mark_of_a_packed_folder(small, tmp_path, every):
    root = shutil.copytree(small, tmp_path / "root")
    (root / "HPDv2/000000/COMPLETE").write_text("{}")
    assert called("pack_finished_folders", (root / "HPDv2",)).status == 0
    tar = (root / "HPDv2/000000/part-00000.tar").read_bytes()
    for what, text in damages(root / "HPDv2/000000/PACKED", every):
        copy = root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root / "HPDv2", copy / "HPDv2")
        (copy / "HPDv2/000000/PACKED").write_text(text)
        for script in ("pack_finished_folders", "verify_dataset", "convert_json_to_parquet"):
            others = [copy / "t.parquet", "--rebuild"] if script.startswith("convert") else []
            others += ["--report", copy / "v.json"] if script.startswith("verify") else []
            ended = called(script, (copy / "HPDv2", *others))
            one_line(ended, f"{script} {what}: {ended.out} {ended.err}")
            assert (copy / "HPDv2/000000/part-00000.tar").read_bytes() == tar, what


def test_the_reports_that_scripts_read(small, tmp_path, every):
    root = shutil.copytree(small, tmp_path / "root")
    (root / "p.json").write_text("[]")
    about = {"sources": {"hpd": {"terms": {"licence": "CC0-1.0"}}}}
    of_combine = root / "p.report.json"
    of_combine.write_text(json.dumps(about))
    use = {"prompt_tokens": 5, "completion_tokens": 6, "usd": 0.5}
    status = root / "status.json"
    status.write_text(json.dumps({"datasets": [{"name": "HPDv2", "set_aside": 1}], "llm": use}))
    for what, text in list(damages(of_combine, every)):
        of_combine.write_text(text)
        one_line(ended := verify(root, "--prompts", root / "p.json"), f"{what}: {ended.err}")
    for what, text in list(damages(status, every)):
        status.write_text(text)
        words = (root / "t.parquet", root / "report.html", "--status", status)
        one_line(ended := called("make_report", words), f"{what}: {ended.err}")


@pytest.fixture(scope="module")
def released(small, tmp_path_factory):
    """The data set with scores and a release of it."""
    root = tmp_path_factory.mktemp("released") / "root"
    shutil.copytree(small, root)
    scored = called("score_images", (root / "HPDv2", root / "scores", "--scores", "sharpness"))
    assert scored.status == 0 and release(root).status == 0
    return root


def release(root):
    filtered = ("--scores", root / "scores", "--where", "score_sharpness >= 0")
    return called("release", (root / "HPDv2", root / "birds", "--num_workers", 1, *filtered))


@pytest.mark.parametrize("name", ["verified.json", "parquet/train-000000.tar.json"])
def test_the_work_folder_of_a_release(released, tmp_path, name, every):
    """What is damaged there is made again: the release stays the one that it was."""
    root = shutil.copytree(released, tmp_path / "root")
    assert release(root).status == 0
    whole = (root / "birds/MANIFEST.json").read_bytes()
    place = root / "birds.work" / name
    for what, text in list(damages(place, every)):
        place.write_text(text)
        (root / "birds/MANIFEST.json").unlink()
        ended = release(root)
        assert ended.status == 0, f"{what}: {ended.err}"
        assert (root / "birds/MANIFEST.json").read_bytes() == whole, what


def test_what_a_release_says_of_itself(released, tmp_path, every):
    root = shutil.copytree(released, tmp_path / "root")
    note = root / "birds/release.json"
    for what, text in list(damages(note, every)):
        note.write_text(text)
        ended = called("make_dataset_card", (root / "birds",))
        one_line(ended, f"{what}: {ended.err}")
    note.write_text("[]")
    ended = release(root)
    assert ended.status == 1 and "remove it, and scores beside it" in ended.err
    note.unlink()
    shutil.rmtree(root / "birds/scores")
    assert release(root).status == 0


def test_the_manifest_of_a_download(released, tmp_path, every):
    root = shutil.copytree(released, tmp_path / "root")
    manifest = root / "birds/MANIFEST.json"
    for what, text in list(damages(manifest, every)):
        manifest.write_text(text)
        ended = called("verify_dataset", (root / "birds", "--manifest"))
        assert ended.status in (0, 1), what
        assert "DAMAGED" in ended.out or one_line(ended, f"{what}: {ended.err}") is None
