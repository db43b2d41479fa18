"""X.screening.npz may come from others: what it says is looked at before it is unpacked."""

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from common.command_line import UserError
from common.screening import Rules, Screen, path_beside
from common.screening_file import packed, read_arrays
from common.validation_set import ValidationSet

VALIDATION = ["a snowy mountain seen from a train window", "two chairs beside a round table"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The arrays of a file."""
    prompts = tmp_path_factory.mktemp("screening") / "c.json"
    return read_arrays(Screen(Rules(), ValidationSet.of(VALIDATION)).save_beside(prompts))


def about(good, **changes):
    told = json.loads(good["about"].tobytes()) | changes
    return good | {"about": np.frombuffer(json.dumps(told).encode(), np.uint8)}


def rules(good, **changes):
    told = json.loads(good["about"].tobytes())["rules"]
    return about(good, rules=told | changes)


ARRAYS = {
    "no table": lambda good: {n: array for n, array in good.items() if n != "text_hashes"},
    "another array": lambda good: good | {"x": np.zeros(1)},
    "narrow": lambda good: good | {"meanings": good["meanings"][:, :5]},
    "a number": lambda good: good | {"meanings": np.array(3.0)},
    "turned": lambda good: good | {"meanings": np.asfortranarray(good["meanings"])},
    "texts": lambda good: good | {"text_hashes": np.array(["x", "y"])},
    "objects": lambda good: good | {"text_hashes": np.array([{}], object)},
    "not a number": lambda good: good | {"meanings": good["meanings"] * np.float16("nan")},
    "more rows": lambda good: good | {"comparable": np.ones(50, bool)},
    "fewer rows of a table": lambda good: good | {"text_rows": good["text_rows"][:0]},
    "no order": lambda good: good | {"text_hashes": good["text_hashes"][::-1]},
    "outside": lambda good: good | {"text_rows": good["text_rows"] + np.int32(9)},
    "list": lambda good: good | {"about": np.frombuffer(b"[1]", np.uint8)},
    "no JSON": lambda good: good | {"about": np.frombuffer(b"[" * 10_000, np.uint8)},
    "format": lambda good: about(good, format="1"),
    "embeddings": lambda good: about(good, embeddings=["x"]),
    "covers": lambda good: about(good, covers={"x": 1}),
    "no rules": lambda good: about(good, rules=[]),
    "text for a number": lambda good: rules(good, min_words="x"),
    "language": lambda good: rules(good, language=5),
    "action": lambda good: rules(good, hate="no"),
    "another rule": lambda good: rules(good, x=1),
}


def refused(path, match=None):
    with pytest.raises(UserError, match=match) as told:
        Screen.beside(path.with_name("c.json"))
    line = str(told.value)
    assert line.startswith(f"{path}: cannot be read (") and "again with combine.py" in line


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_another_form(good, tmp_path, kind):
    path = path_beside(tmp_path / "c.json")
    path.write_bytes(packed(good))
    assert Screen.beside(tmp_path / "c.json").judge(VALIDATION[0]).rule == "same text"
    path.write_bytes(packed(ARRAYS[kind](good)))
    refused(path)


def test_a_file_that_is_none(tmp_path):
    path = path_beside(tmp_path / "c.json")
    os.mkfifo(path)
    refused(path, "it is a named pipe")
    path.unlink()
    path.mkdir()
    refused(path, "it is a directory")
    path.rmdir()
    path.symlink_to(tmp_path / "moved.npz")
    refused(path, "a link to nowhere")
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(path, "it is a device")
    path.unlink()
    assert Screen.beside(tmp_path / "c.json").validation is None
    assert Screen.beside(tmp_path / f"{'c' * 250}.json").validation is None


def sizes(data, name, size):
    """A zip file whose directory states another size of an entry."""
    place = data.rindex(b"PK\1\2", 0, data.rindex(name))
    return data[: place + 24] + size.to_bytes(4, "little") + data[place + 28 :]


def test_sizes_are_looked_at_before_anything_is_unpacked(good, tmp_path):
    path = path_beside(tmp_path / "c.json")
    data = packed(good)
    path.write_bytes(sizes(data, b"meanings.npy", 1 << 31))
    refused(path, "larger than 1,073,741,824 bytes")
    # an array that says it has 2^50 rows
    head = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)}
    np.lib.format.write_array_header_1_0(head, form)
    for method, why in ((zipfile.ZIP_DEFLATED, "another type"), (zipfile.ZIP_LZMA, "compressed")):
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr("about.npy", head.getvalue())
        refused(path, why)
    with zipfile.ZipFile(path, "w") as file:
        for number in range(2_000):
            file.writestr(f"{number}.npy", b"")
    refused(path, "too many files")


def test_a_false_size_unpacks_no_more_than_it_says(tmp_path):
    path = path_beside(tmp_path / "c.json")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("about.npy", bytes(100 << 20))
    path.write_bytes(sizes(path.read_bytes(), b"about.npy", 200))
    refused(path)
    tracemalloc.start()
    refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20
