"""The cost of a data set: GPU hours and kWh by its own records, tokens and USD by the status.

costs = costs_of(seen, read_status("status.json"))
costs.gpu_hours, costs.kwh, costs.usd
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.files import read_json
from common.json_form import COUNT, in_form, number
from postprocess_dataset.report.rows import Prompt, Seen

# Watts of a whole card: "max thermal design power" or "total board power" in NVIDIA's data sheet of
# each (that of SXM where there is one; a PCIe card takes less). The first name that fits counts.
BOARD_POWER = {
    "B200": 1000,
    "H200": 700,
    "H100": 700,
    "A100": 400,
    "L40S": 350,
    "L40": 300,
    "L4": 72,
    "RTX 6000 Ada": 300,
    "A6000": 300,
    "A40": 300,
    "A10": 150,
    "V100": 300,
    "RTX 4090": 450,
    "RTX 3090": 350,
    "RTX 2080 Ti": 250,
    "T4": 70,
}
LLM = dict.fromkeys(("prompt_tokens?", "completion_tokens?", "usd?"), (None, number))
STATUS = {
    "datasets": [{"name?": str, "set_aside?": (None, COUNT)}],
    "llm?": (None, LLM),
}
LEAST_IMAGES = 4  # of a prompt, for its time an image


@dataclass(frozen=True)
class Costs:
    """None: not known. kwh: at the cards' board power, so at most, of those in the table."""

    seconds_per_image: float | None
    gpu_hours: float | None
    kwh: float | None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usd: float | None = None


def read_status(path: str | Path) -> dict[str, Any]:
    """The document of `image_server.py --status --json`. UserError: it is none."""
    try:
        document: dict[str, Any] = in_form(read_json(path), STATUS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--status {path}: not the document of image_server.py --status --json: {error}"
        ) from None
    return document


def costs_of(seen: Seen, status: dict[str, Any] | None) -> Costs:
    """The costs of a whole table, from the rows that were read of it."""
    seconds = seconds_per_image(seen.prompts)
    hours = seconds * seen.rows / 3600 if seconds is not None else None
    watts = mean_power(seen.counts.get("gpu_name", Counter()))
    llm = (status or {}).get("llm") or {}
    return Costs(
        seconds,
        hours,
        hours * watts / 1000 if hours is not None and watts is not None else None,
        *(llm.get(name) for name in ("prompt_tokens", "completion_tokens", "usd")),
    )


def seconds_per_image(prompts: Sequence[Prompt]) -> float | None:
    """The median time from one batch of a prompt to its next one, by an image of the batch.

    A client generates the batches of a prompt one after the other, on one device; the images of a
    batch have almost the same time stamp, so the longest pauses are those between batches. The
    median: a last batch may wait for the captions of the next prompt. None: there is one batch of
    each prompt.
    """
    times: list[float] = []
    for prompt in prompts:
        stamps = sorted(_stamps(row.get("generation_timestamp") for row in prompt.rows))
        batch = max((_whole(row.get("batch_size")) for row in prompt.rows), default=1)
        later = -(-(len(stamps) - batch) // batch)  # batches after the first one
        if len(stamps) >= LEAST_IMAGES and later > 0:
            pauses = sorted(after - before for before, after in itertools.pairwise(stamps))
            times += [pause / batch for pause in pauses[-later:] if pause > 0]
    return sorted(times)[len(times) // 2] if times else None


def _whole(size: Any) -> int:
    return size if isinstance(size, int) and size > 0 else 1


def _stamps(texts: Iterable[Any]) -> list[float]:
    found = []
    for text in texts:
        try:
            found.append(datetime.fromisoformat(text).timestamp())
        except (TypeError, ValueError):  # null, or no time stamp: the others are enough
            continue
    return found


def mean_power(cards: Counter[Any]) -> float | None:
    """Watts, weighted by images; None unless every card is known."""
    watts = 0.0
    for card, images in cards.items():
        known = [power for name, power in BOARD_POWER.items() if name in str(card or "")]
        if not known:
            return None
        watts += known[0] * images
    return watts / cards.total() if cards else None
