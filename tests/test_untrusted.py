"""What others wrote is opened by one helper: a regular file, of a size, in its folder, a JPEG."""

import contextlib
import os
import socket

import pytest

from common.untrusted import (
    Refused,
    open_folder,
    open_jpeg,
    open_untrusted,
    read_many,
    read_untrusted,
    real_folders,
)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"inside")
    (tmp_path / "private").write_bytes(b"outside")
    (tmp_path / "set-too").mkdir()
    (tmp_path / "set-too" / "b").write_bytes(b"a name that begins like it")
    return tmp_path / "set"


def test_a_regular_file(place):
    assert read_untrusted(place / "a", 100) == b"inside"
    assert read_untrusted(place / "a", 100, inside=real_folders([place])) == b"inside"


@pytest.mark.parametrize("target", ["../private", "../set-too/b", "/etc/passwd"])
def test_a_link_out_of_the_folder(place, target):
    (place / "link").symlink_to(target)
    with pytest.raises(Refused, match="outside"):
        read_untrusted(place / "link", 10_000, inside=real_folders([place]))
    assert read_untrusted(place / "link", 10_000)  # () takes links to anywhere
    fd = os.open(place, os.O_RDONLY)
    assert isinstance(read_many(fd, ["link"], 10_000, real_folders([place]))[0], Refused)
    os.close(fd)


def test_a_socket_and_a_link_to_itself_are_refused(place, monkeypatch):
    (place / "loop").symlink_to("loop")
    (place / "through").symlink_to("a/x")  # a is a file
    (place / "long").symlink_to("x" * 300)
    (place / "memory").symlink_to("/proc/self/mem")  # a regular file, and reading it is EIO
    (place / "namespace").symlink_to("/proc/self/ns/mnt")  # one, too; its place is no path
    monkeypatch.chdir(place)  # a socket's path has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as there:
        there.bind("socket")
    for name in ("loop", "socket", "through", "long", "memory", "namespace"):
        with pytest.raises(Refused, match=name):
            read_untrusted(place / name, 100)


def test_a_path_out_of_the_folder(place):
    with pytest.raises(Refused, match="outside"):
        read_untrusted(place / ".." / "private", 100, inside=real_folders([place]))


def test_a_folder_that_is_a_link(place, tmp_path):
    (tmp_path / "other").symlink_to(place)
    assert read_untrusted(tmp_path / "other" / "a", 9, inside=real_folders([tmp_path / "other"]))
    (place / "up").symlink_to(tmp_path)
    with pytest.raises(Refused, match="outside"):
        read_untrusted(place / "up" / "private", 100, inside=real_folders([place]))
    with pytest.raises(Refused, match="outside"):
        open_folder(place / "up", real_folders([place]))


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(place):
    os.mkfifo(place / "pipe")
    with pytest.raises(Refused, match="named pipe"):
        open_untrusted(place / "pipe")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("device", ["/dev/full", "/dev/null", "/dev/tty"])
def test_no_device(place, device):
    (place / "x").symlink_to(device)
    for path in (place / "x", device):
        with pytest.raises(OSError):
            read_untrusted(path, 100)


def test_a_device_is_not_even_opened(place, monkeypatch):
    """Through a link, that is: to open one can rewind a tape."""
    (place / "x").symlink_to("/dev/full")
    opened = os.open

    def watched(path, flags, *args, **kwargs):
        assert flags & os.O_NOFOLLOW
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", watched)
    with pytest.raises(Refused, match="device"):
        open_untrusted(place / "x")


def test_no_more_than_the_limit(place):
    (place / "long").write_bytes(bytes(100_000))
    assert len(read_untrusted(place / "long", 100_000)) == 100_000
    with pytest.raises(Refused, match="larger"):
        read_untrusted(place / "long", 99_999)
    with open(place / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Refused, match="larger"):
        read_untrusted(place / "sparse", 1 << 20)


def test_what_is_too_large_or_no_text_is_not_read_on(place, monkeypatch):
    """By its stated size, or by a zero byte: it may be sparse, with a large limit."""
    asked, read = [], os.read
    monkeypatch.setattr(os, "read", lambda fd, size: (asked.append(size), read(fd, size))[1])
    with open(place / "sparse", "wb") as file:
        file.write(b"{")
        file.truncate(3 << 30)
    for limit, text, why in ((1 << 30, False, "larger"), (4 << 30, True, "zero bytes")):
        with pytest.raises(Refused, match=why):
            read_untrusted(place / "sparse", limit, text=text)
        assert sum(asked) <= 1 << 20
        asked.clear()
    (place / "late").write_bytes(b"a" * 3_000_000 + b"\0")
    (place / "text").write_bytes(b"a" * 3_000_000)
    with pytest.raises(Refused, match="zero bytes"):
        read_untrusted(place / "late", 1 << 30, text=True)
    assert len(read_untrusted(place / "late", 3_000_001)) == 3_000_001
    assert len(read_untrusted(place / "text", 3_000_000, text=True)) == 3_000_000


def test_a_nul_in_the_name(place):
    with pytest.raises(OSError):
        read_untrusted(f"{place}/a\0b", 100)


def test_descriptors_are_closed(place):
    os.mkfifo(place / "pipe")
    (place / "link").symlink_to("../private")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("pipe", "link", "a", "missing"):
        with contextlib.suppress(OSError):
            read_untrusted(place / name, 3, inside=real_folders([place]))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["PNG", "EPS", "GIF"])
def test_only_jpegs(tmp_path, kind):
    from PIL import Image, UnidentifiedImageError

    Image.new("RGB", (8, 8)).save(tmp_path / "x", kind)
    with pytest.raises(UnidentifiedImageError):
        open_jpeg((tmp_path / "x").read_bytes())
    Image.new("RGB", (8, 8)).save(tmp_path / "x", "JPEG")
    assert open_jpeg((tmp_path / "x").read_bytes()).size == (8, 8)


def test_what_is_no_jpeg_is_said_in_words() -> None:
    """Not by the address of an object, as Pillow says it."""
    for data in (b"", b"x" * 9000, b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(OSError, match=r"^it is no JPEG$"):
            open_jpeg(data)
