"""What a score is, and how the names of --scores become scores.

    scores = load_scores("clip,nsfw,my_scores.py:Cuteness")
    for score in scores:
        values = score.score(images, texts)          # one float an image; NaN: it has none

A score of one's own is a class with `name`, `version`, `licence` and that one method, made without
arguments: FILE.py:CLASS. docs/scores.md has worked examples.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from common.command_line import UserError

Pixels = Any  # numpy array, uint8, height x width x 3 (RGB)
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")

# name: (module, class, what its packages are called)
BUILT_IN = {
    "sharpness": ("common.scores.pixels", "Sharpness"),
    "entropy": ("common.scores.pixels", "Entropy"),
    "nsfw": ("common.scores.nsfw", "Nsfw"),
    "rendered_text": ("common.scores.rendered_text", "RenderedText"),
    "clip": ("common.scores.clip", "Clip"),
    "aesthetic": ("common.scores.clip", "Aesthetic"),
}


class Score(Protocol):
    """Something that gives each image a number."""

    name: str  # of the column: score_<name>
    version: str  # of code and weights; another version is another score
    licence: str  # of the weights

    def score(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        """One number an image, in order. texts: what each image was made from.

        Called with batches; must not depend on which images share a batch.
        """
        ...


def load_scores(words: str) -> list[Score]:
    """The scores of a comma-separated list: built-in names, `clip:MODEL`, `FILE.py:CLASS`.

    UserError: an unknown name, a package that is not installed, a file without that class.
    """
    scores = [_load(word.strip()) for word in words.split(",") if word.strip()]
    if not scores:
        raise UserError(f"--scores {words!r} names no score; there are: {', '.join(BUILT_IN)}")
    names = [score.name for score in scores]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"--scores {words!r}: two scores are called {sorted(twice)[0]}")
    return scores


def _load(word: str) -> Score:
    name, _, detail = word.partition(":")
    if name.endswith(".py"):
        return _from_file(name, detail)
    if name not in BUILT_IN:
        raise UserError(f"--scores {word}: no such score; there are: {', '.join(BUILT_IN)}")
    module, class_name = BUILT_IN[name]
    try:
        made: Score = getattr(importlib.import_module(module), class_name)(
            *([detail] if detail else [])
        )
    except ImportError as error:
        raise UserError(
            f"--scores {name} needs the package {error.name}: "
            "pip install -r requirements-scores.txt"
        ) from None
    except TypeError:
        raise UserError(f"--scores {word}: {name} takes no model") from None
    return made


def _from_file(path: str, class_name: str) -> Score:
    spec = importlib.util.spec_from_file_location(f"score_of_{Path(path).stem}", path)
    if not class_name or spec is None or spec.loader is None:
        raise UserError(f"--scores {path}:{class_name}: expected FILE.py:CLASS")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    try:
        spec.loader.exec_module(module)
        made: Score = getattr(module, class_name)()
    except Exception as error:  # whatever the user's own file does
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"--scores {path}:{class_name} cannot be loaded: {why}") from None
    missing = [part for part in ("name", "version", "licence", "score") if not hasattr(made, part)]
    if missing or not NAME.fullmatch(str(made.name)):
        wrong = f"has no {missing[0]}" if missing else f"has the name {made.name!r}"
        raise UserError(
            f"--scores {path}:{class_name} {wrong}; a score has a name of small letters, "
            "a version, a licence and score(images, texts)"
        )
    return made
