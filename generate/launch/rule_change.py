"""--extend with another --accept or --max_tries: show what it opens again, then apply it.

    change(args, definition, output_root)     # before any client asks for work

Written is the next definition alone: the job server follows it, and clients of the older one finish
what they hold first. Typed again it changes nothing.
"""

import ast
import copy
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tqdm

from common.command_line import UserError
from common.console import INDENT
from common.expression import Expression
from common.sample_reader import iterate
from generate.dataset import definition as definitions
from generate.dataset.accept_rule import Rule
from generate.dataset.layout import NAME, path_of
from generate.dataset.tries import not_accepted
from generate.protocol.output_root import dataset_folder


def change(args: Namespace, definition: definitions.Definition, root: Path) -> None:
    """Make the rule of `definition` stand, if that is asked for; with --dry_run say so alone.

    UserError where anything differs that cannot be changed.
    """
    folder = dataset_folder(root, definition["name"])
    stored = definitions.stored_definition(folder) if definition.get("extend") else None
    rule = definitions.rule_fields(definition)
    if stored is None or definitions.rule_fields(stored) == rule:
        return
    newest = definitions.newest_file(folder)[1]
    try:
        definitions.check_extension(stored | rule, definition, newest.name if newest else "")
    except definitions.Differs as error:
        raise UserError(str(error)) from None
    print("\n".join(lines_of(folder, stored, definition)), flush=True)
    if not args.dry_run:
        definitions.change_rule(folder, definition)


def lines_of(folder: Path, stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """What the rule of `asked` means for what lies in the folder, counted from its files."""
    rule = Rule.of(asked)
    given_up = list(_not_accepted(folder))
    opened = [place for place in given_up if not rule.gave_up(folder, *place)]
    images = refused = 0
    for values in _scores(folder):
        images += 1
        refused += not (rule.accept is None or rule.accept.holds(values))
    prompts = len({index for index, _ in opened})
    again = f"{len(opened):,} of {len(given_up):,} captions that were given up are tried again"
    lines = [
        f"accept     {_in_words(asked)}; before: {_in_words(stored)}",
        f"{INDENT}{again}, of {prompts:,} prompts",
        f"{INDENT}the {images:,} images that are published stay; by their own scores "
        f"{images - refused:,} of them fulfil it",
    ]
    if refused and rule.accept:
        lines[-1] += f", the others are left out by --where {in_a_table(rule.accept)!r}"
    return lines


def _in_words(definition: dict[str, Any]) -> str:
    if not definition.get("accept"):
        return "all images"
    return f"{definition['accept']}, {definition['max_tries']} tries"


def in_a_table(accept: Expression) -> str:
    """The same expression over a table's columns: score_clip > 0.3."""
    tree = copy.deepcopy(accept.tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = f"score_{node.id}"
    return ast.unparse(tree)


def _not_accepted(folder: Path) -> Iterator[tuple[int, int]]:
    """(index, augmentation) of the captions given up since none of their images was accepted."""
    for path in folder.glob("[0-9]*/[0-9]*.failed"):
        match = NAME.fullmatch(path.name)
        if match is None or match[2] is None:
            continue
        index, aug = int(match[1]), int(match[2])
        if not path_of(folder, index, aug, ".jpg").exists() and not_accepted(folder, index, aug):
            yield index, aug


def _scores(folder: Path) -> Iterator[dict[str, Any]]:
    """Of each image that is published."""
    samples = tqdm.tqdm(
        iterate(folder),
        desc="reading the scores of what lies there",
        unit=" images",
        delay=2,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    for sample in samples:
        values = sample.metadata.get("scores")
        yield values if isinstance(values, dict) else {}
