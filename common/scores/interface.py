"""The interface of a score, and how the names of --scores become scores.

    scores = load_scores("clip,nsfw,my_scores.py:Cuteness")
    for score in scores:
        values = score.score(images, texts)          # one float an image; NaN: it has none

A score of one's own is a class with `name`, `version`, `licence` and that one method, made without
arguments: FILE.py:CLASS. docs/scores.md has worked examples.

    identities("clip,nsfw")     # {"clip": "openai/clip-…", …}: what tells them apart, unloaded
"""

import hashlib
import importlib
import importlib.util
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from common.command_line import UserError
from common.expression import NAME
from common.hub import limit_hub

Values = dict[str, float | None]  # by the scores' names; None: the image has none
Pixels = Any  # numpy array, uint8, height x width x 3 (RGB)

# name: (module, class, what its packages are called)
BUILT_IN = {
    "sharpness": ("common.scores.pixels", "Sharpness"),
    "entropy": ("common.scores.pixels", "Entropy"),
    "dhash": ("common.scores.dhash", "Dhash"),
    "nsfw": ("common.scores.nsfw", "Nsfw"),
    "rendered_text": ("common.scores.rendered_text", "RenderedText"),
    "clip": ("common.scores.clip", "Clip"),
    "aesthetic": ("common.scores.clip", "Aesthetic"),
}
CLIP = "openai/clip-vit-large-patch14"
DHASH = "dhash"  # the one that needs the prompt's other images, so no class of one's own is it
DIGITS = 6  # of a value that is kept
PARTS = ("name", "version", "licence", "score")  # of a class


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
    scores = [_load(word) for word in _words(words)]
    _each_once([score.name for score in scores], words)
    return scores


def values_of(
    scores: Sequence[Score], pixels: Sequence[Pixels], texts: Sequence[str]
) -> list[Values]:
    """The values of each image, rounded as they are kept.

    UserError, naming the score, where one fails or gives another number of values.
    """
    found: list[Values] = [{} for _ in pixels]
    for score in scores:
        try:
            values = [float(value) for value in score.score(pixels, texts)]
        except (Exception, SystemExit) as error:  # whatever a class of the user's own raises
            why = f"{type(error).__name__}: {error}"
            raise UserError(f"the score {score.name} failed: {why}") from None
        if len(values) != len(found):
            raise UserError(
                f"the score {score.name} gave {len(values)} values for {len(found)} images"
            )
        for each, value in zip(found, values, strict=True):
            each[score.name] = round(value, DIGITS) if math.isfinite(value) else None
    return found


def identities(words: str) -> dict[str, str]:
    """{name: what tells a score from others of that name}, without loading any weights.

    A model's id or file, the version of a class, and the sha256 of a file of one's own. UserError
    as load_scores(), but for what only loading can show.
    """
    found = [_identity(word) for word in _words(words)]
    _each_once([name for name, _ in found], words)
    return dict(found)


def _words(words: str) -> list[str]:
    found = [word.strip() for word in words.split(",") if word.strip()]
    if not found:
        raise UserError(f"--scores {words!r} names no score; there are: {', '.join(BUILT_IN)}")
    return found


def _each_once(names: list[str], words: str) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"--scores {words!r}: two scores are called {sorted(twice)[0]}")


def _identity(word: str) -> tuple[str, str]:
    name, _, detail = word.partition(":")
    if name.endswith(".py"):
        own = _class_of(name, detail)
        return own.name, f"{own.version}, {_sha256(name)}"
    if name == "aesthetic" and Path(detail).is_file():
        return name, f"{Path(detail).name}, {_sha256(detail)}"
    if name in ("clip", "aesthetic"):
        return name, detail or CLIP
    return name, str(_built_in(word).version)


def _sha256(path: str) -> str:
    return f"sha256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]}"


def _load(word: str) -> Score:
    name, _, detail = word.partition(":")
    if name.endswith(".py"):
        return _from_file(name, detail)
    wanted = _built_in(word)
    try:
        made: Score = wanted(*([detail] if detail else []))
    except TypeError:
        raise UserError(f"--scores {word}: {name} takes no model") from None
    return made


def _built_in(word: str) -> Any:
    """The class of a score of this package."""
    name, _, _ = word.partition(":")
    if name not in BUILT_IN:
        raise UserError(f"--scores {word}: no such score; there are: {', '.join(BUILT_IN)}")
    module, class_name = BUILT_IN[name]
    try:
        return getattr(importlib.import_module(module), class_name)
    except ImportError as error:
        raise UserError(
            f"--scores {name} needs the package {error.name}: "
            "pip install -r requirements-scores.txt"
        ) from None


def _from_file(path: str, class_name: str) -> Score:
    wanted = _class_of(path, class_name)
    limit_hub()  # it may load a model
    try:
        made: Score = wanted()
    except (Exception, SystemExit) as error:  # whatever the user's own file does
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"--scores {path}:{class_name} cannot be loaded: {why}") from None
    return made


def _class_of(path: str, class_name: str) -> Any:
    """A class of the user's own, not made yet."""
    spec = importlib.util.spec_from_file_location(f"score_of_{Path(path).stem}", path)
    if not class_name or spec is None or spec.loader is None:
        raise UserError(f"--scores {path}:{class_name}: expected FILE.py:CLASS")
    if not Path(path).is_file():
        raise UserError(
            f"--scores {path}:{class_name} cannot be loaded: "
            f"there is no file {os.path.abspath(path)}"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    try:
        spec.loader.exec_module(module)
        own = getattr(module, class_name)
    except (Exception, SystemExit) as error:  # whatever the user's own file does
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"--scores {path}:{class_name} cannot be loaded: {why}") from None
    missing = [part for part in PARTS if not hasattr(own, part)]
    if missing or not NAME.fullmatch(str(own.name)) or own.name == DHASH:
        wrong = f"has no {missing[0]}" if missing else f"has the name {own.name!r}"
        raise UserError(
            f"--scores {path}:{class_name} {wrong}; a score has a name of small letters, "
            "a version, a licence and score(images, texts)"
        )
    return own
