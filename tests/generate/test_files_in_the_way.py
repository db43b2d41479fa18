"""Folders, links and files of others under the names of a prompt's files: no failed disk."""

import contextlib
import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from generate.dataset.captions import read_captions
from generate.dataset.disk import fault, refuse_unusable, unseen_fault
from tests.fakes.running_server import until

IN_ITS_PLACE = {  # of a sub-folder
    "file": lambda folder: folder.touch(),
    "pipe": lambda folder: os.mkfifo(folder),
    "link to itself": lambda folder: folder.symlink_to(folder.name),
    "link to nothing": lambda folder: folder.symlink_to("nowhere"),
    "link to another": lambda folder: folder.symlink_to(f"{int(folder.name) + 1:06d}"),
    "link to a device": lambda folder: folder.symlink_to("/dev/zero"),
}


@contextlib.contextmanager
def immutable(path):
    """Not even root may replace it."""
    path.write_bytes(b"{")
    made = subprocess.run(["chattr", "+i", str(path)], capture_output=True).returncode == 0
    try:
        if not made:
            pytest.skip("chattr +i needs root and a file system that has it")
        yield
    finally:
        if made:
            subprocess.run(["chattr", "-i", str(path)], check=True)


def test_what_lies_in_the_way_is_set_aside(start_run):
    run, server = start_run(total=6, images=2)
    folder = run.data / "000000"
    for name in ("0.samples", "1_0.json", "2_1.jpg", ".3_0.jpg.9-9.tmp", "4.prompts", "4_1.failed"):
        (folder / name / "of others").mkdir(parents=True)
    (folder / "5_0.jpg").symlink_to("5_0.jpg")
    for name in ("0.prompts", "1.prompts2", "2_0.jpg", "2_0.json", "3.samples", "3_1.failed"):
        (folder / name).symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as there:
        with contextlib.chdir(folder):  # a socket's path has 107 bytes at most
            there.bind("5_1.json")
        assert end_of(run.start(), run, unless="is in the way") == 0, run.log()
    for name in ("0.samples", "1_0.json", "2_1.jpg", ".3_0.jpg.9-9.tmp"):
        assert (folder / f"{name}.foreign" / "of others").is_dir(), "nothing in it is lost"
        shutil.rmtree(folder / f"{name}.foreign")
    run.check()
    assert server.dataset("birds")["done"] == 6


def test_what_took_the_place_of_a_done_image_is_no_image(start_run):
    """A link and a pipe counted by their names: "all done", and no table had the two samples."""
    run, server = start_run(total=3, images=2)
    assert end_of(run.start(), run) == 0, run.log()
    folder = run.data / "000000"
    server.stop()
    for name in ("0_1.jpg", "1_1.json", "2_0.jpg", "2_0.json"):
        (folder / name).rename(run.root / name)
    (folder / "0_1.jpg").symlink_to(run.root / "0_1.jpg")
    os.mkfifo(folder / "1_1.json")
    (folder / "2_0.jpg").mkdir()
    (folder / "2_0.json").symlink_to("nowhere")
    server.start()
    assert end_of(run.start(), run) == 0, run.log()
    run.check()
    assert server.dataset("birds")["done"] == 3
    kept = ["0_1.jpg", "1_1.json", "2_0.jpg", "2_0.json"]
    assert sorted(folder.glob("*.foreign")) == [folder / f"{name}.foreign" for name in kept]


def end_of(client, run, unless="the disk"):
    """Its exit status; None if it says `unless` before."""
    until(lambda: client.poll() is not None or unless in run.log(), run.log)
    return client.poll()


def test_a_file_that_cannot_be_replaced_fails_its_prompt_alone(start_run):
    run, server = start_run(total=6, images=2, server=["--max_marks", 2])
    (run.data / "000000").mkdir(parents=True)
    with immutable(run.data / "000000" / "2_0.json"):
        assert end_of(run.start(), run) == 3, run.log()
    counts = server.dataset("birds")
    assert (counts["done"], counts["set_aside"]) == (5, 1)
    assert "2_0.json is in the way (Operation not permitted)" in run.log()


@pytest.mark.parametrize("name", ["0.samples", ".0_0.jpg.9-9.tmp", ".0.tries.9-9.tmp"])
def test_a_file_that_counts_for_nothing_fails_nothing(start_run, name):
    run, server = start_run(total=1, images=4)
    (run.data / "000000").mkdir(parents=True)
    with immutable(run.data / "000000" / name):
        assert end_of(run.start(), run) == 0, run.log()
    assert server.dataset("birds")["done"] == 1 and len(list(run.data.glob("*/*.jpg"))) == 4
    assert f"{name} is in the way" in run.log()


def test_whose_fault_an_error_is(tmp_path):
    def reason(number, path):
        return fault(OSError(number, os.strerror(number), str(path)))[0]

    mine = tmp_path / "0_0.json"
    for number in (errno.EISDIR, errno.ELOOP, errno.EBUSY, errno.EPERM, errno.EACCES):
        assert reason(number, mine) == "prompt"
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOENT):
        assert reason(number, mine) == "disk"
    assert reason(errno.EACCES, Path("/no such folder/0_0.json")) == "disk"
    assert fault(OSError(errno.EACCES, "no file is named"))[0] == "disk"


@pytest.mark.parametrize("kind", IN_ITS_PLACE)
def test_what_has_the_name_of_a_sub_folder_is_no_prompts_fault(tmp_path, kind):
    """A link to itself failed its prompts, one by one; one to nothing was a failed disk."""
    folder = tmp_path / "000000"
    IN_ITS_PLACE[kind](folder)
    for use in (Path.read_bytes, Path.touch, Path.stat):
        with pytest.raises(OSError) as raised:
            use(folder / "1_0.json")
        assert fault(raised.value)[0] == "folder", raised.value
    assert unseen_fault(folder)[0] == "folder"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["itself", "inside", "long"])
def test_captions_behind_a_link_to_itself_are_not_looked_for_for_ever(tmp_path, name):
    """Each further .prompts2, .prompts3, … was one that cannot be read, and another was tried."""
    folder = tmp_path / name
    if name == "long":  # its sub-folder has 4,095 characters, the file in it has more
        while len(str(folder)) < 3880:
            folder /= "a" * 200
        folder /= "a" * (4087 - len(str(folder)))
        (folder / "000000").mkdir(parents=True)
        assert read_captions(folder, 0) is None
        return
    link = folder if name == "itself" else folder / "000000"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links"):
        read_captions(folder, 0)


@pytest.mark.parametrize("kind", ["mark", "file", "link to another"])
def test_a_sub_folder_damaged_while_a_run_draws_costs_its_own_prompts(start_run, kind):
    """It was taken for a failed disk: all work of the output root stood still."""
    run, server = start_run(total=1300, images=1, options=["--max_chunk_size", 4])
    first, second = run.data / "000000", run.data / "000001"

    def drawn(folder):
        return len(list(folder.glob("*.json")))

    client = run.start()
    until(lambda: drawn(first) > 9, run.log)
    if kind == "mark":
        (first / "part-00000.tar").touch()
        (first / "PACKED").write_text("x")
    else:
        first.rename(run.root / "away")
        IN_ITS_PLACE[kind](first)
    until(lambda: "folder 000000 cannot be compared" in server.log(), server.log)
    before = drawn(second)
    until(lambda: drawn(second) > before + 20, run.log)
    assert "the disk failed" not in run.log() and "everything is released" not in run.log()
    weather = server.status()["weather"]
    assert weather["state"] != "storm" and "000000 cannot be compared" in str(weather)
    assert server.dataset("birds")["set_aside"] == 0
    held_up = drawn(first)
    if kind == "mark":
        (first / "PACKED").unlink()
        (first / "part-00000.tar").unlink()
    else:
        first.unlink()
        (run.root / "away").rename(first)
    until(lambda: drawn(first) > held_up, server.log)  # it is tried again every ten seconds
    assert client.poll() is None


@pytest.mark.parametrize("mine, reason", [(["birds"], "folder"), ([], "disk")])
def test_a_folder_of_another_user_is_no_failed_disk(tmp_path, monkeypatch, mine, reason):
    """Root may write anywhere: what a user may not is said by hand."""
    path = tmp_path / "birds" / "000012" / "12345.prompts"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(
        "generate.dataset.disk.os.access", lambda path, how: Path(path).name in mine
    )
    assert fault(PermissionError(errno.EACCES, "no", str(path)))[0] == reason
    assert fault(PermissionError(errno.EACCES, "no", str(path.parent)))[0] == reason
    with pytest.raises(PermissionError, match="000012"):
        refuse_unusable(path.parent)
