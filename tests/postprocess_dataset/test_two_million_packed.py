"""Two million images, packed while they are written: never more than a million files at a time."""

import re
import sys

import pytest

from benchmarks.cost import Cost
from tests.postprocess_dataset.conftest import ROOT


@pytest.mark.parametrize(
    ("prompts", "images", "most"),
    [
        (60, 40, 5_000),
        pytest.param(
            10_000, 200, 1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(4 * 3600)]
        ),
    ],
)
def test_files_at_a_time(prompts, images, most):
    """The benchmark asserts itself that each sample is found once."""
    options = ["--prompts", prompts, "--images", images, "--every", max(10, prompts // 40)]
    cost = Cost([sys.executable, ROOT / "benchmarks" / "packing.py", *options])
    found = re.search(r"([\d,]+) images, .* files: at most ([\d,]+) at a time", cost.output)
    count, files = (int(number.replace(",", "")) for number in found.groups())
    assert count == prompts * images and files < most
