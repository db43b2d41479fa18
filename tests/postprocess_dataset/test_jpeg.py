"""What a JPEG says of itself before anybody decodes it."""

import io
import json

import pytest
from PIL import Image

from common.jpeg import MOST_SCANS, carried, read_jpeg
from common.untrusted import open_jpeg
from generate.dataset.samples import comment_of, encode
from postprocess_dataset.private_fields import private_parts
from tests.odd_jpegs import PRIVATE, progressive
from tests.postprocess_dataset.conftest import called

GREY = Image.new("L", (8, 8))
FALSE_HEAD = b"\xff\xda\x00\x08\x01" * 9  # as of one scan that holds all


@pytest.mark.parametrize("look", [open_jpeg, read_jpeg])
@pytest.mark.parametrize("comment", [b"", FALSE_HEAD])
def test_too_many_scans_are_not_decoded(look, comment):
    with pytest.raises(ValueError, match="scans; 100 are taken at most"):
        look(progressive(GREY, MOST_SCANS, comment))


def test_a_scan_of_one_component_may_be_followed_by_others():
    """Of a sequential picture, too."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    head = data.rfind(b"\xff\xda")
    data[head + 4] = 1
    with pytest.raises(ValueError, match="scans"):
        read_jpeg(bytes(data[:-2] + data[head:-2] * MOST_SCANS))


def test_as_many_scans_as_encoders_write(tmp_path):
    for image in (GREY, Image.new("RGB", (8, 8)), Image.new("CMYK", (8, 8))):
        open_jpeg(progressive(image, 50)).load()
        read_jpeg(progressive(image, 50))


def test_where_one_scan_holds_all_nothing_is_counted():
    file = io.BytesIO()
    GREY.save(file, "JPEG", comment=FALSE_HEAD * 100)
    open_jpeg(file.getvalue()).load()
    read_jpeg(file.getvalue())


SLOW = {
    "fill bytes": b"\xff" * 5_000_000,
    "markers": b"\xff\xd0" * 5_000_000,
    "empty segments": b"\xff\xfe\x00\x02" * 2_000_000,
    "escaped bytes": b"\xff\x00" * 5_000_000,
    "reserved markers": b"\xff\xf0" * 5_000_000,
    "junk": b"a" * 5_000_000,
    "long reserved segments": (b"\xff\xf0\xff\xfe" + 65532 * b"a") * 100,
}


@pytest.mark.parametrize("name", SLOW)
def test_what_pillow_would_read_byte_by_byte_is_refused_before(name, monkeypatch):
    """Half a second a MB, in each step of a release; where there are few all is as it was."""
    steps = []
    read = io.BytesIO.read

    class Counted(io.BytesIO):
        def read(self, size=-1):
            steps.append(size)
            return read(self, size)

    monkeypatch.setattr("common.untrusted.io.BytesIO", Counted)
    for reads in (open_jpeg, read_jpeg):
        with pytest.raises(ValueError, match="before its picture"):
            reads(OURS[:2] + SLOW[name] + OURS[2:])
    assert not steps
    few = OURS[:2] + b"\xff" * 100 + OURS[2:]
    assert read_jpeg(few).comment == METADATA and open_jpeg(few).load()


@pytest.mark.parametrize("name", ["fill bytes", "markers", "empty segments", "escaped bytes"])
def test_what_stands_behind_a_picture_is_not_looked_at_without_end(name):
    data = OURS[:-2] + SLOW[name] + OURS[-2:]
    if name == "empty segments":
        with pytest.raises(ValueError, match="more than 4,096 markers in its picture"):
            read_jpeg(data)
    else:
        assert read_jpeg(data).foreign == ()


METADATA = {"prompt_index": 1, "augmented_prompt": "caf\xe9 \u2713", "scores": {"a": 0.5}}
OURS = encode(Image.new("RGB", (64, 64), "teal"), comment_of(METADATA), 95)


def test_nothing_is_foreign_in_what_generation_and_plain_encoders_write():
    for pixels in (GREY, Image.effect_noise((300, 200), 90).convert("RGB")):
        assert read_jpeg(encode(pixels, comment_of(METADATA), 95)).foreign == ()
        assert read_jpeg(progressive(pixels)).foreign == ()
        file = io.BytesIO()
        pixels.save(file, "JPEG", restart_marker_blocks=1)
        assert read_jpeg(file.getvalue()).foreign == ()
    head = read_jpeg(OURS)
    assert head.comment == METADATA and private_parts(head) == []
    assert read_jpeg(progressive(Image.new("CMYK", (8, 8)))).foreign == ()


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("data", [OURS, progressive(GREY)], ids=["ours", "progressive"])
def test_what_no_generation_writes_is_named(name, data):
    change, named = PRIVATE[name]
    (found,) = read_jpeg(change(data)).foreign
    assert found.startswith(named)


@pytest.mark.parametrize(
    "comment",
    [
        b'{"a": "/home/alice", "a": 1}',
        b'{"b": [{"a": "/home/alice", "a": 1}]}',
        b'{"a": 1} /home/alice',
        b"[1]",
        b'{"a": ' + b"[" * 5000,
    ],
)
def test_a_comment_is_metadata_that_says_each_thing_once(comment):
    """Of a name that stands there twice readers see one value."""
    assert read_jpeg(encode(GREY, comment, 95)).foreign == ("a comment of other hands",)


def test_what_our_comment_tells_is_looked_at_too():
    told = {"model_name": "/home/alice/m", "lora": ["org/x", "/home/alice/l"], "hostname": "n1"}
    head = read_jpeg(encode(GREY, carried({**METADATA, **told}), 95))
    assert private_parts(head) == [f"{name} in its comment" for name in told]


@pytest.mark.parametrize(
    "value",
    [
        {"/home/alice/s.py": 1.0},
        {"x": "/home/alice/head 1"},
        [{"seed": 1, "path": "/home/alice"}],
        {"deep": [{"hostname": "n1"}]},
        "worker 10.1.2.3:80",
        "alice@example.org",
        "hf_" + "a" * 30,
    ],
)
def test_our_comment_tells_no_more_than_the_public_table(value):
    told = {"scores": {"clip": 0.5}, "score_versions": ["clip 1"], "rejected": [], "note": None}
    head = read_jpeg(encode(GREY, comment_of(METADATA | told), 95))
    assert private_parts(head) == []
    head = read_jpeg(encode(GREY, comment_of(METADATA | told | {"note": value}), 95))
    assert private_parts(head) == ["note in its comment"]


@pytest.mark.timeout(60)
def test_it_costs_its_own_sample_and_is_named(folder, to_parquet, tmp_path):
    """A quarter of an hour of decoding, in 1.5 MB."""
    data = folder()
    data.fill([1, 2], 1)
    bomb = progressive(Image.new("L", (8000, 8000)), 20_000)
    image = data.place(1, 0).with_suffix(".jpg")
    record = data.record(1, 0, bomb) | {"height": 8000, "width": 8000}
    image.write_bytes(bomb)
    image.with_suffix(".json").write_text(json.dumps(record))
    table = tmp_path / "t.parquet"
    assert to_parquet(data.path, table, "--verify", "decode").status == 3
    rejects = (tmp_path / "t.parquet.rejects.jsonl").read_text()
    assert "000000/1_0" in rejects and "does not decode: has 20,0" in rejects
    scored = called("score_images", (data.path, tmp_path / "scores", "--scores", "dhash"))
    assert scored.status == 3 and "; 1 left out: 000000/1_0.jpg: cannot be" in scored.out
    assert to_parquet(data.path, table, "--rebuild").status == 0
    report = called("make_report", (table, tmp_path / "report.html"))
    assert report.status == 3 and "report of 2 images" in report.out
    release = called("release", (data.path, tmp_path / "release", "--allow", "licence_unknown"))
    assert release.status == 1 and "HPDv2/000000/1_0.jpg: has 20,0" in release.out + release.err


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (17, 5), (64, 64), (300, 1000)])
def test_the_smallest_files_of_a_size_are_whole(mode, subsampling, size):
    """One colour, codes made for it alone: less a JPEG cannot hold."""
    file = io.BytesIO()
    blank = Image.new(mode, size)
    blank.save(file, "JPEG", quality=1, optimize=True, subsampling=subsampling)
    assert read_jpeg(file.getvalue()).width == size[0]


@pytest.mark.parametrize("kept", [0, 20])
def test_too_few_bytes_for_its_pixels(kept):
    """A cut file that ends as a whole one does, and 4 billion pixels in 2 kB."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(file, "JPEG")
    data = file.getvalue()
    coded = data.rfind(b"\xff\xda") + 14
    with pytest.raises(ValueError, match="too few for 64 x 64 pixels"):
        read_jpeg(data[: coded + kept] + b"\xff\xd9")
    frame = data.find(b"\xff\xc0")
    huge = data[: frame + 5] + b"\xff\xdc" * 2 + data[frame + 9 :]
    for read in (read_jpeg, open_jpeg):  # what opens it does not even begin to decode it
        with pytest.raises(ValueError, match="too few for 65500 x 65500 pixels"):
            read(huge)
