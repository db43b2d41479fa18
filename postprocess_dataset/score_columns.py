"""The columns `score_NAME` of a table: which ones, and their values.

    names = names_of(["/data/HPDv2"])          # ["clip", "nsfw"]: what its dataset.yaml says
    columns = values(rows["extra"], names)     # {"score_clip": […], …}; null: it has no such score

The columns follow from the definitions of the data sets, not from their samples: so all parts of a
table, and the rows that --update adds, have the same ones.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import orjson
import pyarrow as pa

from common.definition_files import definition_files
from common.files import parse_yaml
from common.untrusted import DEFINITION_BYTES, read_untrusted

SEPARATOR = "; "
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")  # of a score


def names_of(folders: Sequence[str]) -> list[str]:
    """The scores that the newest dataset.yaml of any of the folders names, sorted."""
    return sorted({name for folder in folders for name in _names(folder)})


def _names(folder: str) -> list[str]:
    found = definition_files(Path(folder))
    if not found:
        return []
    try:
        text = read_untrusted(found[-1][1], DEFINITION_BYTES)
        scores = parse_yaml(text)["scores"]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # damaged, or a run without scores: they stay in `extra`
    words = scores.split(SEPARATOR) if isinstance(scores, str) else []
    return [word.split(" ")[0] for word in words if NAME.fullmatch(word.split(" ")[0])]


def values(extra: pa.ChunkedArray, names: Sequence[str]) -> dict[str, pa.Array]:
    """What the JSONs in `extra` say; no number is null."""
    rows = [_scores(text) for text in extra.to_pylist()] if names else []
    return {
        f"score_{name}": pa.array([_number(row.get(name)) for row in rows], pa.float64())
        for name in names
    }


def _scores(text: str | None) -> dict[str, object]:
    found = orjson.loads(text).get("scores") if text else None
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if type(value) in (int, float) else None  # type: ignore[arg-type]
