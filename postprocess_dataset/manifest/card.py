"""Read the counts that a card states, from the YAML at the head of its README.md.

check_card("release", {"webdataset": 200_000}, found)     # a finding where the card says otherwise
"""

import os
from typing import Any

from common.files import parse_yaml
from common.untrusted import DEFINITION_BYTES, read_text
from postprocess_dataset.manifest.kinds import Findings

NAME = "README.md"


def check_card(folder: str, counts: dict[str, int], found: Findings) -> bool:
    """Compare each configuration of dataset_info with the counted samples; False: there is no card.

    counts: {form of the data: samples}. A card without dataset_info states no counts.
    """
    place = os.path.join(folder, NAME)
    try:
        about = header(read_text(place))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        found.add("card_counts", place, f"its YAML cannot be read: {' '.join(str(error).split())}")
        return True
    for config, stated in stated_counts(about).items():
        if stated not in counts.values():
            counted = ", ".join(f"{count:,} ({form})" for form, count in sorted(counts.items()))
            found.add(
                "card_counts", f"{place}: {config}", f"states {stated:,}, there are {counted}"
            )
    return True


def header(text: str) -> dict[str, Any]:
    """The mapping between the first two lines of ---; {} without one. ValueError: it is none."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"), len(lines))
    head = "\n".join(lines[1:end])
    if len(head) > DEFINITION_BYTES:
        raise ValueError(f"it is longer than {DEFINITION_BYTES:,} characters")
    about = parse_yaml(head) or {}
    if not isinstance(about, dict):
        raise ValueError("it is no mapping")
    return about


def stated_counts(about: dict[str, Any]) -> dict[str, int]:
    """{configuration: samples of all its splits} of a card's dataset_info."""
    infos = about.get("dataset_info") or []
    found = {}
    for info in infos if isinstance(infos, list) else [infos]:
        splits = info.get("splits") if isinstance(info, dict) else None
        if splits:
            numbers = [split.get("num_examples") for split in splits if isinstance(split, dict)]
            name = str(info.get("config_name", "default"))
            found[name] = sum(n for n in numbers if type(n) is int)
    return found
