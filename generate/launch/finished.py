"""Progress of a data set when no job server runs: counted from its files.

print("\n".join(lines_of(output_root, "HPDv2")))
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import INDENT, near_path, this_python, visible
from common.files import CHECKOUT
from common.terms import source_of
from generate.dataset.accept_rule import rule_of
from generate.dataset.definition import Definition, stored_definition
from generate.dataset.layout import FOLDER
from generate.dataset.scan import scan_folder
from generate.protocol.output_root import dataset_folder


@dataclass(frozen=True)
class Counted:
    """What lies in a data set's folder."""

    definition: Definition
    done: int  # prompts
    images: int
    given_up: int  # images
    unread: list[str]  # sub-folders, each with the reason


def count(root: Path, name: str) -> Counted | None:
    """The counts of a data set; None if there is none. ValueError: its definition is damaged."""
    folder = dataset_folder(root, name)
    definition = stored_definition(folder)
    if definition is None:
        return None
    done = images = given_up = 0
    unread = []
    for number in range(-(-definition["total"] // FOLDER)):
        try:
            found = scan_folder(folder, number, rule=rule_of(definition))
        except OSError as error:  # the server puts its prompts off; the others go on
            unread.append(f"{visible(error.filename)}: {error.strerror}")
            continue
        for files in found.values():
            done += files.done(definition["images_per_prompt"])
            images += len(files.images & files.jsons)
            given_up += len(files.failed)
    return Counted(definition, done, images, given_up, unread)


def images_there(root: Path, name: str) -> int:
    """Images in a data set's folder; 0 if its definition is damaged, which the server reports."""
    try:
        counted = count(root, name)
    except ValueError:
        return 0
    return counted.images if counted else 0


def lines_of(root: Path, name: str) -> list[str]:
    """The counts as lines; empty if there is no such data set. ValueError: it is damaged."""
    counted = count(root, name)
    if counted is None:
        return []
    definition = counted.definition
    folder = dataset_folder(root, name)
    total = definition["total"]
    share = 100 * counted.done / total
    server = f"python generate/image_server.py --output_root {shlex.quote(str(root))}"
    lines = [
        f"no job server runs for {root}; this is counted from the files:",
        f"{name:10s} {counted.done:,} of {total:,} prompts done ({share:.1f} %), "
        f"{counted.images:,} images"
        + (f", {counted.given_up:,} given up" if counted.given_up else ""),
        f"{INDENT}{definition.get('model')}, {definition['images_per_prompt']} images a prompt, "
        f"begun {definition.get('created', '')}",
        f"{INDENT}images: {folder}",
        *(f"{INDENT}not counted: {line}" for line in counted.unread),
    ]
    if counted.done < total:
        lines.append(f"{INDENT}go on: the command that began it; its options: {folder}/run.yaml")
    lines.append(f"{INDENT}the page shows its images, too: {server}")
    return lines


def what_next(root: Path, definition: Definition) -> str:
    """The last lines of a run that is done: where the images are, and the command of a release.

    Prompts of a .txt have no source, so the command has a place for their licence.
    """
    name, prompts = definition["name"], definition["prompts_file"]
    folder = near_path(dataset_folder(root, name))
    script = near_path(CHECKOUT / "postprocess_dataset" / "release.py")
    words = [this_python(), script, folder, f"release/{name}"]
    what = "        makes a table, tars, a report and a card of them: docs/release.md"
    if prompts.endswith(".txt"):
        words += ["--licence", f"{source_of(prompts)}=LICENCE"]
        what += "; LICENCE: that of your prompts, like CC0-1.0"
    return f"images: {folder}\nnext:   {shlex.join(words)}\n{what}"


def interrupted(done: int, total: int, images: int) -> str:
    """The last lines of a run that was stopped."""
    return (
        f"stopped at {done:,} of {total:,} prompts, {images:,} images; nothing is lost. Type it "
        f"again to go on:\n{shlex.join([this_python(), *sys.argv])}"
    )
