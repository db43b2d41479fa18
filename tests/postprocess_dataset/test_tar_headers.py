"""A tar whose headers lie about the size of a file: read no further, and never backwards."""

import io
import tarfile
from itertools import islice

import pytest

from common.packed_tar import members
from common.untrusted import Refused
from postprocess_dataset.manifest.shards import Unreadable, tar_members

FALSE_SIZES = [
    b"-0000000001",
    b"-0000000512",  # the next header would be this one again
    b"-7777777777",
    b"0000000008x",
    b"           ",
    b"99999999999",
    b"\xff" * 11,  # -1, as GNU tar writes it
    b"\x80" + bytes(9) + b"\xff",
]


@pytest.fixture(params=FALSE_SIZES, ids=repr)
def tar(request, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name in ("1_0.jpg", "1_1.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 600
            made.addfile(member, io.BytesIO(bytes(600)))
    data = bytearray(buffer.getvalue())
    data[124:135] = request.param
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path = tmp_path / "part-00000.tar"
    path.write_bytes(data)
    return path


def test_a_shard_is_unreadable(tar):
    with pytest.raises(Unreadable), open(tar, "rb") as file:
        list(islice(tar_members(file), 9))


def test_a_packed_tar_is_refused(tar):
    with pytest.raises(Refused, match="damaged: no file begins at byte"):
        list(islice(members(tar, 0, tar.stat().st_size), 9))
