"""An image in a tar and in the folder: one sha256, and a fast hash that shows that they agree."""

import io
import tarfile

import pytest

from postprocess_dataset.manifest.kinds import Findings
from postprocess_dataset.manifest.shards import tar_members
from postprocess_dataset.manifest.tar_facts import print_of
from postprocess_dataset.verification.samples import Look, check_sample
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.damage import edit_tar, sample
from tests.postprocess_dataset.verified import make, verify


@pytest.fixture
def root(tmp_path):
    return make(tmp_path)


def test_an_image_is_not_hashed_again_that_is_the_same_in_a_tar_byte_for_byte(root):
    image, its_json = (sample(root, f"995_1.{end}").read_bytes() for end in ("jpg", "json"))

    def kinds_with(in_tar):
        found = Findings()
        check_sample(Look("HPDv2/000000/995_1", 995, 1, None, in_tar), image, its_json, found)
        return list(found.counts)

    elsewhere = b"0" * 32  # what the tar's writer has hashed: it is taken, so the JSON's differs
    assert kinds_with((print_of(image), elsewhere)) == ["wrong_hash"]
    assert kinds_with((print_of(image[:-1]), elsewhere)) == kinds_with(None) == []


def test_damage_that_is_allowed_stands_in_the_manifest_as_it_is(root):
    edit_tar(root, lambda m: m.__setitem__(0, (m[0][0], m[3][1])))
    assert verify(root, "--allow", "wrong_hash").status == 0
    assert called("verify_dataset", (root / "tars", "--manifest")).status == 0


@pytest.mark.parametrize(
    ("length", "name"),
    [("14", "b.txt"), ("9" * 5000, "a.txt"), ("0", "a.txt"), ("2", "a.txt"), ("x", "a.txt")],
)
def test_a_length_in_an_extended_header_may_be_anything(length, name):
    """Python refuses to read a number of more than 4,300 digits."""
    extended = tarfile.TarInfo("long")
    extended.type = tarfile.XHDTYPE
    content = f"{length} path=b.txt\n".encode()
    extended.size = len(content)
    plain = tarfile.TarInfo("a.txt")
    blocks = [extended.tobuf(), content, bytes(-len(content) % 512), plain.tobuf(), bytes(1024)]
    members = [found for found, _ in tar_members(io.BytesIO(b"".join(blocks)))]
    assert members == [name]
