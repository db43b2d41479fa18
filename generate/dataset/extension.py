"""A data set that was extended while clients of its older definition run, or wait to run.

newer = newer_definition(dataset_dir, definition)     # None: the definition stands
"""

from pathlib import Path

from generate.dataset.definition import Definition, Differs, compare, stored_definition


def newer_definition(dataset_dir: Path, mine: Definition) -> Definition | None:
    """The definition that stands, if it is `mine` with more prompts or more images a prompt.

    None: there is none, it is the same, or it differs in another way, which is for the job server
    to say. The fields are those of `mine`, as a request names them.
    """
    if mine.get("extend"):
        return None
    try:
        stored = stored_definition(dataset_dir)
        if stored is None:
            return None
        newer = mine | {field: stored.get(field) for field in mine if field in stored}
        compare(mine, newer, "dataset.yaml", growing=True)
    except (ValueError, OSError, Differs):
        return None
    return newer if (newer["total"], newer["images_per_prompt"]) != _size(mine) else None


def _size(definition: Definition) -> tuple[int, int]:
    return definition["total"], definition["images_per_prompt"]
