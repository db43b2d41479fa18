"""What goes wrong while shards are written.

Half writes, full disks, killed workers, images that cannot be read for a while.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import NamedFile

ROOT = Path(__file__).resolve().parents[2]


def test_a_write_that_takes_only_a_part(table, to_tars, tmp_path, monkeypatch, tree):
    """As a signal, a quota or a network disk may do: the rest is written after it."""
    data, path = table
    assert to_tars(path, data.path, tmp_path / "whole").status == 0
    write = NamedFile.write
    monkeypatch.setattr(NamedFile, "write", lambda file, data: write(file, data[:100]))
    assert to_tars(path, data.path, tmp_path / "tars").status == 0 and tree(
        tmp_path / "tars"
    ) == tree(tmp_path / "whole")


@pytest.fixture
def disk_calls(monkeypatch):
    """A list that takes every fsync and rename: ("fsync", path, bytes at that moment), ("rename",
    from, to).
    """
    calls, fsync, rename = [], os.fsync, os.rename

    def note_fsync(fd):
        path = os.readlink(f"/proc/self/fd/{fd}")
        calls.append(("fsync", path, os.stat(path).st_size))
        fsync(fd)

    def note_rename(source, target):
        calls.append(("rename", os.path.abspath(source), os.path.abspath(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync), monkeypatch.setattr(os, "rename", note_rename)
    return calls


def test_on_disk_before_it_has_a_name(table, to_parquet, to_tars, tmp_path, disk_calls):
    """A node that loses its power keeps what was renamed only when the bytes were sent first, and
    the folder after it.
    """
    data, _path = table
    (tmp_path / "again").mkdir()
    assert to_parquet(data.path, tmp_path / "again/t.parquet").status == 0
    assert to_tars(tmp_path / "again/t.parquet", data.path, tmp_path / "tars").status == 0
    renamed = []
    for n, (call, source, target) in enumerate(disk_calls):
        if call == "rename":
            renamed.append(os.path.basename(target))
            assert disk_calls[n - 1] == ("fsync", source, os.path.getsize(target))
            assert disk_calls[n + 1][:2] == ("fsync", os.path.dirname(target))
    assert [name for name in renamed if "rejects" not in name] == [
        "t.parquet",
        "t.parquet.state",  # names the table by its footer: after it
        "output_dataset_plan.json",
        "output_dataset_000000.tar",
        "output_dataset_000000_stats.json",  # the done mark, after what it vouches for
        "index.json",
        "README.md",
    ]


def test_a_shard_that_lost_its_end_is_written_anew(table, to_tars, tmp_path, small_shards, tree):
    data, path = table
    small_shards(12)
    assert to_tars(path, data.path, tmp_path / "tars", "--shard_size_mb", 1).status == 0
    whole = tree(tmp_path / "tars")
    for name, harm in (
        ("output_dataset_000001.tar", lambda path: os.truncate(path, 5120)),
        ("output_dataset_000000.tar", os.unlink),
        ("output_dataset_000002_stats.json", lambda path: os.truncate(path, 9)),
    ):
        harm(tmp_path / "tars" / name)
        ended = to_tars(path, data.path, tmp_path / "tars", "--shard_size_mb", 1)
        assert (
            ended.status == 0
            and "(1 written now)" in ended.out
            and tree(tmp_path / "tars") == whole
        )


def in_a_worker(patch):
    """The command whose workers, forked, run `patch` before each shard; `shard` is its name."""
    return f"""
import os, signal, sys
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[1:]
from common.command_line import run_script
from common.files import NamedFile
from postprocess_dataset import convert_parquet_to_wds
from postprocess_dataset.to_tars import shard_files
write_shard = shard_files.write_shard
def patched(output, row, *args):
    shard = row["name"]
    {patch}
    return write_shard(output, row, *args)
shard_files.write_shard = patched
run_script(convert_parquet_to_wds.main)
"""


@pytest.mark.parametrize(
    "patch, says",
    [
        (
            "if '000001' in shard: os.kill(os.getpid(), signal.SIGKILL)",
            "a worker process was killed (out of memory?)",
        ),
        (
            "full = os.open('/dev/full', os.O_WRONLY)\n"
            "    if '000001' in shard: NamedFile.write = lambda *args: os.write(full, b'x')",
            "No space left",
        ),
    ],
    ids=["killed", "disk full"],
)
def test_a_worker_that_fails(folder, to_parquet, process, to_tars, tmp_path, tree, patch, says):
    data, path = folder().fill(range(12), 1).heavier(300_000), tmp_path / "t.parquet"
    assert to_parquet(data.path, path).status == 0
    args = [
        "--parquet_file",
        path,
        "--base_dir",
        data.path,
        "--output_dir",
        tmp_path / "tars",
        "--num_workers",
        2,
        "--shard_size_mb",
        1,
    ]
    command = [sys.executable, "-c", in_a_worker(patch), ROOT, *args]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    said = [line for line in ended.stderr.splitlines() if not line.startswith("output_dataset_")]
    assert (
        ended.returncode == 1
        and len(said) == 1
        and says in said[0]
        and "the same command goes on from there" in said[0]
    ), ended.stderr
    assert (
        not (tmp_path / "tars/output_dataset_000001.tar").exists()
        and not (tmp_path / "tars/index.json").exists()
    )
    assert process("convert_parquet_to_wds", *args).returncode == 0
    assert to_tars(path, data.path, tmp_path / "whole", "--shard_size_mb", 1).status == 0 and tree(
        tmp_path / "tars"
    ) == tree(tmp_path / "whole")


def test_an_image_that_cannot_be_read_for_a_while(table, to_tars, tmp_path, monkeypatch, tree):
    """A disk that fails for a moment costs no sample: the same command takes it when it can be
    read.
    """
    data, path = table
    assert to_tars(path, data.path, tmp_path / "whole").status == 0
    open_, bad = os.open, f"{data.place(1000, 1)}.jpg"

    def fails(place, *args, **kwargs):
        if str(place) == bad:
            raise OSError(errno.EIO, "Input/output error")
        return open_(place, *args, **kwargs)

    with monkeypatch.context() as away:
        away.setattr(os, "open", fails)
        ended = to_tars(path, data.path, tmp_path / "tars")
        assert (
            ended.status == 3
            and "1000_1: image cannot be read: Input/output error" in ended.err
            and "35 images" in ended.out
        )
        assert (
            "(0 written now)" in to_tars(path, data.path, tmp_path / "tars").out
        )  # not again and again while it lasts
    ended = to_tars(path, data.path, tmp_path / "tars")
    assert (
        ended.status == 0
        and "(1 written now), 36 images" in ended.out
        and tree(tmp_path / "tars") == tree(tmp_path / "whole")
    )


def test_a_changed_image_that_is_put_back(table, to_tars, tmp_path, tree):
    data, path = table
    image = data.place(1000, 1).with_suffix(".jpg")
    good = image.read_bytes()
    image.write_bytes(good[:-9])
    assert to_tars(path, data.path, tmp_path / "tars").status == 3
    image.write_bytes(good)
    assert "(1 written now), 36 images" in to_tars(path, data.path, tmp_path / "tars").out


def test_a_shard_of_which_no_image_can_be_taken(folder, to_parquet, to_tars, tmp_path, tree):
    """It holds up no other one, and is written as soon as it can be."""
    data, path = folder().fill(range(6), 1).heavier(400_000), tmp_path / "t.parquet"
    assert to_parquet(data.path, path).status == 0
    args = [path, data.path, tmp_path / "tars", "--shard_size_mb", 1]
    images = [data.place(prompt, 0).with_suffix(".jpg") for prompt in (0, 1)]
    good = [image.read_bytes() for image in images]
    for image, whole in zip(images, good, strict=True):
        image.write_bytes(whole[:-9])
    for _ in range(2):
        ended = to_tars(*args)
        assert (
            ended.status == 1
            and "no image of output_dataset_000000.tar can be taken" in ended.err
            and "sha256 differs" in ended.err
        )
        assert sorted(p.name for p in (tmp_path / "tars").glob("*.tar")) == [
            "output_dataset_000001.tar",
            "output_dataset_000002.tar",
        ]
    assert (
        "1 of 3 shards are missing (output_dataset_000000.tar)"
        in to_tars(*args, "--part", "0/1", "--finish").err
    )
    for image, whole in zip(images, good, strict=True):
        image.write_bytes(whole)
    assert (
        "3 shards (1 written now), 6 images" in to_tars(*args).out
        and (tmp_path / "tars/index.json").exists()
    )


def test_an_image_larger_than_a_shard(folder, to_parquet, to_tars, tar_members, tmp_path):
    """It stands alone, whole."""
    data, path = folder().fill(range(3), 1), tmp_path / "t.parquet"
    data.heavier(1_500_000)
    assert to_parquet(data.path, path).status == 0
    assert (
        "3 shards (3 written now), 3 images"
        in to_tars(path, data.path, tmp_path / "tars", "--shard_size_mb", 1).out
    )
    members = tar_members(tmp_path / "tars")
    assert all(
        members[f"HPDv2/000000/{n}_0.jpg"] == data.place(n, 0).with_suffix(".jpg").read_bytes()
        for n in range(3)
    )
