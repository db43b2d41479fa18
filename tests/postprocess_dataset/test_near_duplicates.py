"""Near duplicates over a whole data set: the search among dhashes, its file, and --where."""

import hashlib
import json
import random

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from postprocess_dataset import near_table, score_table
from postprocess_dataset.release_forms.published_scores import write_scores
from postprocess_dataset.score_table import ScoreTable
from postprocess_dataset.scored import near_images, near_prints
from tests.postprocess_dataset.conftest import called


def by_every_pair(prints):
    """[(bits, place)] of the nearest earlier one, by comparing each with each."""
    found = []
    for place, own in enumerate(prints.tolist()):
        pairs = [((own ^ other).bit_count(), n) for n, other in enumerate(prints[:place].tolist())]
        best = min(pairs, default=(64, -1))
        found.append(best if best[0] <= 6 else (64, -1))
    return found


def pairs(found):
    return list(zip(found.bits.tolist(), found.places.tolist(), strict=True))


def flipped(number, bits, rng):
    for bit in rng.sample(range(64), bits):
        number ^= 1 << bit
    return number


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_what_comparing_all_pairs_finds(seed):
    rng = random.Random(seed)
    prints = []
    for _ in range(80):
        one = rng.getrandbits(64)
        prints += [flipped(one, rng.randrange(9), rng) for _ in range(rng.randrange(1, 8))]
    rng.shuffle(prints)
    given = numpy.array(prints, numpy.uint64)
    found = near_prints.nearest_earlier(given)
    assert pairs(found) == by_every_pair(given)
    assert found.cut == 0
    assert sum(found.bits <= 6) > 50


@pytest.mark.parametrize("count", [0, 1])
def test_the_search_takes_few(count):
    found = near_prints.nearest_earlier(numpy.zeros(count, numpy.uint64))
    assert pairs(found) == [(64, -1)] * count and found.cut == 0


def test_thousands_that_look_alike_cost_no_square(monkeypatch):
    """Equal hashes count once; of a crowd each is compared with the last of a window."""
    monkeypatch.setattr(near_prints, "WINDOW", 8)
    compared = []
    popcount = numpy.bitwise_count
    monkeypatch.setattr(
        near_prints.numpy, "bitwise_count", lambda xor: compared.append(len(xor)) or popcount(xor)
    )
    equal = near_prints.nearest_earlier(numpy.full(5000, 7, numpy.uint64))
    assert equal.bits.tolist() == [64] + [0] * 4999
    assert set(equal.places.tolist()) == {-1, 0}
    assert sum(compared) == 0
    crowd = numpy.array([n * 0x0101010101 for n in range(256)] * 4, numpy.uint64)
    found = near_prints.nearest_earlier(crowd)
    assert sum(compared) <= 28 * 8 * 256
    assert 0 < found.cut < 256


# ---------------------------------------------------------------- the file beside the scores


def draw(place, seed):
    """A picture of its own for each seed, and its JSON."""
    rng = random.Random(seed)
    image = Image.new("L", (64, 64))
    for x in range(0, 64, 4):
        for y in range(0, 64, 4):
            image.paste(rng.randrange(256), (x, y, x + 4, y + 4))
    image.save(place.with_suffix(".jpg"), "JPEG", quality=95)
    digest = hashlib.sha256(place.with_suffix(".jpg").read_bytes()).hexdigest()
    record = json.loads(place.with_suffix(".json").read_text())
    place.with_suffix(".json").write_text(json.dumps(record | {"image_sha256": digest}))


@pytest.fixture
def pictures(folder):
    """Six prompts of one image; those of 3 and 5 are that of 1."""
    data = folder()
    for prompt, seed in enumerate([10, 11, 12, 11, 13, 11]):
        draw(data.add(prompt, 0), seed)
    return data


def scored(*args):
    return called("score_images", args)


def key(prompt):
    return f"HPDv2/000000/{prompt}_0"


def near_of(output):
    table = ScoreTable.read(str(output))
    of = {each: table.of(each) for each in table.places}
    return {each: values["near_duplicate_of"] for each, values in of.items()}


NEAR = {key(n): key(1) if n in (3, 5) else None for n in range(6)}


def test_images_are_compared_over_all_prompts(pictures, tmp_path):
    output = tmp_path / "scores"
    ended = scored(pictures.path, output, "--scores", "dhash")
    assert ended.status == 0, ended.err
    assert "2 of 6 images are near duplicates" in ended.out
    assert near_of(output) == NEAR
    values = ScoreTable.read(str(output)).of(key(3))
    assert values["dhash_set_distance"] == 0 and values["dhash_distance"] == 64
    assert ScoreTable.read(str(output)).of(key(0))["dhash_set_distance"] == 64
    assert pq.read_table(output).num_rows == 6, "the folder is one table still"


def test_a_crowd_that_is_cut_is_told(tmp_path):
    """400 hashes that share two bytes: those after the 257th were not compared with all before."""
    rng = random.Random(5)
    hashes = [f"{rng.getrandbits(48):016x}" for _ in range(400)]
    rows = [
        {"__key__": key(n), "image_sha256": None, "dhash": each, "dhash_distance": 64}
        for n, each in enumerate(hashes)
    ]
    facts = {"scores": {"dhash": "1"}, "licences": {}}
    score_table.publish(rows, str(tmp_path / "part-00000-of-00001.000000.parquet"), facts)
    assert str(near_images.compare(str(tmp_path))) == (
        "0 of 400 images are near duplicates; 143 others may be: too many look alike, "
        "and each was compared with the last 256 of them only"
    )


def test_parts_are_compared_by_the_command_without_part(pictures, tmp_path):
    output = tmp_path / "scores"
    for number in range(3):
        part = scored(pictures.path, output, "--scores", "dhash", "--part", f"{number}/3")
        assert part.status == 0
    assert "near_duplicate_of" not in ScoreTable.read(str(output)).names
    ended = scored(pictures.path, output, "--scores", "dhash")
    assert "0 images scored, 6 were there; 2 of 6 images are near duplicates" in ended.out
    assert near_of(output) == NEAR


def test_images_scored_since_make_them_unknown(pictures, tmp_path, to_parquet, to_tars):
    """Not taken for images without a near one."""
    output = tmp_path / "scores"
    scored(pictures.path, output, "--scores", "dhash")
    draw(pictures.add(7, 0), 12)
    for number in range(4):
        scored(pictures.path, output, "--scores", "dhash", "--part", f"{number}/4")
    assert to_parquet(pictures.path, tmp_path / "t.parquet").status == 0
    words = ["--scores", output, "--where", "dhash_set_distance > 6"]
    ended = to_tars(tmp_path / "t.parquet", pictures.path, tmp_path / "tars", *words)
    assert ended.status == 1
    assert "near duplicates: score_images.py again, with dhash and without --part" in ended.err
    scored(pictures.path, output, "--scores", "dhash")
    ended = to_tars(tmp_path / "t.parquet", pictures.path, tmp_path / "tars", *words)
    assert ended.status == 0 and "takes 4 of 7 rows" in ended.out
    assert near_of(output) == NEAR | {key(7): key(2)}


def test_an_image_that_was_made_anew_counts_as_it_is_now(pictures, tmp_path):
    output = tmp_path / "scores"
    scored(pictures.path, output, "--scores", "dhash")
    draw(pictures.add(5, 0), 99)
    scored(pictures.path, output, "--scores", "dhash")
    assert near_of(output) == NEAR | {key(5): None}


def test_killed_at_any_write_the_next_command_ends_it(pictures, tmp_path, dying):
    for at in range(8):
        output = tmp_path / f"scores{at}"
        dying(at, "score_images", pictures.path, output, "--scores", "dhash")
        assert scored(pictures.path, output, "--scores", "dhash").status == 0
        assert near_of(output) == NEAR


def test_a_published_table_of_scores_has_them_as_columns(pictures, tmp_path):
    """A stranger has a part of the images, and what was found among all of them."""
    output, public = tmp_path / "scores", tmp_path / "public"
    scored(pictures.path, output, "--scores", "dhash")
    keys = pa.table({"__key__": [key(0), key(3), "set/000000/9_0"], "image_sha256": ["", "", ""]})
    pq.write_table(keys, tmp_path / "rows.parquet")
    write_scores(["rows.parquet"], str(tmp_path), str(public), ScoreTable.read(str(output)))
    found = ScoreTable.read(str(public))
    assert set(near_table.COLUMNS) <= set(found.names)
    assert found.of(key(3))["near_duplicate_of"] == key(1)
    assert [found.of(key(n))["dhash_set_distance"] for n in (0, 3)] == [64, 0]
    assert found.of("set/000000/9_0")["dhash_set_distance"] is None


def test_a_damaged_file_is_named(pictures, tmp_path):
    output = tmp_path / "scores"
    scored(pictures.path, output, "--scores", "dhash")
    (output / near_table.NAME).write_bytes(b"PAR1 no more")
    ended = scored(pictures.path, output, "--scores", "dhash")
    assert ended.status == 1 and near_table.NAME in ended.err
