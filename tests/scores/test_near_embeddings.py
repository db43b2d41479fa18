"""Near duplicates where images have embeddings: dhash finds them, their cosine confirms."""

import hashlib
import json
import random
from pathlib import Path

import numpy
import pytest
from PIL import Image

from common.scores.interface import load_scores
from postprocess_dataset.score_table import ScoreTable
from postprocess_dataset.scored import embeddings, near_prints
from postprocess_dataset.scored.embeddings import Embeddings, packed
from tests.postprocess_dataset.conftest import called

SIDE = 64


def layout(seed: int) -> numpy.ndarray:
    """Brightness of a picture: 8 x 8 cells."""
    cells = numpy.random.default_rng(seed).integers(60, 190, (8, 8)).astype(float)
    return numpy.kron(cells, numpy.ones((SIDE // 8, SIDE // 8)))


def red(brightness: numpy.ndarray) -> numpy.ndarray:
    return numpy.stack([brightness * 1.3, brightness * 0.9, brightness * 0.7], -1)


def striped(brightness: numpy.ndarray) -> numpy.ndarray:
    """The same for dhash, which sees the mean of cells alone."""
    stripes = numpy.where(numpy.arange(SIDE) // 2 % 2, 60, -60)[:, None]
    return numpy.stack([brightness + stripes] * 3, -1)


def write(folder: Path, prompt: int, pixels: numpy.ndarray) -> str:
    """One sample; its key."""
    place = folder / "000000" / f"{prompt}_0.jpg"
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(place, quality=95)
    record = {
        "prompt_index": prompt,
        "augmentation_idx": 0,
        "augmented_prompt": "a red circle",
        "image_sha256": hashlib.sha256(place.read_bytes()).hexdigest(),
    }
    place.with_suffix(".json").write_text(json.dumps(record))
    return f"birds/000000/{prompt}_0"


def test_images_of_one_layout_are_told_apart(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearest by dhash is another picture; the same picture is an earlier one."""
    data, output = tmp_path / "birds", tmp_path / "scores"
    pictures = [red(layout(1)), striped(layout(1)), red(layout(1)) + 1, red(layout(2))]
    keys = [write(data, prompt, pixels) for prompt, pixels in enumerate(pictures)]
    [clip] = load_scores(f"clip:{tiny_clip}")
    clip.score([pixels.clip(0, 255).astype(numpy.uint8) for pixels in pictures], ["x"] * 4)
    cosines = (clip.vectors @ clip.vectors.T).numpy()
    between = (cosines[0, 1] + cosines[0, 2]) / 2
    assert cosines[0, 1] < between < cosines[0, 2], "a random model: no other figure is known"
    monkeypatch.setattr(embeddings, "SAME", between)
    by_hash = called("score_images", [data, tmp_path / "hashes", "--scores", "dhash"])
    assert "2 of 4 images are near duplicates" in by_hash.out
    words = [data, output, "--scores", f"dhash,clip:{tiny_clip}"]
    ended = called("score_images", words)
    assert ended.status == 0 and "1 of 4 images are near duplicates" in ended.out
    table = ScoreTable.read(str(output))
    assert "embedding" not in table.rows.schema.names
    found = {key: table.of(key) for key in keys}
    assert [found[key]["near_duplicate_of"] for key in keys] == [None, None, keys[0], None]
    assert found[keys[2]]["near_duplicate_cosine"] == pytest.approx(cosines[0, 2], abs=0.002)
    assert found[keys[1]]["dhash_set_distance"] == 64
    again = called("score_images", words)
    assert "0 images scored, 4 were there; 1 of 4 images are near duplicates" in again.out


def test_scores_without_dhash_keep_no_embedding(tiny_clip: Path, tmp_path: Path) -> None:
    data, output = tmp_path / "birds", tmp_path / "scores"
    write(data, 0, red(layout(1)))
    assert called("score_images", [data, output, "--scores", f"clip:{tiny_clip}"]).status == 0
    assert b"embedding" not in next(output.glob("*.parquet")).read_bytes()


def test_a_byte_a_dimension_keeps_the_cosine() -> None:
    vectors = numpy.random.default_rng(0).standard_normal((200, 768)).astype(numpy.float32)
    vectors[:, 5] *= 12  # as CLIP has them: one dimension is larger than the others
    vectors[100:] = vectors[:100] + 0.3 * vectors[100:]
    rows = numpy.array([numpy.frombuffer(row, numpy.int8) for row in packed(vectors)])
    unit = vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)
    mine, others = numpy.arange(100), numpy.arange(100, 200)
    cosines = Embeddings.of(rows).cosine(mine, others)
    assert numpy.abs(cosines - (unit[mine] * unit[others]).sum(1)).max() < 0.005
    rows[0] = 0
    known = Embeddings.of(rows)
    assert numpy.isnan(known.cosine(mine[:1], others[:1])) and known.alike(mine[:1], others[:1])


@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_what_comparing_all_pairs_finds(seed: int) -> None:
    """Each pair that counts is among those found, also where hashes are equal."""
    rng = random.Random(seed)
    prints: list[int] = []
    for _ in range(60):
        one = rng.getrandbits(64)
        for _ in range(rng.randrange(1, 8)):
            flips = sum(1 << bit for bit in rng.sample(range(64), rng.choice([0, 0, 2, 5, 8])))
            prints.append(one ^ flips)
    rng.shuffle(prints)
    scenes = numpy.array([rng.randrange(3) for _ in prints])
    given = numpy.array(prints, numpy.uint64)
    found = near_prints.nearest_earlier(given, lambda mine, others: scenes[mine] == scenes[others])
    for place, own in enumerate(prints):
        pairs = [
            ((own ^ prints[n]).bit_count(), n) for n in range(place) if scenes[n] == scenes[place]
        ]
        best = min(pairs, default=(64, -1))
        best = best if best[0] <= near_prints.NEAR else (64, -1)
        assert (found.bits[place], found.places[place]) == best
