"""A data set's definition: dataset.yaml in its folder, written once; dataset.2.yaml, … for each extension. The newest counts.

    stored = stored_definition(folder)                       # dict, or None for a new data set
    settle(folder, asked)                                    # the definition that stands from now on; Differs if the asked one cannot

The folder's word goes before the ledger's, which can be lost.
"""

import os
import re
import secrets
from datetime import datetime, timezone

from generate.server import identity as server_files

NAME = re.compile(r"dataset(?:\.([0-9]+))?\.yaml")
FREE = (
    "prompts_file",
    "dataset_id",
    "created",
    "extend",
    "prefix_total",
    "prefix_sha256",
)  # may differ from one request to the next
GROWS = ("total", "images_per_prompt")


class Differs(Exception):
    """.field, .stored, .given; the text is for the user."""

    def __init__(self, field, stored, given, what):
        super().__init__(
            f"{field} is {given!r}, but this data set was begun with {stored!r} ({what}); --extend takes appended prompts and more images, "
            "anything else is a new data set: copy the prompts file to another name"
        )
        self.field, self.stored, self.given = field, stored, given


def newest_file(folder):
    """(number, path) of the newest definition in a data set folder, or (0, None)."""
    found = (
        [
            (int(match[1] or 1), folder / match[0])
            for name in os.listdir(folder)
            if (match := NAME.fullmatch(name))
        ]
        if folder.is_dir()
        else []
    )
    return max(found, default=(0, None))


def stored_definition(folder):
    """The newest definition as a dict, or None. ValueError naming the file if it is broken."""
    import yaml

    path = newest_file(folder)[1]
    if path is None:
        return None
    try:
        stored = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is broken: {error}") from None
    if (
        not isinstance(stored, dict)
        or type(stored.get("total")) is not int
        or type(stored.get("images_per_prompt")) is not int
    ):
        raise ValueError(f"{path} is broken: total and images_per_prompt must be whole numbers")
    return stored | {"name": folder.name}


def compare(stored, asked, what):
    """Differs at the first field in which the two disagree. A published request names few fields; what it does not name it accepts."""
    for field in asked.keys() - set(FREE) if asked.get("bare") is None else GROWS:
        if field in stored and stored[field] != asked[field]:
            raise Differs(field, stored[field], asked[field], what)


def settle(folder, asked):
    """(definition, whether it is new or extended) of a request: written if there was none, or extended if asked."""
    stored = stored_definition(folder)
    if stored is None:
        first = {
            key: value
            for key, value in asked.items()
            if key not in ("extend", "prefix_total", "prefix_sha256", "bare")
        }
        first |= {
            "dataset_id": secrets.token_hex(8),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        folder.mkdir(exist_ok=True)
        if not _publish(folder / "dataset.yaml", first):
            return settle(folder, asked)
        return first, True
    number, path = newest_file(folder)
    wider = asked.get("extend") and any(stored[field] != asked[field] for field in GROWS)
    if not wider:
        compare(stored, asked, path.name)
        return stored, False
    kept = {
        key: value for key, value in asked.items() if key not in GROWS and key != "prompts_sha256"
    }
    compare(stored, kept, path.name)
    for field in GROWS:
        if asked[field] < stored[field]:
            raise Differs(field, stored[field], asked[field], path.name)
    if (asked["prefix_total"], asked["prefix_sha256"]) != (
        stored["total"],
        stored.get("prompts_sha256"),
    ):
        raise Differs(
            "prompts_sha256",
            stored.get("prompts_sha256"),
            asked["prefix_sha256"],
            f"{path.name}: the first {stored['total']} prompts are not the same",
        )
    extended = (
        stored
        | {key: asked[key] for key in (*GROWS, "prompts_sha256", "prompts_file")}
        | {"created": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    )
    if not _publish(folder / f"dataset.{number + 1}.yaml", extended):
        return settle(folder, asked)
    return extended, True


def _publish(path, definition):
    import yaml

    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(draft, "x") as file:
            yaml.safe_dump(definition, file, sort_keys=False, allow_unicode=True)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    server_files.sync_folder(path.parent)
    return True
