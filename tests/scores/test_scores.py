"""Each score says what its name says; scores are found by name, model, or file."""

import math
import os
from pathlib import Path

import numpy
import pytest

from common.command_line import UserError
from common.scores import dhash
from common.scores.histogram import bars, histogram
from common.scores.interface import BUILT_IN, identities, load_scores
from tests.scores.conftest import lettering

Pictures = dict[str, numpy.ndarray]


def values(words: str, images: list[numpy.ndarray], texts: list[str]) -> list[float]:
    [score] = load_scores(words)
    assert score.version and score.licence
    return score.score(images, texts)


@pytest.mark.filterwarnings("error")
def test_an_image_of_few_pixels_has_no_sharpness() -> None:
    [score] = values("sharpness", [numpy.zeros((2, 9, 3), numpy.uint8)], [""])
    assert math.isnan(score)


def test_sharpness_ranks_a_drawing_above_its_blurred_copy(pictures: Pictures) -> None:
    names = ["flat", "blurred", "drawing", "noise"]
    scores = values("sharpness", [pictures[name] for name in names], [""] * 4)
    assert scores == sorted(scores)
    assert scores[0] == 0 < scores[1] < scores[2] / 2


def test_entropy_tells_flat_and_noisy_images_apart(pictures: Pictures) -> None:
    names = ["flat", "strip", "drawing", "noise"]
    flat, strip, drawing, noise = values("entropy", [pictures[name] for name in names], [""] * 4)
    assert flat == strip == 0
    assert 1 < drawing < 6.5 < 7 < noise <= 8


def test_entropy_of_an_image_smaller_than_its_tiles() -> None:
    assert values("entropy", [numpy.zeros((4, 4, 3), numpy.uint8)], [""]) == [0.0]


def test_a_fingerprint_survives_scaling_and_tells_pictures_apart(pictures: Pictures) -> None:
    drawing = pictures["drawing"]
    half = numpy.ascontiguousarray(drawing[::2, ::2])
    brighter = (drawing.astype(int) // 2 + 60).astype(numpy.uint8)
    one = dhash.fingerprint(drawing)
    assert dhash.distance(one, one) == 0
    assert dhash.distance(one, dhash.fingerprint(half)) <= 3
    assert dhash.distance(one, dhash.fingerprint(brighter)) <= 4
    assert dhash.distance(one, dhash.fingerprint(pictures["noise"])) > 12
    mirrored = dhash.fingerprint(numpy.ascontiguousarray(drawing[:, ::-1]))
    assert dhash.distance(one, mirrored) > 12
    assert 0 <= dhash.fingerprint(numpy.zeros((1, 1, 3), numpy.uint8)) < 2**64


def test_nsfw_by_its_real_weights(pictures: Pictures) -> None:
    scores = values("nsfw", [pictures["drawing"], pictures["noise"]], ["", ""])
    assert all(0 <= score < 0.5 for score in scores)


def test_rendered_text_reads_the_quoted_words() -> None:
    images = [lettering("OPEN SUNDAY"), lettering("OPEN MONDAY"), lettering("hello")]
    texts = ['a shop with a sign "Open Sunday"', "a sign “open sunday”", "a sign without quotes"]
    right, half, none = values("rendered_text", images, texts)
    assert (right, half) == (1.0, 0.5)
    assert math.isnan(none)


def test_clip_gives_each_pair_its_cosine(tiny_clip: Path, pictures: Pictures) -> None:
    images = [pictures["drawing"], pictures["noise"], pictures["drawing"]]
    texts = ["a red circle", "a blue square", "a blue square"]
    together = values(f"clip:{tiny_clip}", images, texts)
    alone = [values(f"clip:{tiny_clip}", [i], [t])[0] for i, t in zip(images, texts, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert all(-1 <= score <= 1 for score in together)
    assert together[0] != pytest.approx(together[2], abs=1e-6), "the text counts"
    assert together[1] != pytest.approx(together[2], abs=1e-6), "the image counts"


def test_a_long_text_is_cut_not_refused(tiny_clip: Path, pictures: Pictures) -> None:
    [score] = values(f"clip:{tiny_clip}", [pictures["flat"]], ["a red circle " * 200])
    assert -1 <= score <= 1


OWN = """
from __future__ import annotations
import dataclasses
@dataclasses.dataclass
class Settings:
    channel: int = 0
class Redness:
    name = "redness"
    version = "1"
    licence = "CC0"
    def score(self, images, texts):
        return [float(image[..., Settings().channel].mean()) for image in images]
class Nameless:
    version = licence = "1"
    def score(self, images, texts):
        return []
class Shouting(Redness):
    name = "Red ness"
class Broken(Redness):
    def __init__(self):
        raise RuntimeError("no weights")
"""


def test_a_score_of_ones_own(tmp_path: Path, pictures: Pictures) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    scores = load_scores(f"sharpness, {path}:Redness")
    assert [score.name for score in scores] == ["sharpness", "redness"]
    assert scores[1].score([pictures["flat"]], [""]) == [128.0]


@pytest.mark.parametrize(
    "words, says",
    [
        ("", "names no score"),
        ("beauty", "no such score; there are: sharpness"),
        ("sharpness,sharpness", "two scores are called sharpness"),
        ("sharpness:model", "takes no model"),
        ("own.py", "expected FILE.py:CLASS"),
        ("missing.py:A", "cannot be loaded: there is no file /"),
        ("own.py:Missing", "cannot be loaded"),
        ("own.py:Nameless", "has no name"),
        ("own.py:Shouting", "has the name 'Red ness'"),
        ("own.py:Broken", "no weights"),
        ("clip:/no/such/folder", "cannot be loaded"),
        ("aesthetic", "needs LAION's head"),
    ],
)
def test_a_score_that_cannot_be_had_is_one_line(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    with pytest.raises(UserError, match=says) as refused:
        load_scores(words)
    assert "\n" not in str(refused.value)


def test_the_aesthetic_head_is_read(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Pictures
) -> None:
    import torch

    from common.scores import clip

    head = tmp_path / "head.pth"
    torch.save({"weight": torch.zeros(1, 16), "bias": torch.tensor([5.5])}, head)
    monkeypatch.setattr(clip, "MODEL", str(tiny_clip))
    assert values(f"aesthetic:{head}", [pictures["flat"]], [""]) == [5.5]
    torch.save({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, head)
    with pytest.raises(UserError, match="a head over 768 numbers"):
        load_scores(f"aesthetic:{head}")
    head.write_bytes(os.urandom(100))
    with pytest.raises(UserError, match="cannot be read as the weights"):
        load_scores(f"aesthetic:{head}")


def test_no_score_is_loaded_that_nobody_named() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from common.scores.interface import load_scores; load_scores('sharpness');"
        "print([m for m in ('torch', 'onnxruntime', 'rapidocr') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout == "[]\n", shown.stderr
    assert set(BUILT_IN) >= {"nsfw", "clip"}


OTHERS = Path(__file__).resolve().parents[2] / "examples" / "preference_scores.py"


def test_scores_of_others_are_named_without_their_packages() -> None:
    classes = ("PickScore", "ImageReward", "HPSv3", "VQAScore")
    found = identities(",".join(f"{OTHERS}:{name}" for name in classes))
    assert list(found) == ["pickscore", "imagereward", "hpsv3", "vqascore"]
    assert found["vqascore"].startswith("clip-flant5-xl, sha256 ")
    with pytest.raises(UserError, match="HPSv3 cannot be loaded: ModuleNotFoundError"):
        load_scores(f"{OTHERS}:HPSv3")


def test_pickscore_by_a_tiny_model(tiny_clip: Path, tmp_path: Path, pictures: Pictures) -> None:
    own = tmp_path / "tiny_pickscore.py"
    text = OTHERS.read_text()
    for model in ("yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"):
        assert text.count(f'"{model}"') == 1
        text = text.replace(f'"{model}"', f'"{tiny_clip}"')
    own.write_text(text)
    images = [pictures["drawing"], pictures["noise"]]
    texts = ["a red circle", "a blue square " * 60]
    found = values(f"{own}:PickScore", images, texts)
    assert found == pytest.approx(values(f"clip:{tiny_clip}", images, texts), abs=1e-4)


def test_a_histogram_as_a_line_of_text():
    assert (
        bars(histogram("nsfw", [0.0] * 8 + [0.5] * 4 + [1.0]))
        == "█" + " " * 11 + "▄" + " " * 10 + "▁"
    )
    assert bars(histogram("nsfw", [0.3])) == "█"
    assert bars(histogram("dhash", [1, 2, 2, 4])) == "▄█ ▄"
