"""Where results go: no link or device is replaced, no planted file written, two writers get on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "postprocess_dataset"


def test_a_link_as_output(table, to_parquet, to_tars, tmp_path):
    data, path = table
    (tmp_path / "precious").write_text("mine")
    link = tmp_path / "link.parquet"
    link.symlink_to("precious")
    ended = to_parquet(data.path, link, "--rebuild")
    assert ended.status == 1 and link.is_symlink() and "link.parquet" in ended.err
    assert (tmp_path / "precious").read_text() == "mine" and ended.err.count("\n") == 1
    link.unlink()
    link.symlink_to("nothing")
    ended = to_parquet(data.path, link)
    said = f"{link}: it is no plain file, so it is not replaced"
    assert ended.status == 1 and said in ended.err and link.is_symlink()
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/output_dataset_000000.tar").symlink_to("../precious")
    (tmp_path / "tars/output_dataset_plan.json").symlink_to("../precious")
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert ended.status == 1 and (tmp_path / "precious").read_text() == "mine"


def test_a_device_as_output(table, to_parquet, tmp_path):
    data, _path = table
    os.mkfifo(tmp_path / "pipe.parquet")
    ended = to_parquet(data.path, tmp_path / "pipe.parquet")
    assert ended.status == 1 and ended.err.count("\n") == 1
    assert not (tmp_path / "pipe.parquet").is_file()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no plain file"):
        write_whole(tmp_path / "pipe", "text")
    assert not (tmp_path / "pipe").is_file()


@pytest.mark.parametrize("planted", ["link", "hard link", "pipe"])
def test_a_planted_temporary_file(table, to_parquet, tmp_path, planted):
    data, path = table
    precious = tmp_path / "precious"
    precious.write_text("mine")
    before = path.read_bytes()
    temporary = tmp_path / ".t.parquet.tmp"
    if planted == "link":
        temporary.symlink_to(precious)
    elif planted == "hard link":
        temporary.hardlink_to(precious)
    else:
        os.mkfifo(temporary)
    ended = to_parquet(data.path, path, "--rebuild")
    assert ended.status == 1 and ended.err.count("\n") == 1 and "Traceback" not in ended.err
    assert precious.read_text() == "mine" and path.read_bytes() == before


def test_two_tar_writers_at_once(folder, to_parquet, to_tars, tmp_path, tree):
    """Each waits for the shards of the other, and both end well."""
    data, path = folder().fill(range(24), 1).heavier(300_000), tmp_path / "t.parquet"
    assert to_parquet(data.path, path).status == 0
    args = ["--parquet_file", path, "--base_dir", data.path, "--shard_size_mb", 1]
    script = SCRIPTS / "convert_parquet_to_wds.py"
    command = [sys.executable, script, *args, "--output_dir", tmp_path / "tars"]
    writers = [
        subprocess.Popen(
            list(map(str, [*command, "--num_workers", workers])),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for workers in (1, 2, 1)
    ]
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert writer.returncode == 0 and "24 images" in out, err
    assert to_tars(path, data.path, tmp_path / "whole", "--shard_size_mb", 1).status == 0
    assert tree(tmp_path / "tars") == tree(tmp_path / "whole")


@pytest.mark.parametrize("script", ["convert_json_to_parquet", "convert_parquet_to_wds"])
@pytest.mark.parametrize("output", ["closed", "full"])
def test_what_was_published_is_said_to_be(table, tmp_path, script, output):
    """`| true`: the table stands, so nothing says that nothing was published."""
    data, path = table
    args = {
        "convert_json_to_parquet": [data.path, tmp_path / "new.parquet"],
        "convert_parquet_to_wds": [
            *("--parquet_file", path, "--base_dir", data.path),
            *("--output_dir", tmp_path / "tars"),
        ],
    }[script]
    reading, writing = os.pipe()
    os.close(reading)
    if output == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, SCRIPTS / f"{script}.py", *args]
    ended = subprocess.run(
        list(map(str, command)), stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writing)
    assert ended.returncode == (141 if output == "closed" else 1)
    done = "36 rows" if script == "convert_json_to_parquet" else "36 images"
    assert done in ended.stderr and "nothing was published" not in ended.stderr
    assert "standard output" in ended.stderr and "Traceback" not in ended.stderr
    assert (tmp_path / "new.parquet").exists() or (tmp_path / "tars/index.json").exists()


def test_a_full_disk_under_the_log_costs_its_lines_alone(table, tmp_path):
    data, path = table
    command = [sys.executable, SCRIPTS / "convert_parquet_to_wds.py", "--parquet_file", path]
    command += ["--base_dir", data.path, "--output_dir", tmp_path / "tars"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=full, text=True, timeout=120
        )
    assert ended.returncode == 0 and "36 images" in ended.stdout
    assert (tmp_path / "tars/index.json").exists()


def said(script, *args):
    ended = subprocess.run(
        [sys.executable, SCRIPTS / script, *map(str, args)], capture_output=True, text=True
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def test_a_result_does_not_take_the_place_of_data(table, tmp_path):
    """A report over a table or an image; tars, scores and a release among samples."""
    data, path = table
    image = next(data.path.glob("*/*.jpg"))
    its_json = image.with_suffix(".json")
    before = {place: place.read_bytes() for place in (path, image, its_json)}
    names = sorted(place.name for place in data.path.iterdir())
    for script, args, says in (
        ("make_report.py", (path, path), "ends in .html"),
        ("make_report.py", (path, its_json), "ends in .html"),
        ("verify_dataset.py", (data.path, "--report", image), "ends in .json"),
        ("verify_dataset.py", (data.path, "--report", its_json), "there is another file"),
        ("score_images.py", (data.path, data.path, "--scores", "sharpness"), "holds samples"),
        ("make_release_forms.py", (path, data.path), "holds samples"),
        (
            "convert_parquet_to_wds.py",
            ("--parquet_file", path, "--base_dir", data.path, "--output_dir", data.path),
            "holds samples",
        ),
    ):
        status, error = said(script, *args)
        assert status == 1 and says in error and error.count("\n") == 1, (script, error)
    assert before == {place: place.read_bytes() for place in before}
    assert names == sorted(place.name for place in data.path.iterdir())


def test_a_full_disk_is_that_of_the_result(tmp_path):
    """Not of standard output, which is fine."""
    path = tmp_path / "report.html"
    code = f"""
import resource, sys
from common.command_line import run_script
from postprocess_dataset.publish import publish_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
run_script(lambda: publish_text({str(path)!r}, "x" * 5000))"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1 and f"{path}: File too large" in ended.stderr, ended.stderr
    assert not path.exists()
