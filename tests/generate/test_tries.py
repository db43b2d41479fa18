"""Notes of images that were not accepted: taken over, of bounds, and written through no link."""

import json
from pathlib import Path

import pytest

from generate.dataset import tries


def test_tries_are_not_written_through_a_link(tmp_path: Path) -> None:
    """Their names can be guessed, and a group may write the folder."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    tried = tries.Tried(0, 11, {"luck": -1.5})
    tries.note(tmp_path, 7, "1-1", 3, tried)
    link = tmp_path / "000000" / ".7.tries.1-2.tmp"
    link.symlink_to(precious)
    with pytest.raises(OSError, match="nothing is written there"):
        tries.note(tmp_path, 7, "1-2", 3, tried)
    names = [".7.tries.1-1.tmp"]
    assert tries.take_over(tmp_path, 7, "1-2", names) == {3: [tried]}
    assert precious.read_text() == "mine" and not link.is_symlink()


@pytest.mark.parametrize(
    "name, value",
    [
        ("attempt", 10**4299),
        ("attempt", -1),
        ("aug", 10**4299),
        ("seed", 1 << 64),
        ("scores", {"luck": 10**4299}),
    ],
)
def test_a_note_with_numbers_that_no_client_writes_is_passed_over(tmp_path, name, value):
    """The next attempt had one digit more than int() prints, which ended each client."""
    (tmp_path / "000000").mkdir()
    note = {"aug": 0, "attempt": 1, "seed": 12, "scores": {"luck": -2.0}}
    lines = [json.dumps(note), json.dumps(note | {"attempt": 2} | {name: value})]
    (tmp_path / "000000" / ".3.tries.x.tmp").write_text("\n".join(lines))
    found = tries.take_over(tmp_path, 3, "1-1", [".3.tries.x.tmp"])
    assert found == {0: [tries.Tried(1, 12, {"luck": -2.0})]}


def test_tries_are_taken_over_from_several_holders(tmp_path: Path) -> None:
    first = tries.Tried(0, 11, {"luck": -1.5, "shape": None})
    second = tries.Tried(1, 12, {"luck": -2.0})
    tries.note(tmp_path, 7, "1-1", 3, first)
    tries.note(tmp_path, 7, "1-1", 3, second)
    tries.note(tmp_path, 7, "1-2", 0, first)
    tries.note(tmp_path, 8, "1-1", 3, first)
    folder = tmp_path / "000000"
    with open(folder / ".7.tries.1-1.tmp", "ab") as file:
        file.write(b'{"aug": 3, "attempt": 2, "se')  # a torn line
    names = [path.name for path in folder.iterdir()]
    assert tries.take_over(tmp_path, 7, "1-3", names) == {3: [first, second], 0: [first]}
    assert tries.take_over(tmp_path, 7, "1-4", [".7.tries.1-3.tmp"]) == {
        3: [first, second],
        0: [first],
    }
    tries.forget(tmp_path, 7, "1-4")
    assert not (folder / ".7.tries.1-4.tmp").exists()
    (folder / ".9.tries.1-1.tmp").write_bytes(b'[]\nnull\n{"aug":-1,"attempt":0,"seed":1}\n\xff')
    assert tries.take_over(tmp_path, 9, "1-2", [".9.tries.1-1.tmp"]) == {}
