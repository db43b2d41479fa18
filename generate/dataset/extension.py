"""Notice that a data set was extended while clients of its older definition run.

newer = newer_definition(dataset_dir, definition)     # None: the definition stands
standing(dataset_dir, definition)                     # what the folder says, all its fields
"""

from pathlib import Path

from generate.dataset.definition import (
    GROWS,
    RULE,
    Definition,
    Differs,
    compare,
    had_rule,
    rule_fields,
    stored_definition,
)


def newer_definition(dataset_dir: Path, mine: Definition) -> Definition | None:
    """The definition in force, if it is `mine` with more prompts, more images or another rule.

    None: there is none, it is the same, or it differs in another way, which the job server reports.
    The fields are those of `mine`, as a request names them. If `mine` itself extends the data set,
    its size stays.
    """
    try:
        stored = stored_definition(dataset_dir)
        if stored is None:
            return None
        followed = mine | rule_fields(stored) if had_rule(dataset_dir, mine) else mine
        newer = followed
        if not mine.get("extend"):
            newer = mine | {field: stored.get(field) for field in mine if field in stored}
            compare(followed, newer, "dataset.yaml", growing=True)
    except (ValueError, OSError, Differs):
        return None
    differs = any(newer.get(field) != mine.get(field) for field in (*GROWS, *RULE))
    return newer if differs else None


def standing(dataset_dir: Path, mine: Definition) -> Definition:
    """The definition in the folder; `mine` where it cannot be read."""
    try:
        return stored_definition(dataset_dir) or mine
    except (ValueError, OSError):
        return mine
