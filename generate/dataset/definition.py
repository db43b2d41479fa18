"""A data set's definition: dataset.yaml in its folder, then dataset.2.yaml, … for extensions.

    stored = stored_definition(folder)        # dict, or None for a new data set
    definition, changed = settle(folder, asked)     # what stands from now on; Differs if it cannot
    change_rule(folder, definition)                 # another --accept, --max_tries from now on

Each file is written once; the newest counts. A damaged one is renamed, and written again from the
ledger. Definitions are compared here only. The folder's goes before the ledger's, since the ledger
can be lost. `dataset_id` is random and made with the folder, so it tells two folders of one name
apart.
"""

import contextlib
import secrets
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from common.definition_files import definition_files
from common.files import create_whole, keep_damaged, parse_yaml
from common.untrusted import DEFINITION_BYTES, Refused, read_untrusted

Definition = dict[str, Any]

# May differ from one request to the next. The prompts' sha256 tells prompts files apart; each JSON
# has the version of this project that made it, the definition the one that began the data set.
FREE = {
    "name",
    "prompts_file",
    "version",
    "dataset_id",
    "created",
    "extend",
    "prefix_total",
    "prefix_sha256",
    "bare",
    "rule_changed",
}
GROWS = ("total", "images_per_prompt")
RULE = ("accept", "max_tries")  # of what is accepted: may be changed in a run
# Later fields whose absence from a definition means None.
NONE_IF_ABSENT = ("lora", "sizes", "truncated", "images_per_text")
MIXED = ("libraries", "model_commit", "scheduler")  # what one may go on with knowingly
# for one that is damaged, where no ledger knows the data set
REMEDY = "restore it from a backup, or move the folder away"
MOST = {"total": 10**8, "images_per_prompt": 100_000}
TEXT = (str, NoneType)
WHOLE = (int, NoneType)
TYPES: dict[str, tuple[type, ...]] = {
    "name": TEXT,
    "dataset_id": TEXT,
    "prompts_file": TEXT,
    "prompts_sha256": TEXT,
    "order_seed": WHOLE,
    "run_seed": WHOLE,
    "model": TEXT,
    "revision": TEXT,
    "height": WHOLE,
    "width": WHOLE,
    "sizes": TEXT,
    "lora": TEXT,
    "model_commit": TEXT,
    "scheduler": TEXT,
    "libraries": TEXT,
    "version": TEXT,
    "images_per_text": WHOLE,
    "num_inference_steps": WHOLE,
    "guidance_scale": (int, float, NoneType),
    "augment_prompts": (bool, NoneType),
    "negative_prompt": TEXT,
    "truncated": TEXT,
    "jpeg_quality": WHOLE,
    "dtype": TEXT,
    "without_t5": (bool, NoneType),
    "quantize": TEXT,
    "quantize_args": TEXT,
    "attention": TEXT,
    "compiled": (bool, NoneType),
    "scores": TEXT,
    "accept": TEXT,
    "max_tries": WHOLE,
}
OF_ONE_REQUEST = ("extend", "prefix_total", "prefix_sha256", "bare")


class Differs(Exception):
    """.field, .stored, .given; the text is for the user."""

    def __init__(self, field: str, stored: object, given: object, what: str) -> None:
        instead = "--allow_mixed goes on with what is here; " if field in MIXED else ""
        super().__init__(
            f"{field} is {given!r}, but this data set was begun with {stored!r} ({what}); {instead}"
            "--extend takes appended prompts, more images, another --accept or --max_tries; "
            "anything else is a new data set: copy the prompts file to another name"
        )
        self.field = field
        self.stored = stored
        self.given = given


class Extended(Exception):
    """The data set was extended after this definition was made; .definition is the present one."""

    def __init__(self, definition: Definition) -> None:
        super().__init__(f"the data set was extended: {in_words(definition)}")
        self.definition = definition


def in_words(definition: Definition) -> str:
    """What --extend can change: "12 prompts, 6 images each, accepted by 'clip > 0.3'"."""
    size = f"{definition['total']:,} prompts, {definition['images_per_prompt']} images each"
    if not definition.get("accept"):
        return size
    return f"{size}, accepted by {definition['accept']!r}, {definition['max_tries']} tries"


def rule_fields(definition: Mapping[str, Any]) -> Definition:
    """The fields of RULE."""
    return {field: definition.get(field) for field in RULE}


def newest_file(folder: Path) -> tuple[int, Path | None]:
    """(number, path) of the newest definition in a data set folder, or (0, None)."""
    return max(definition_files(folder), default=(0, None))


def stored_definition(folder: Path) -> Definition | None:
    """The newest definition, or None. ValueError naming the file if it is damaged."""
    path = newest_file(folder)[1]
    return None if path is None else read_definition(path) | {"name": folder.name}


def read_definition(path: Path) -> Definition:
    """The definition in one file; its "name" is that of the folder it was made for.

    ValueError naming the file if it is damaged: torn, of wrong types, too large, no regular file.
    """
    try:
        stored = parse_yaml(read_untrusted(path, DEFINITION_BYTES))
    except Refused as error:
        raise ValueError(f"{path} is damaged: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if isinstance(stored, dict) and isinstance(stored.get("created"), date):
        stored["created"] = stored["created"].isoformat()  # edited without its quotes
    if fault := fault_of(stored):
        raise ValueError(f"{path} is damaged: {fault}")
    fields: Definition = stored
    return fields


def fault_of(stored: object) -> str | None:
    """Why a value cannot be a definition, or None."""
    if not isinstance(stored, dict):
        return "it holds no fields"
    for field, most in MOST.items():
        value = stored.get(field)
        if type(value) is not int or not 1 <= value <= most:
            return f"{field} must be a whole number from 1 to {most}"
    for field, value in stored.items():
        types = TYPES.get(field, (str, int, float, bool, NoneType))
        if not isinstance(field, str) or not isinstance(value, types):
            return f"{str(field)[:80]} is of a wrong type"
    return None


def restore(folder: Path, definition: Definition) -> Path | None:
    """Write the newest definition again, where it is missing or damaged.

    The damaged file is kept under another name, which is returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number, path = newest_file(folder)
    kept = keep_damaged(path) if path else None
    _publish(folder, max(number, 1), definition)
    return kept


def remove(folder: Path) -> None:
    """Remove a data set's definitions, the newest first."""
    while path := newest_file(folder)[1]:
        path.unlink()


def extended_since(folder: Path, asked: Definition) -> Definition | None:
    """The present definition, if `asked` was an earlier one of this data set; else None.

    A request to extend it gets this only if another rule is in force by now.
    """
    files = [path for _, path in definition_files(folder)]
    wants_more = files and asked.get("extend")
    if wants_more and rule_fields(read_definition(files[-1])) == rule_fields(asked):
        return None
    for path in files[:-1]:
        with contextlib.suppress(Differs, OSError, ValueError):
            compare(read_definition(path), asked, path.name)
            return stored_definition(folder)
    return None


def grown_from(present: Definition, earlier: Definition) -> bool:
    """Whether `present` is `earlier` with more images, appended prompts or another rule."""
    with contextlib.suppress(Differs):
        compare(earlier, present | rule_fields(earlier), "", growing=True)
        return True
    return False


def compare(
    stored: Mapping[str, Any], asked: Mapping[str, Any], what: str, growing: bool = False
) -> None:
    """Differs at the first field in which the two disagree; what: where `stored` stands.

    growing: more images for each prompt are no difference, nor are appended prompts (the caller has
    compared the ones before them). A published request ("bare") names few fields; it accepts the
    others as they are.
    """
    fields = GROWS if asked.get("bare") else sorted(asked.keys() - FREE, key=_importance)
    for field in fields:
        if field not in stored and field not in NONE_IF_ABSENT:
            continue
        if stored.get(field) == asked[field]:
            continue
        appended = asked["total"] > stored["total"] and field in ("total", "prompts_sha256")
        more = field == "images_per_prompt" and asked[field] > stored[field]
        if not (growing and (appended or more)):
            raise Differs(field, stored.get(field), asked[field], what)


def _importance(field: str) -> tuple[bool, str]:
    """Order in which differing fields are named: the model first, as it changes others."""
    return field != "model", field


def settle(folder: Path, asked: Definition) -> tuple[Definition, bool]:
    """(the definition in force after a request, whether it is new or extended).

    Writes it if there was none, or an extension if one is asked for. Differs if it is refused.
    """
    stored = stored_definition(folder)
    if stored is None:
        first = {key: value for key, value in asked.items() if key not in OF_ONE_REQUEST}
        first |= {"dataset_id": secrets.token_hex(8), "created": _now()}
        folder.mkdir(exist_ok=True)
        return (first, True) if _publish(folder, 1, first) else settle(folder, asked)
    number, path = newest_file(folder)
    what = path.name if path else "dataset.yaml"
    if not asked.get("extend") or all(stored[field] == asked[field] for field in GROWS):
        compare(stored, asked, what)
        return stored, False
    check_extension(stored, asked, what)
    extended = stored | {key: asked[key] for key in (*GROWS, "prompts_sha256", "prompts_file")}
    extended["created"] = _now()
    return (extended, True) if _publish(folder, number + 1, extended) else settle(folder, asked)


def check_extension(stored: Definition, asked: Definition, what: str) -> None:
    """Differs if `asked` does not begin with the prompts of `stored`, or is another data set."""
    compare(stored, asked, what, growing=True)
    prefix = (asked["prefix_total"], asked["prefix_sha256"])
    if prefix != (stored["total"], stored.get("prompts_sha256")):
        raise Differs(
            "prompts_sha256",
            stored.get("prompts_sha256"),
            asked["prefix_sha256"],
            f"{what}: the first {stored['total']} prompts are not the same",
        )


def change_rule(folder: Path, asked: Definition) -> bool:
    """Write the next definition: the present one with the rule of `asked`. False: no change."""
    stored = stored_definition(folder)
    assert stored is not None, "a data set that was begun"
    if rule_fields(stored) == rule_fields(asked):
        return False
    number, _ = newest_file(folder)
    changed = stored | rule_fields(asked) | {"rule_changed": True, "created": _now()}
    return _publish(folder, number + 1, changed) or change_rule(folder, asked)


def had_rule(folder: Path, asked: Definition) -> bool:
    """Whether the rule of `asked` is or was that of this data set."""
    for _, path in definition_files(folder):
        with contextlib.suppress(OSError, ValueError):
            if rule_fields(read_definition(path)) == rule_fields(asked):
                return True
    return False


def _publish(folder: Path, number: int, definition: Definition) -> bool:
    text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)
    return create_whole(folder / _name(number), text)


def _name(number: int) -> str:
    return "dataset.yaml" if number == 1 else f"dataset.{number}.yaml"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
