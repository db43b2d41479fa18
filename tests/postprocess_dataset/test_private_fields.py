"""What names a user or a machine is not published; what only looks like it is."""

import pytest

from postprocess_dataset.private_fields import private_fields, tells_path

PATHS = [
    r"/mnt",
    r"/home/u/x",
    r"(/home/u/x)",
    r"[/home/u/x]",
    r"--cache=/home/u/k",
    r"see=/home/u/x",
    r"x,/home/u/y",
    r"see ~/u",
    r"~user/x",
    r"$HOME/u/x",
    r"${HOME}/x",
    r"PATH=..:/home/u/bin",
    r"a:/home/u/x",
    r"cwd:/u",
    r"user@host:/data/x",
    r"//server/share/x",
    r"\\server\share\x",
    r"D:\u",
    r"c:\users\u",
    r"C:/Users/u/x",
    r"file:///home/u/y",
    r"file:/home/u",
    r"sftp://host/home/u/x",
    r"hdfs://host:8020/x",
    r"s3://b/x",
    r"smb://u/x",
]
PLAIN = [
    r"stabilityai/stable-diffusion-3-medium-diffusers",
    r"org/model:0.8",
    r"https://example.org/a/b",
    r"see http://example.org/~user/x",
    r"NVIDIA H100 80GB HBM3",
    r"A100/H100",
    r"N/A",
    r"1024x1024:0.5,1344x768:0.25",
    r"2026-01-02T03:04:10+00:00",
    r"000000/1_0.jpg",
    r"clip > 0.26 and nsfw < 0.2",
]


@pytest.mark.parametrize("value", PATHS)
def test_a_path(value):
    assert tells_path(value)
    assert private_fields({"note": value, "seed": 7}) == ["note"]


@pytest.mark.parametrize("value", PLAIN)
def test_no_path(value):
    assert not tells_path(value)


def test_a_key_that_is_a_path():
    assert private_fields({"/home/u/key": "x", "seed": 1}) == ["/home/u/key"]


def test_texts_may_hold_slashes_and_hosts_are_private():
    assert private_fields({"augmented_prompt": "/imagine a fox", "hostname": "n1"}) == ["hostname"]
