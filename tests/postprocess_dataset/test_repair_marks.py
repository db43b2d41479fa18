"""verify_dataset.py --repair makes the mark of a packed sub-folder again, from its tars."""

import json

import pytest

from generate.dataset.collected import publish_collected
from postprocess_dataset.tar_header import file_in_tar
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.damage import cut
from tests.postprocess_dataset.verified import kinds, verify


def test_repair_makes_a_lost_mark_from_its_tars(root):
    (root / "HPDv2/000000/COMPLETE").write_text("{}")
    assert called("pack_finished_folders", (root / "HPDv2",)).status == 0
    mark = root / "HPDv2/000000/PACKED"
    before = json.loads(mark.read_text())
    cut(mark)
    assert kinds(verify(root)) == {"torn": 1}
    assert verify(root, "--repair").status == 0
    assert json.loads(mark.read_text()) == before


@pytest.mark.parametrize("collected", [False, True])
def test_repair_makes_a_mark_again_that_does_not_list_an_image(root, collected):
    """Else a run would generate the image anew, while it lies in the tar."""
    if collected:
        for path in (root / "HPDv2/000000").glob("995_*.json"):
            path.write_text(json.dumps(json.loads(path.read_text())) + "\n")
        assert publish_collected(root / "HPDv2", 995, 3, "1-1")
    (root / "HPDv2/000000/COMPLETE").write_text("{}")
    assert called("pack_finished_folders", (root / "HPDv2",)).status == 0
    mark = root / "HPDv2/000000/PACKED"
    before = json.loads(mark.read_text())
    edited = json.loads(mark.read_text())
    edited["prompts"]["995"]["images"] = "0"
    mark.write_text(json.dumps(edited))
    ended = verify(root)
    assert ended.status == 1 and "and PACKED does not list it" in ended.out
    assert kinds(ended).keys() >= ({"missing", "wrong_hash"} if collected else {"missing"})
    ended = verify(root, "--repair")
    assert ended.status == 0, ended.out + ended.err
    assert json.loads(mark.read_text()) == before


@pytest.mark.parametrize("text", [b"[]", b"{}", b'{"texts":5}', b'"x"', b"null", b"{"])
def test_captions_of_another_form_in_a_tar_are_damage(root, text):
    (root / "HPDv2/000000/COMPLETE").write_text("{}")
    assert called("pack_finished_folders", (root / "HPDv2",)).status == 0
    tar = root / "HPDv2/000000/part-00000.tar"
    tar.write_bytes(file_in_tar("1.prompts", text) + tar.read_bytes())
    cut(root / "HPDv2/000000/PACKED")
    ended = verify(root, "--repair")
    assert ended.status == 1 and "part-00000.tar is damaged too" in ended.err
