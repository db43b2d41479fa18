"""The example of a score of one's own tells right captions of the tiny model from wrong ones."""

import math
import random

import numpy
import pytest

from common.scores.interface import Score, load_scores
from examples import shape_score
from examples.tiny_model import drawings

ACCEPTED = 0.9


@pytest.fixture(scope="module")
def shape() -> Score:
    [score] = load_scores(f"{shape_score.__file__}:ShapeScore")
    return score


def test_its_colours_are_those_of_the_model() -> None:
    assert shape_score.PALETTE == drawings.COLORS


def test_drawings_are_accepted_with_their_own_caption_alone(shape: Score) -> None:
    rng = random.Random(3)
    scenes = [drawings.scene(rng) for _ in range(150)]
    images = [drawings.draw(*scene[1:]) for scene in scenes]
    own = shape.score(images, [scene[0] for scene in scenes])
    assert sum(value > ACCEPTED for value in own) >= 148
    others = shape.score(images, [scene[0] for scene in scenes[1:] + scenes[:1]])
    assert sum(value > ACCEPTED for value in others) <= 2


CIRCLE = ("red", "circle", 0, 0, 20)


@pytest.mark.parametrize(
    "caption",
    [
        "a large blue circle on a green background",
        "a large red square on a green background",
        "a small red circle on a green background",
        "a red circle on a green background",
        "a red circle at the left on a green background",
        "two red circles on a green background",
        "a large red circle on a black background",
        "a large red circle on a purple background",
        "a red circle above a blue square on a green background",
    ],
)
def test_each_word_counts(shape: Score, caption: str) -> None:
    image = drawings.draw("green", [CIRCLE])
    [right, wrong] = shape.score([image] * 2, ["A large red circle on a green background", caption])
    assert right == 1.0
    assert wrong <= ACCEPTED


def test_a_caption_that_goes_on_and_one_that_names_nothing(shape: Score) -> None:
    image = drawings.draw("green", [CIRCLE])
    texts = ["a large red circle on a green background, at dawn, in oil", "a photo of a cat"]
    going_on, nothing = shape.score([image] * 2, texts)
    assert going_on == 1.0
    assert math.isnan(nothing)


def test_other_sizes_and_foreign_pixels(shape: Score) -> None:
    text = "a large red circle on a green background"
    image = drawings.draw("green", [CIRCLE])
    large = numpy.kron(image, numpy.ones((4, 4, 1), numpy.uint8))
    noise = numpy.random.default_rng(0).integers(0, 256, image.shape, numpy.uint8)
    values = shape.score([large, noise, numpy.zeros((1, 1, 3), numpy.uint8)], [text] * 3)
    assert values[0] == 1.0
    assert max(values[1:]) < 0.5
